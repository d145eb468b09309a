//! Messages, tool calls and answers as Runmill keeps them. They are persisted in the journal and in threads, so they are our own,
//! name no provider and read tolerantly: a field that is missing takes its default, a kind that is not known is kept as `Unknown`.
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// Where the bytes of an image, a recording or a document are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Url(String),
    /// `mime_type` as in `image/png`; `base64` is the standard alphabet, padded.
    Data {
        mime_type: String,
        base64: String,
    },
}

/// One piece of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part {
    Text {
        text: String,
    },
    Image {
        source: Source,
    },
    Audio {
        source: Source,
    },
    Video {
        source: Source,
    },
    Document {
        source: Source,
    },
    /// A kind that a later release wrote; models never see it.
    #[serde(other)]
    Unknown,
}

impl Part {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// A call that a model asked for. `id` is ours (`call_` and 32 hex digits), unique in the whole deployment: some servers number the
/// calls of every answer from 0. `arguments` is an object, or a string with what the model sent when that was no JSON object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub arguments: Value,
}

/// One message of a conversation. `tool_call_id` says which call a `Tool` message answers; only `Assistant` messages have
/// `tool_calls` and `reasoning`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Part>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

impl ChatMessage {
    pub fn new(role: Role, content: Vec<Part>) -> Self {
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None, reasoning: None }
    }

    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, vec![Part::text(text)])
    }

    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, vec![Part::text(text)])
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, vec![Part::text(text)])
    }

    /// The result of the call `tool_call_id`.
    pub fn tool(tool_call_id: impl Into<String>, result: impl Into<String>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::new(Role::Tool, vec![Part::text(result)]) }
    }

    /// The text parts, joined by line ends.
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// A tool as a model sees it; `parameters` is a JSON Schema of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub parameters: Value,
}

/// Tokens of one answer, as the provider counted them (0 where it did not). `cached_input_tokens` are among `input_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    /// Millionths of a US dollar; 0 where no price is known.
    pub cost_micros: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.cost_micros += other.cost_micros;
    }
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    Stop,
    /// `max_tokens` was reached: the answer is whole as far as it goes.
    Length,
    ToolCalls,
    ContentFilter,
    #[default]
    #[serde(other)]
    Other,
}

/// A whole answer. `model` is what the provider says that it ran; `answered_by` is the `provider:name` that was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelResponse {
    pub message_text: String,
    pub reasoning: String,
    pub tool_calls: Vec<ToolCall>,
    pub usage: Usage,
    pub finish: FinishReason,
    pub model: String,
    pub answered_by: String,
}

impl ModelResponse {
    /// The answer as the assistant's message in the conversation that goes on.
    pub fn message(&self) -> ChatMessage {
        let text = (!self.message_text.is_empty()).then(|| Part::text(&self.message_text));
        ChatMessage {
            tool_calls: self.tool_calls.clone(),
            reasoning: (!self.reasoning.is_empty()).then(|| self.reasoning.clone()),
            ..ChatMessage::new(Role::Assistant, text.into_iter().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_old_or_a_newer_journal_still_reads() {
        let message: ChatMessage = serde_json::from_value(json!({
            "role": "user", "later": 1, "content": [{"type": "text", "text": "hi"}, {"type": "hologram", "x": 1},
            {"type": "image", "source": {"url": "https://x.test/a.png"}}],
        }))
        .unwrap();
        let image = Part::Image { source: Source::Url("https://x.test/a.png".into()) };
        assert_eq!(message.content, [Part::text("hi"), Part::Unknown, image]);
        let answer: ModelResponse = serde_json::from_value(json!({"message_text": "x", "finish": "a_new_reason"})).unwrap();
        assert_eq!((answer.finish, answer.usage), (FinishReason::Other, Usage::default()));
    }

    #[test]
    fn a_message_survives_the_journal() {
        let mut message = ChatMessage::assistant("let me see");
        message.tool_calls.push(ToolCall { id: "call_1".into(), name: "now".into(), arguments: json!({"tz": "UTC"}) });
        message
            .content
            .push(Part::Document { source: Source::Data { mime_type: "application/pdf".into(), base64: "AA==".into() } });
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<ChatMessage>(&text).unwrap(), message);
        assert_eq!(
            serde_json::to_value(ChatMessage::tool("call_1", "noon")).unwrap(),
            json!({
                "role": "tool", "content": [{"type": "text", "text": "noon"}], "tool_call_id": "call_1",
            })
        );
    }
}
