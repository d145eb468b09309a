//! What the engine asks of a model and what it gets back.
use async_trait::async_trait;
use futures::stream::BoxStream;
use runmill_shared::domain::chat::{ChatMessage, ModelResponse, ToolSpec};
use serde_json::Value;

use super::ModelError;

pub type EventStream = BoxStream<'static, Result<ModelEvent, ModelError>>;

/// A model that answers a conversation.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// `provider:name`.
    fn name(&self) -> &str;

    /// Streams an answer. The stream ends with exactly one [`ModelEvent::Done`] or one error: a half-finished answer is an error,
    /// never an answer. Dropping it ends the request to the provider.
    ///
    /// # Errors
    /// Here only when the request cannot be put to this provider at all; what the provider says arrives in the stream.
    async fn stream(&self, request: &ChatRequest) -> Result<EventStream, ModelError>;
}

/// One call of a model. `max_tokens` and `temperature` are left to the provider when they are not set.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    pub messages: Vec<ChatMessage>,
    pub tools: Vec<ToolSpec>,
    pub tool_choice: ToolChoice,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    /// No answer may be longer, whatever the model's own settings say.
    pub most_tokens: Option<u64>,
    /// JSON Schema of the answer, for providers that hold a model to one.
    pub output: Option<Value>,
}

/// Whether the model calls tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// When it wants to.
    #[default]
    Auto,
    Never,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// What a model sends while it answers. The text deltas, joined, are the answer's text; the deltas of a call are its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelEvent {
    TextDelta(String),
    ReasoningDelta(String),
    /// The `id` is the one that the call has in the answer.
    ToolCallStarted {
        id: String,
        name: String,
    },
    ToolCallDelta {
        id: String,
        delta: String,
    },
    Done(ModelResponse),
}

/// See [`runmill_shared::domain::chat::ToolCall`].
pub(super) fn new_call_id() -> String {
    format!("call_{}", runmill_shared::domain::new_id().simple())
}
