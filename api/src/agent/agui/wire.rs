//! AG-UI 1.0 events as they are written, and the frames that carry them.
use bytes::Bytes;
use runmill_shared::{Result, clock::Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::agent::sse;

/// An absent optional field is left out: the stock client refuses null for most of them.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum AguiEvent<'a> {
    RunStarted {
        thread_id: &'a str,
        run_id: &'a str,
        protocol_version: &'a str,
    },
    RunFinished {
        thread_id: &'a str,
        run_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<[TokenUsage<'a>; 1]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Value>,
    },
    RunError {
        message: &'a str,
        code: &'a str,
    },
    StepStarted {
        step_name: &'a str,
    },
    StepFinished {
        step_name: &'a str,
    },
    TextMessageStart {
        message_id: &'a str,
        role: &'a str,
    },
    TextMessageContent {
        message_id: &'a str,
        delta: &'a str,
    },
    TextMessageEnd {
        message_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Value>,
    },
    ReasoningStart {
        message_id: &'a str,
    },
    ReasoningMessageStart {
        message_id: &'a str,
        role: &'a str,
    },
    ReasoningMessageContent {
        message_id: &'a str,
        delta: &'a str,
    },
    ReasoningMessageEnd {
        message_id: &'a str,
    },
    ReasoningEnd {
        message_id: &'a str,
    },
    ToolCallStart {
        tool_call_id: &'a str,
        tool_call_name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        parent_message_id: Option<&'a str>,
    },
    ToolCallArgs {
        tool_call_id: &'a str,
        delta: &'a str,
    },
    ToolCallEnd {
        tool_call_id: &'a str,
    },
    ToolCallResult {
        message_id: &'a str,
        tool_call_id: &'a str,
        content: &'a str,
        role: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Value>,
    },
    StateSnapshot {
        snapshot: &'a Value,
    },
    StateDelta {
        delta: &'a Value,
    },
    Custom {
        name: &'a str,
        value: &'a Value,
    },
}

/// Success needs no outcome unless calls are pending.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Outcome<'a> {
    Success { pending_tool_call_ids: &'a Value },
    Cancelled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

#[derive(Serialize)]
struct Stamped<'a> {
    #[serde(flatten)]
    event: &'a AguiEvent<'a>,
    /// Milliseconds since 1970.
    timestamp: i64,
}

/// The frames of one of our events. Each is left open after its data, because only the last gets the id.
#[derive(Default)]
pub struct Frames {
    text: Vec<u8>,
    timestamp: i64,
    muted: bool,
}

impl Frames {
    pub fn at(&mut self, time: Timestamp) {
        self.timestamp = time.0.div_euclid(1000);
    }

    pub fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn clear(&mut self) {
        self.text.clear();
    }

    pub fn push(&mut self, event: &AguiEvent<'_>) -> Result<()> {
        if self.muted {
            return Ok(());
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut self.text, &Stamped { event, timestamp: self.timestamp })?;
        self.text.push(b'\n');
        Ok(())
    }

    pub fn finish(&mut self, id: i64) -> Bytes {
        self.text.extend_from_slice(format!("id: {id}\n\n").as_bytes());
        sse::take(&mut self.text)
    }
}
