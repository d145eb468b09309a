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

/// Plans a goal, or what is not done of it anew. The result is `{"plan_version", "added", "removed", "changed", "kept"}`: the keys of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalPlan {
    pub goal_id: Uuid,
    /// The goal's plan as it was when this was asked for: a newer one is not written over.
    pub plan_version: i64,
    /// What is done stays; without it the goal has no tasks yet.
    pub replan: bool,
    /// The goal becomes active when it is planned.
    pub activate: bool,
    /// What its owner says to it.
    pub instructions: Option<String>,
}

/// Executes a goal's tasks until it ends. The result is `{"status", "done", "total"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalRun {
    pub goal_id: Uuid,
    /// All its tasks are done anew: a goal that a schedule fires.
    pub fresh: bool,
}

/// An agent executes a task. The result is that of an agent's run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRun {
    pub task_id: Uuid,
    /// As the loop reads it; the task is its message.
    pub agent: AgentRun,
}

/// A notification goes through a channel. The result is `{"status"}`: what the other side said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub notification_id: Uuid,
    pub channel_id: Uuid,
}
