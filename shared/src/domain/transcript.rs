//! What was said, and when; and its subtitles.
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// `start` and `end` are seconds from the beginning of the audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    pub start: f64,
    pub end: f64,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    pub text: String,
    /// A BCP 47 tag: `en`, `zh-CN`; `und` when it is not known.
    pub language: String,
    /// Seconds of the audio, not of the speech in it.
    pub duration: f64,
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// SubRip. It has no escapes, so an arrow inside the text is broken up.
    pub fn to_srt(&self) -> String {
        let cues = self.segments.iter().enumerate().map(|(i, s)| {
            let text = lines(&s.text).replace("-->", "-- >");
            format!("{}\n{} --> {}\n{text}\n", i + 1, timestamp(s.start, ','), timestamp(s.end.max(s.start), ','))
        });
        cues.collect::<Vec<_>>().join("\n")
    }

    /// WebVTT: <https://www.w3.org/TR/webvtt1/>.
    pub fn to_vtt(&self) -> String {
        let mut out = "WEBVTT\n".to_owned();
        for s in &self.segments {
            let text = lines(&s.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let (start, end) = (timestamp(s.start, '.'), timestamp(s.end.max(s.start), '.'));
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{start} --> {end}\n{text}\n");
        }
        out
    }
}

/// An empty line would end the cue, in both formats.
fn lines(text: &str) -> String {
    let kept: Vec<_> = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect();
    kept.join("\n")
}

/// `HH:MM:SS,mmm`, rounded to the millisecond; what is not a time is zero.
fn timestamp(seconds: f64, point: char) -> String {
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{h:02}:{m:02}:{s:02}{point}{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(segments: &[(f64, f64, &str)]) -> Transcript {
        let segments = segments.iter().map(|(start, end, text)| Segment { start: *start, end: *end, text: (*text).to_owned() });
        Transcript { text: String::new(), language: "en".to_owned(), duration: 0.0, segments: segments.collect() }
    }

    #[test]
    fn srt() {
        let t = transcript(&[(0.0, 1.9996, "hello from"), (1.9996, 3661.5, "runmill\r\n\r\n<b> --> & end\n")]);
        let expected = "1\n00:00:00,000 --> 00:00:02,000\nhello from\n\
                        \n2\n00:00:02,000 --> 01:01:01,500\nrunmill\n<b> -- > & end\n";
        assert_eq!(t.to_srt(), expected);
    }

    #[test]
    fn vtt() {
        let t = transcript(&[(0.0, 1.9994, "hello from"), (360_000.001, 360_059.999_6, "\n\na --> b & <i>c</i>\r\nd")]);
        let expected = "WEBVTT\n\
                        \n00:00:00.000 --> 00:00:01.999\nhello from\n\
                        \n100:00:00.001 --> 100:01:00.000\na --&gt; b &amp; &lt;i&gt;c&lt;/i&gt;\nd\n";
        assert_eq!(t.to_vtt(), expected);
    }

    #[test]
    fn no_segments_and_no_times() {
        assert_eq!((transcript(&[]).to_srt(), transcript(&[]).to_vtt()), (String::new(), "WEBVTT\n".to_owned()));
        let t = transcript(&[(-1.0, f64::NAN, "a"), (5.0, 2.0, "b")]);
        assert_eq!(t.to_srt(), "1\n00:00:00,000 --> 00:00:00,000\na\n\n2\n00:00:05,000 --> 00:00:05,000\nb\n");
    }
}
