//! A run's events as a chat's frames: `token`, `tool_call`, `tool_result`, `done`, `error`; and `discard` where an answer broke off that
//! is said anew. Each has an id that names the run and the event that it comes from.
use bytes::Bytes;
use poem_openapi::types::ToJSON;
use runmill_shared::{
    Result,
    clock::Timestamp,
    domain::{
        dialogue::{Dialogue, Said},
        event::Event,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::chat::{TokenUsage, error_frame, participants};
use crate::http::live::Encode;

pub struct ChatEncoder {
    run_id: Uuid,
    session: String,
    /// Only text and the end.
    is_streamlined: bool,
    dialogue: Dialogue,
    /// Frames of the next event that were seen.
    skip: usize,
}

impl ChatEncoder {
    pub fn new(run_id: Uuid, session: String, is_streamlined: bool) -> Self {
        Self { run_id, session, is_streamlined, dialogue: Dialogue::default(), skip: 0 }
    }

    /// Events that the client has seen: what they left open counts.
    pub fn seen(&mut self, events: &[Event]) -> Result<()> {
        for event in events.iter().filter(|e| e.run_id == self.run_id) {
            self.dialogue.hear(event);
        }
        Ok(())
    }

    /// Of the next event, so many frames were seen.
    pub fn skip(&mut self, frames: usize) {
        self.skip = frames;
    }

    fn frame(&self, said: Said) -> Option<(&'static str, Value)> {
        let is_detail = matches!(said, Said::ToolCall(_) | Said::ToolResult { .. } | Said::Discarded(_));
        if self.is_streamlined && is_detail {
            return None;
        }
        Some(match said {
            Said::Token(text) => ("token", json!({ "content": text })),
            Said::Discarded(text) => ("discard", json!({ "content": text })),
            Said::ToolCall(call) => ("tool_call", json!({ "id": call.id, "name": call.name, "arguments": call.arguments })),
            Said::ToolResult { id, outcome: Ok(result) } => ("tool_result", json!({ "id": id, "result": result })),
            Said::ToolResult { id, outcome: Err(error) } => ("tool_result", json!({ "id": id, "error": error })),
            Said::Finished(result, usage) => {
                let mut done = json!({ "session_id": self.session, "execution_id": self.run_id });
                done["token_usage"] = TokenUsage::from(usage).to_json().unwrap_or_default();
                if let Some(all) = participants(&result) {
                    done["participants"] = all.to_json().unwrap_or_default();
                }
                ("done", done)
            }
            Said::Failed(error) => ("error", error_frame(error.code, error.message)),
        })
    }
}

impl Encode for ChatEncoder {
    fn event(&mut self, event: &Event) -> Result<Bytes> {
        if event.run_id != self.run_id {
            return Ok(Bytes::new());
        }
        let said = self.dialogue.hear(event);
        let frames: Vec<_> = said.into_iter().filter_map(|said| self.frame(said)).collect();
        let (skip, count) = (std::mem::take(&mut self.skip), frames.len());
        let mut text = String::new();
        for (i, (name, data)) in frames.into_iter().enumerate().skip(skip) {
            let part = if i + 1 == count { String::new() } else { format!(".{}", i + 1) };
            text.push_str(&format!("id: {}:{}{part}\nevent: {name}\ndata: {data}\n\n", self.run_id, event.seq));
        }
        Ok(text.into())
    }

    /// What is past retention cannot be said any more; what comes after it is.
    fn gap(&mut self, _: i64, _: i64, _: Timestamp) -> Result<Bytes> {
        Ok(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use runmill_shared::domain::event::kind;

    use super::*;

    const RUN: Uuid = Uuid::from_u128(1);

    fn event(seq: i64, kind: &str, data: Value) -> Event {
        Event { seq, run_id: RUN, run: "r".into(), kind: kind.into(), data, at: Timestamp(0) }
    }

    fn events() -> Vec<Event> {
        vec![
            event(1, kind::RUN_QUEUED, json!({})),
            event(2, kind::MESSAGE_STARTED, json!({ "messageId": "m" })),
            event(3, kind::TEXT_DELTA, json!({ "messageId": "m", "delta": "a\n" })),
            event(4, kind::TOOL_STARTED, json!({ "toolCallId": "x", "name": "now" })),
            event(5, kind::TOOL_STARTED, json!({ "toolCallId": "y", "name": "now" })),
            event(6, kind::MESSAGE_FINISHED, json!({ "messageId": "m", "content": "a\n" })),
            event(7, kind::TOOL_FINISHED, json!({ "toolCallId": "x", "result": 1 })),
            event(8, kind::RUN_FINISHED, json!({ "result": { "content": "z" }, "usage": { "inputTokens": 2 } })),
        ]
    }

    fn encode(encoder: &mut ChatEncoder, events: &[Event]) -> Vec<String> {
        let text: String = events.iter().map(|e| String::from_utf8(encoder.event(e).unwrap().to_vec()).unwrap()).collect();
        text.split_terminator("\n\n").map(|frame| frame.trim_start_matches(&format!("id: {RUN}:")).to_owned()).collect()
    }

    #[test]
    fn each_frame_names_its_place() {
        let frames = encode(&mut ChatEncoder::new(RUN, "s".into(), false), &events());
        let heads: Vec<_> = frames.iter().map(|f| f.lines().take(2).collect::<Vec<_>>().join(" ")).collect();
        let expected = ["3 event: token", "6.1 event: tool_call", "6 event: tool_call", "7 event: tool_result", "8 event: done"];
        assert_eq!(heads, expected);
        assert_eq!(frames[0].lines().nth(2), Some(r#"data: {"content":"a\n"}"#));
        let streamlined = encode(&mut ChatEncoder::new(RUN, "s".into(), true), &events());
        assert_eq!(streamlined.iter().map(|f| f.lines().nth(1).unwrap()).collect::<Vec<_>>(), ["event: token", "event: done"]);
    }

    #[test]
    fn a_reader_goes_on_within_an_event() {
        let all = events();
        let whole = encode(&mut ChatEncoder::new(RUN, "s".into(), false), &all);
        // It has seen the first of the two frames of event 6.
        let mut encoder = ChatEncoder::new(RUN, "s".into(), false);
        encoder.seen(&all[..5]).unwrap();
        encoder.skip(1);
        assert_eq!(encode(&mut encoder, &all[5..]), whole[2..]);
    }

    #[test]
    fn another_runs_events_are_not_told() {
        let mut encoder = ChatEncoder::new(Uuid::nil(), "s".into(), false);
        assert!(events().iter().all(|e| encoder.event(e).unwrap().is_empty()));
    }
}
