//! A thread's messages: what clients send (AG-UI's shapes) and what agents answer, stored once and in order.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    User,
    Assistant,
    System,
    Developer,
    Tool,
    Reasoning,
    Activity,
}

impl MessageRole {
    pub const ALL: [Self; 7] =
        [Self::User, Self::Assistant, Self::System, Self::Developer, Self::Tool, Self::Reasoning, Self::Activity];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Developer => "developer",
            Self::Tool => "tool",
            Self::Reasoning => "reasoning",
            Self::Activity => "activity",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    Image,
    Audio,
    Video,
    Document,
    Binary,
}

/// Where a part's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    Data { base64: String },
    Url { url: String },
    Attachment { bucket: String, path: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MessagePart {
    Text { text: String },
    Media { kind: PartKind, mime_type: Option<String>, source: Source },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageToolCall {
    pub id: String,
    pub name: String,
    /// As the model wrote them: JSON, or what should have been JSON.
    pub arguments: String,
}

/// What the `messages.body` column holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageBody {
    #[serde(default)]
    pub parts: Vec<MessagePart>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<MessageToolCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ui_schema: Option<Value>,
    /// What a model thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

impl MessageBody {
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![MessagePart::Text { text: text.into() }], ..Self::default() }
    }

    /// Its text parts, one after the other.
    pub fn plain(&self) -> String {
        let texts = self.parts.iter().filter_map(|p| match p {
            MessagePart::Text { text } => Some(text.as_str()),
            MessagePart::Media { .. } => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// A message that has no number yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    /// Once in a thread: a message whose id is stored already is not stored again.
    pub id: String,
    pub role: MessageRole,
    pub body: MessageBody,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub id: String,
    pub seq: i64,
    pub run_id: Uuid,
    pub role: MessageRole,
    pub body: MessageBody,
    pub at: Timestamp,
}
