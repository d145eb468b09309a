//! The Agent API's own frames: an id, a type, and one line of JSON.
use bytes::Bytes;
use runmill_shared::{
    Result,
    clock::Timestamp,
    domain::event::{Event, kind},
};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// What the scratch buffer of an idle stream may keep.
const KEEP: usize = 8 * 1024;

/// Encodes one thread's events; one per stream, because its scratch buffer makes a frame cost one allocation.
pub struct SseEncoder {
    thread: String,
    scratch: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    id: i64,
    #[serde(rename = "type")]
    kind: &'a str,
    thread_id: &'a str,
    run_id: Option<&'a str>,
    task_id: Option<Uuid>,
    timestamp: String,
    data: &'a Value,
}

impl SseEncoder {
    /// `thread` is the client's name of the thread.
    pub fn new(thread: impl Into<String>) -> Self {
        Self { thread: thread.into(), scratch: Vec::new() }
    }

    pub fn event(&mut self, event: &Event) -> Result<Bytes> {
        let envelope = Envelope {
            id: event.seq,
            kind: &event.kind,
            thread_id: &self.thread,
            run_id: Some(&event.run),
            task_id: Some(event.run_id),
            timestamp: event.at.rfc3339(),
            data: &event.data,
        };
        write_frame(&mut self.scratch, &envelope)?;
        Ok(take(&mut self.scratch))
    }

    /// Says that the events `from..=to` are past retention. It belongs to no run; a reader resumes after `to`.
    pub fn gap(&mut self, from: i64, to: i64, at: Timestamp) -> Result<Bytes> {
        let envelope = Envelope {
            id: to,
            kind: kind::STREAM_GAP,
            thread_id: &self.thread,
            run_id: None,
            task_id: None,
            timestamp: at.rfc3339(),
            data: &json!({ "from": from, "to": to }),
        };
        write_frame(&mut self.scratch, &envelope)?;
        Ok(take(&mut self.scratch))
    }
}

fn write_frame(out: &mut Vec<u8>, envelope: &Envelope<'_>) -> Result<()> {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(envelope.id.to_string().as_bytes());
    out.extend_from_slice(b"\nevent: ");
    out.extend_from_slice(envelope.kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut *out, envelope)?;
    out.extend_from_slice(b"\n\n");
    Ok(())
}

/// The buffer's content as bytes of their own; the buffer stays, unless a large frame has swollen it.
pub(super) fn take(scratch: &mut Vec<u8>) -> Bytes {
    let frame = Bytes::copy_from_slice(scratch);
    scratch.clear();
    scratch.shrink_to(KEEP);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, kind: &str, data: Value) -> Event {
        let run_id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        Event { seq, run_id, run: "run-001".into(), kind: kind.into(), data, at: Timestamp(1_773_655_200_000_001) }
    }

    #[test]
    fn a_frame_is_an_id_a_type_and_the_envelope_on_one_line() {
        let mut sse = SseEncoder::new("t\"1");
        let frame = sse.event(&event(7, "text.delta", json!({ "messageId": "m1", "delta": "a\r\n\u{2028}é" }))).unwrap();
        let text = std::str::from_utf8(&frame).unwrap();
        let (head, data) = text.split_once("data: ").unwrap();
        assert_eq!(head, "id: 7\nevent: text.delta\n");
        assert_eq!(text.matches('\n').count(), 4);
        assert!(text.ends_with("}\n\n") && !text.contains('\r'));
        // `data` keeps the order in which serde_json holds it; the envelope's own order is fixed.
        assert!(data.starts_with(concat!(
            r#"{"id":7,"type":"text.delta","threadId":"t\"1","runId":"run-001","#,
            r#""taskId":"01900000-0000-7000-8000-000000000001","timestamp":"2026-03-16T10:00:00.000001Z","data":{"#
        )));
        let read: Value = serde_json::from_str(data).unwrap();
        assert_eq!(read["data"], json!({ "messageId": "m1", "delta": "a\r\n\u{2028}é" }));
    }

    #[test]
    fn a_gap_has_the_id_of_its_end() {
        let frame = SseEncoder::new("t1").gap(1, 40, Timestamp(1_773_655_200_000_000)).unwrap();
        let envelope = concat!(
            r#"{"id":40,"type":"stream.gap","threadId":"t1","runId":null,"taskId":null,"#,
            r#""timestamp":"2026-03-16T10:00:00.000000Z","data":{"from":1,"to":40}}"#
        );
        assert_eq!(frame, format!("id: 40\nevent: stream.gap\ndata: {envelope}\n\n"));
    }

    #[test]
    fn frames_do_not_leak_into_each_other_and_a_large_one_is_let_go() {
        let mut sse = SseEncoder::new("t1");
        let small = event(2, "progress", json!({}));
        let alone = sse.event(&small).unwrap();
        sse.event(&event(1, "progress", json!({ "text": "x".repeat(100_000) }))).unwrap();
        assert!(sse.scratch.capacity() <= KEEP);
        assert_eq!(sse.event(&small).unwrap(), alone);
    }
}
