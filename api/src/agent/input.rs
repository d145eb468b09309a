//! The body of a run, as the document describes it. `domain::run_input` reads it, and names every bad field.
use poem_openapi::{Enum, Object};
use serde_json::Value;

/// AG-UI's RunAgentInput, in its 0.x and 1.0 forms. Unknown fields are left out.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct RunAgentInput {
    /// belongs to the caller; created when new
    #[oai(validator(min_length = 1, max_length = 128))]
    pub thread_id: String,
    /// unique within the caller's runs
    #[oai(validator(min_length = 1, max_length = 128))]
    pub run_id: String,
    /// those that the thread has already (same id) are not stored again
    pub messages: Vec<InputMessage>,
    pub state: Option<Value>,
    /// tools that the client executes
    pub tools: Option<Vec<InputTool>>,
    pub context: Option<Vec<InputContext>>,
    /// any JSON; an object's agentId, model, priority, runAt and multitask are read
    pub forwarded_props: Option<Value>,
    pub parent_run_id: Option<String>,
    pub resume: Option<Vec<Value>>,
    pub protocol_version: Option<String>,
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
pub enum InputRole {
    User,
    Assistant,
    System,
    Developer,
    Tool,
    Reasoning,
    Activity,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct InputMessage {
    #[oai(validator(min_length = 1, max_length = 128))]
    pub id: String,
    pub role: InputRole,
    /// a string; of a user or a tool also a list of parts text, image, audio, video, document or binary, whose source is data, a
    /// URL, or an attachment {bucket, path}; of an activity an object
    pub content: Option<Value>,
    /// of an assistant
    pub tool_calls: Option<Vec<Value>>,
    /// of a tool: the call that it answers
    pub tool_call_id: Option<String>,
    /// of a tool: that the call failed
    pub error: Option<String>,
    /// of an activity
    pub activity_type: Option<String>,
}

#[derive(Object)]
pub struct InputTool {
    /// 1 to 64 letters, digits, underscores, dots or hyphens; not that of one of the agent's own tools
    pub name: String,
    pub description: String,
    /// a JSON Schema
    pub parameters: Option<Value>,
}

#[derive(Object)]
pub struct InputContext {
    pub description: String,
    pub value: String,
}
