//! What a run's events say to somebody who chats: text as it comes, calls once they are whole, their results, and the end.
use serde_json::{Value, json};

use super::{
    event::{Event, kind},
    run::{RunError, RunUsage},
};

/// The code of a run that was cancelled.
pub const CANCELLED: &str = "RUN_CANCELLED";

#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Token(String),
    /// What was said of an answer that broke off does not count: it is said anew.
    Discarded(String),
    ToolCall(Call),
    ToolResult {
        id: String,
        outcome: Result<Value, Value>,
    },
    /// The run's result, and what it used.
    Finished(Value, RunUsage),
    Failed(RunError),
}

/// A call of a tool. `outcome` is what came of it: `Err` has `code` and `message`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub id: String,
    pub name: String,
    pub arguments: Value,
    pub outcome: Option<Result<Value, Value>>,
}

/// Hears one run's events in their order.
#[derive(Debug, Default)]
pub struct Dialogue {
    /// Of the message that is being said.
    text: String,
    /// Id, name and what has come of the arguments.
    calls: Vec<(String, String, String)>,
}

impl Dialogue {
    pub fn hear(&mut self, event: &Event) -> Vec<Said> {
        let data = &event.data;
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            kind::MESSAGE_STARTED => *self = Self::default(),
            kind::TEXT_DELTA => {
                self.text.push_str(&text("delta"));
                return vec![Said::Token(text("delta"))];
            }
            kind::TOOL_STARTED => self.calls.push((text("toolCallId"), text("name"), String::new())),
            kind::TOOL_DELTA => {
                if let Some((.., arguments)) = self.calls.iter_mut().find(|(id, ..)| *id == data["toolCallId"]) {
                    arguments.push_str(&text("delta"));
                }
            }
            kind::MESSAGE_FINISHED => return std::mem::take(self).close(data["discarded"] == true),
            kind::TOOL_FINISHED => {
                let outcome = data.get("error").map_or_else(|| Ok(data["result"].clone()), |error| Err(error.clone()));
                return vec![Said::ToolResult { id: text("toolCallId"), outcome }];
            }
            kind::RUN_FINISHED => {
                let usage = serde_json::from_value(data["usage"].clone()).unwrap_or_default();
                return vec![Said::Finished(data["result"].clone(), usage)];
            }
            kind::RUN_FAILED if event.is_terminal() => {
                let unknown = |_| RunError::new("RUN_FAILED", "the run failed", false);
                return vec![Said::Failed(serde_json::from_value(data["error"].clone()).unwrap_or_else(unknown))];
            }
            kind::RUN_CANCELLED => {
                let reason = data["reason"].as_str().unwrap_or("the run was cancelled");
                return vec![Said::Failed(RunError::new(CANCELLED, reason, false))];
            }
            _ => {}
        }
        Vec::new()
    }

    fn close(self, is_discarded: bool) -> Vec<Said> {
        if is_discarded {
            return if self.text.is_empty() { Vec::new() } else { vec![Said::Discarded(self.text)] };
        }
        let call = |(id, name, arguments): (String, String, String)| {
            let arguments = if arguments.is_empty() {
                json!({})
            } else {
                serde_json::from_str(&arguments).unwrap_or(Value::String(arguments))
            };
            Said::ToolCall(Call { id, name, arguments, outcome: None })
        };
        self.calls.into_iter().map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;

    fn hear(events: &[(&str, Value)]) -> Vec<Said> {
        let mut dialogue = Dialogue::default();
        let event = |(kind, data): &(&str, Value)| Event {
            seq: 1,
            run_id: Uuid::nil(),
            run: "r".into(),
            kind: (*kind).to_owned(),
            data: data.clone(),
            at: Timestamp(0),
        };
        events.iter().flat_map(|e| dialogue.hear(&event(e))).collect()
    }

    fn call(id: &str, arguments: Value) -> Said {
        Said::ToolCall(Call { id: id.into(), name: "now".into(), arguments, outcome: None })
    }

    #[test]
    fn calls_are_told_when_they_are_whole() {
        let said = hear(&[
            (kind::RUN_STARTED, json!({})),
            (kind::MESSAGE_STARTED, json!({ "messageId": "m" })),
            (kind::TEXT_DELTA, json!({ "messageId": "m", "delta": "let me see" })),
            (kind::TOOL_STARTED, json!({ "toolCallId": "a", "name": "now" })),
            (kind::TOOL_STARTED, json!({ "toolCallId": "b", "name": "now" })),
            (kind::TOOL_DELTA, json!({ "toolCallId": "a", "delta": "{\"tz\":" })),
            (kind::TOOL_DELTA, json!({ "toolCallId": "a", "delta": "\"UTC\"}" })),
            (kind::MESSAGE_FINISHED, json!({ "messageId": "m", "content": "let me see" })),
            (kind::TOOL_FINISHED, json!({ "toolCallId": "b", "result": 1 })),
            (kind::TOOL_FINISHED, json!({ "toolCallId": "a", "error": { "code": "X", "message": "y" } })),
            (kind::RUN_FINISHED, json!({ "result": { "content": "z" }, "usage": { "inputTokens": 3 } })),
        ]);
        let result = |id: &str, outcome| Said::ToolResult { id: id.into(), outcome };
        let usage = RunUsage { input_tokens: 3, ..RunUsage::default() };
        let expected = [
            Said::Token("let me see".into()),
            call("a", json!({ "tz": "UTC" })),
            call("b", json!({})),
            result("b", Ok(json!(1))),
            result("a", Err(json!({ "code": "X", "message": "y" }))),
            Said::Finished(json!({ "content": "z" }), usage),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_broke_off_does_not_count() {
        let said = hear(&[
            (kind::MESSAGE_STARTED, json!({ "messageId": "m" })),
            (kind::TEXT_DELTA, json!({ "messageId": "m", "delta": "half" })),
            (kind::TOOL_STARTED, json!({ "toolCallId": "a", "name": "now" })),
            (kind::MESSAGE_FINISHED, json!({ "messageId": "m", "discarded": true })),
            (kind::RUN_FAILED, json!({ "error": { "code": "E", "message": "e", "retryable": true }, "willRetry": true })),
            (kind::MESSAGE_STARTED, json!({ "messageId": "n" })),
            (kind::MESSAGE_FINISHED, json!({ "messageId": "n", "discarded": true })),
            (kind::RUN_FAILED, json!({ "error": { "code": "E", "message": "e", "retryable": false }, "willRetry": false })),
        ]);
        let failed = Said::Failed(RunError::new("E", "e", false));
        assert_eq!(said, [Said::Token("half".into()), Said::Discarded("half".into()), failed]);
        assert_eq!(
            hear(&[(kind::RUN_CANCELLED, json!({ "reason": "why" }))]),
            [Said::Failed(RunError::new(CANCELLED, "why", false))]
        );
    }
}
