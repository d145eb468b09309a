//! Transcription end to end: real whisper.cpp on the scripted model, and the hosted wire against a local server.
#![cfg(feature = "whisper")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's own functions may fail as it does")]
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use runmill_shared::{
    Error, ErrorKind,
    config::{Config, Secret},
    domain::transcript::{Segment, Transcript},
};
use runmill_testkit::whisper_model::{Script, sine_wav, write_scripted_model};
use runmill_worker::asr::{Asr, AsrEvent};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn script<'a>(language: &'a str, segments: &[(f64, f64, &'a str)]) -> Script<'a> {
    Script { language, segments: segments.to_vec() }
}

fn english() -> Script<'static> {
    script("en", &[(0.0, 2.0, "hello from runmill"), (2.0, 3.5, "it is scripted"), (3.5, 4.0, "goodbye")])
}

fn segment(start: f64, end: f64, text: &str) -> Segment {
    Segment { start, end, text: text.to_owned() }
}

fn with_model(model: &Path) -> Asr {
    let mut config = Config::defaults().unwrap();
    config.transcribe.model = model.to_owned();
    Asr::from_config(&config).unwrap()
}

fn scripted(dir: &TempDir, script: &Script<'_>) -> (PathBuf, Asr) {
    let path = dir.path().join("scripted.bin");
    write_scripted_model(&path, script).unwrap();
    let asr = with_model(&path);
    (path, asr)
}

/// The transcript and all events, once it has ended.
async fn transcribe(asr: &Asr, wav: Vec<u8>) -> (Result<Transcript, Error>, Vec<AsrEvent>) {
    let (events, mut heard) = mpsc::channel(4);
    let listen = async {
        let mut all = Vec::new();
        while let Some(event) = heard.recv().await {
            all.push(event);
        }
        all
    };
    let cancel = CancellationToken::new();
    tokio::join!(asr.transcribe(Bytes::from(wav), &cancel, events), listen)
}

fn progress(events: &[AsrEvent]) -> Vec<u8> {
    events.iter().filter_map(|e| if let AsrEvent::Progress(p) = e { Some(*p) } else { None }).collect()
}

fn segments(events: &[AsrEvent]) -> Vec<Segment> {
    events.iter().filter_map(|e| if let AsrEvent::Segment(s) = e { Some(s.clone()) } else { None }).collect()
}

#[tokio::test]
async fn scripted_model_says_its_script() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    let begun = Instant::now();
    let (transcript, events) = transcribe(&asr, sine_wav(4.0, 44_100, 2)).await;
    eprintln!("first transcription, with the load of the model: {:?}", begun.elapsed());
    let transcript = transcript.unwrap();
    let expected =
        vec![segment(0.0, 2.0, "hello from runmill"), segment(2.0, 3.5, "it is scripted"), segment(3.5, 4.0, "goodbye")];
    assert_eq!(transcript.text, "hello from runmill it is scripted goodbye");
    assert_eq!((transcript.language.as_str(), transcript.duration), ("en", 4.0));
    assert_eq!(transcript.segments, expected);
    assert_eq!(segments(&events), expected);
    assert!(progress(&events).is_sorted() && progress(&events).contains(&0), "{events:?}");

    let begun = Instant::now();
    let again = transcribe(&asr, sine_wav(4.0, 16_000, 1)).await.0.unwrap();
    eprintln!("second transcription: {:?}", begun.elapsed());
    assert_eq!(again, transcript);
}

#[tokio::test]
async fn chinese_is_zh_cn() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &script("zh", &[(0.0, 1.5, "你好"), (1.5, 3.0, "世界")]));
    let transcript = transcribe(&asr, sine_wav(3.0, 8_000, 1)).await.0.unwrap();
    assert_eq!((transcript.language.as_str(), transcript.text.as_str()), ("zh-CN", "你好世界"));
    assert_eq!(transcript.segments, vec![segment(0.0, 1.5, "你好"), segment(1.5, 3.0, "世界")]);
    assert_eq!(transcript.to_srt(), "1\n00:00:00,000 --> 00:00:01,500\n你好\n\n2\n00:00:01,500 --> 00:00:03,000\n世界\n");
}

/// Each window of 30 s says the script once; the times of the second are counted from the beginning.
#[tokio::test]
async fn longer_than_a_window() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    let (transcript, events) = transcribe(&asr, sine_wav(34.0, 16_000, 1)).await;
    let transcript = transcript.unwrap();
    assert_eq!(transcript.duration, 34.0);
    assert_eq!(transcript.segments.len(), 6);
    assert_eq!(transcript.segments[3], segment(30.0, 32.0, "hello from runmill"));
    assert!(progress(&events).iter().any(|p| (80..95).contains(p)), "{events:?}");
}

/// A recording that ends within the script, and one of 10 ms: padded for whisper, never longer than it is.
#[tokio::test]
async fn shorter_than_the_script() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    for seconds in [1.5, 0.01] {
        let transcript = transcribe(&asr, sine_wav(seconds, 16_000, 1)).await.0.unwrap();
        assert_eq!(transcript.duration, seconds);
        assert!(transcript.segments.iter().all(|s| s.end <= seconds), "{transcript:?}");
    }
}

#[tokio::test]
async fn cancel_in_the_middle() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    let cancel = CancellationToken::new();
    let (events, mut heard) = mpsc::channel(4);
    let wav = Bytes::from(sine_wav(890.0, 16_000, 1));
    let stop = async {
        while !matches!(heard.recv().await, Some(AsrEvent::Segment(_)) | None) {}
        cancel.cancel();
        Instant::now()
    };
    let (result, asked) = tokio::join!(asr.transcribe(wav, &cancel, events), stop);
    assert_eq!(result.unwrap_err().code, "CANCELLED");
    assert!(asked.elapsed() < Duration::from_secs(1), "answered {:?} after the cancel", asked.elapsed());
    // The only permit is free again once the thread has ended, long before 15 minutes of audio are through.
    let next = tokio::time::timeout(Duration::from_secs(10), transcribe(&asr, sine_wav(4.0, 16_000, 1))).await;
    assert_eq!(next.unwrap().0.unwrap().segments.len(), 3);
    eprintln!("the next transcription had ended {:?} after the cancel", asked.elapsed());
}

#[tokio::test]
async fn cancelled_before_it_begins() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = asr.transcribe(Bytes::from(sine_wav(1.0, 16_000, 1)), &cancel, mpsc::channel(1).0).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Conflict, "CANCELLED"));
}

#[tokio::test]
async fn nobody_listens() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    let (events, heard) = mpsc::channel(1);
    drop(heard);
    let wav = Bytes::from(sine_wav(4.0, 16_000, 1));
    assert_eq!(asr.transcribe(wav, &CancellationToken::new(), events).await.unwrap().segments.len(), 3);
}

#[tokio::test]
async fn bad_audio_is_invalid() {
    let dir = TempDir::new().unwrap();
    let (_, asr) = scripted(&dir, &english());
    for wav in [b"not audio".to_vec(), sine_wav(1.0, 16_000, 1)[..5000].to_vec(), sine_wav(901.0, 8_000, 1)] {
        let error = transcribe(&asr, wav).await.0.unwrap_err();
        assert_eq!((error.kind, error.fields[0].field.as_str()), (ErrorKind::Invalid, "audio"), "{error}");
    }
}

#[tokio::test]
async fn no_model() {
    let dir = TempDir::new().unwrap();
    let mut config = Config::defaults().unwrap();
    config.data_dir = dir.path().to_owned();
    let asr = Asr::from_config(&config).unwrap();
    let error = transcribe(&asr, sine_wav(1.0, 16_000, 1)).await.0.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "TRANSCRIBE_UNAVAILABLE"));
    assert!(error.message.contains("runmill models pull whisper-base"), "{error}");

    // A model that was pulled is found.
    std::fs::create_dir(dir.path().join("models")).unwrap();
    write_scripted_model(&dir.path().join("models/ggml-base.bin"), &english()).unwrap();
    let transcript = transcribe(&Asr::from_config(&config).unwrap(), sine_wav(4.0, 16_000, 1)).await.0.unwrap();
    assert_eq!(transcript.segments.len(), 3);
}

/// Runs only where a real model is named.
#[tokio::test]
async fn real_model() {
    let Some(model) = std::env::var_os("RUNMILL_WHISPER_MODEL") else { return };
    let asr = with_model(Path::new(&model));
    let transcript = transcribe(&asr, sine_wav(3.0, 44_100, 2)).await.0.unwrap();
    assert_eq!(transcript.duration, 3.0);
    assert!(transcript.segments.iter().all(|s| s.end <= 3.0), "{transcript:?}");
}

#[path = "asr/broken_models.rs"]
mod broken_models;
#[path = "asr/hosted.rs"]
mod hosted;
