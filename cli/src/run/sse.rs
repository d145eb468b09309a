//! Server-sent events, as they come in: in pieces that end anywhere.
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub id: Option<u64>,
    pub data: String,
}

#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    frame: Frame,
    /// how long the server asks us to wait before we connect again
    pub retry: Option<Duration>,
}

impl Decoder {
    /// The frames that this piece has completed.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Frame> {
        self.bytes.extend_from_slice(piece);
        let mut done = Vec::new();
        let mut start = 0;
        while let Some(length) = self.bytes[start..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[start..start + length]).into_owned();
            start += length + 1;
            done.extend(self.line(line.trim_end_matches('\r')));
        }
        self.bytes.drain(..start);
        done
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return (!frame.data.is_empty()).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.frame.id = value.parse().ok(),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_wherever_the_pieces_end() {
        let stream = ": ping\n\nretry: 250\nid: 7\nevent: text.delta\ndata: {\"a\":\"ä\"}\n\nid: 8\r\ndata: x\r\ndata: y\r\n\r\nid: 9\ndata: cut";
        for size in 1..stream.len() {
            let mut decoder = Decoder::default();
            let frames: Vec<_> = stream.as_bytes().chunks(size).flat_map(|piece| decoder.push(piece)).collect();
            let expected = [Frame { id: Some(7), data: "{\"a\":\"ä\"}".into() }, Frame { id: Some(8), data: "x\ny".into() }];
            assert_eq!(frames, expected, "in pieces of {size}");
            assert_eq!(decoder.retry, Some(Duration::from_millis(250)));
        }
    }
}
