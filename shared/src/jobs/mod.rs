//! What each kind of run reads from its row: the payloads. Their lanes are in `domain::run::RunKind`.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// An agent's run reads the request as it was accepted; its messages are in the thread.
pub use crate::domain::run_input::RunInput as AgentRun;
use crate::domain::{team::Team, tool::CustomTool};

/// Several agents work on a user's message. The result is `{"messageId", "content", "participants": [{"agent_id", "execution_id",
/// "content"}]}`; of a participant that failed and was done without, `content` is null and `error` says why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeamRun {
    pub team: Team,
    /// The message as it stands in the thread.
    pub message_id: String,
    pub message: String,
}

/// One call of a tool. The result is `{"ok": true, "result": …}` or `{"ok": false, "error": {"code", "message"}}`: what a tool
/// refuses or fails at is data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub tool: CalledTool,
    /// An object that satisfies the tool's input schema.
    pub arguments: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalledTool {
    Builtin(String),
    Custom(Box<CustomTool>),
}

/// One call of a model configuration. The result is `{"ok": true, "reply", "latency_ms"}` or `{"ok": false, "error", "latency_ms"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelTest {
    pub model_config_id: Uuid,
}

/// Reads the tools of a plugin from its source and stores them. The result is `{"tools": number}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginSync {
    pub plugin_id: Uuid,
}

/// Keeps what the run `run_id` learned of its user. The result is `{"memories": number}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryExtraction {
    pub run_id: Uuid,
}

/// A recording that is stored as a temporary attachment. The result is a `domain::transcript::Transcript`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcription {
    pub attachment_id: Uuid,
    pub path: String,
    /// Seconds, as the file declares.
    pub duration: f64,
}
