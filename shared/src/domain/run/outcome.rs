//! How a run ends: its state, what it came to or why it failed, and what it used.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{super::chat::Usage, RunState};

/// Why a run failed: what its row, its last event and its answer say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    pub code: String,
    pub message: String,
    pub retryable: bool,
}

impl RunError {
    pub fn new(code: &str, message: impl Into<String>, retryable: bool) -> Self {
        Self { code: code.to_owned(), message: message.into(), retryable }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(default)]
pub struct RunUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Among the input tokens: those that the provider had cached.
    pub cached_input_tokens: u64,
    /// Millionths of a US dollar, as far as prices are known.
    pub cost_micros: u64,
}

impl RunUsage {
    pub fn add(&mut self, usage: Usage) {
        self.input_tokens += usage.input_tokens;
        self.output_tokens += usage.output_tokens;
        self.cached_input_tokens += usage.cached_input_tokens;
        self.cost_micros += usage.cost_micros;
    }
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub state: RunState,
    pub result: Option<Value>,
    pub error: Option<RunError>,
    /// A failure that does not say what it used has what its journal knows.
    pub usage: Option<RunUsage>,
}

impl End {
    pub fn succeeded(result: Value) -> Self {
        Self { state: RunState::Succeeded, result: Some(result), error: None, usage: None }
    }

    pub fn failed(error: RunError) -> Self {
        Self { state: RunState::Failed, result: None, error: Some(error), usage: None }
    }

    pub fn cancelled() -> Self {
        Self { state: RunState::Cancelled, result: None, error: None, usage: None }
    }

    #[must_use]
    pub fn using(self, usage: RunUsage) -> Self {
        Self { usage: Some(usage), ..self }
    }
}
