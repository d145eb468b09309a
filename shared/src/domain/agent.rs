//! What an agent is: instructions, a model, tools and limits. One version of it is what a run executes, from its first step to its
//! last, however often its definition changes meanwhile.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

mod check;

/// How often an agent may ask its model in one run, when its definition does not say.
pub const ITERATIONS: u32 = 15;

/// One version of an agent, ready to be executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// A UUID, or the key of an agent from the settings.
    pub id: String,
    pub name: String,
    /// Whose model configurations, tools and secrets it uses; `None`: it is from the settings and has none.
    pub owner: Option<String>,
    /// From 1; 0: it is from the settings.
    pub version: i64,
    pub definition: Definition,
}

/// What the `agent_versions.definition` column holds. A field that is missing takes its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    pub system_prompt: String,
    pub model: ModelChoice,
    pub iteration_limit: u32,
    /// Names of built-in tools, of the owner's own, and of their plugins'.
    pub include_tools: Vec<String>,
    /// Those of `include_tools` whose calls a person has to approve.
    pub approval_tools: Vec<String>,
    /// Nodes and edges; the designer's, kept as they are.
    pub workflow_config: Option<Value>,
    /// JSON Schema that the answer must satisfy.
    pub output_schema: Option<Value>,
    pub budget: Budget,
    pub memory: Memory,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            system_prompt: String::new(),
            model: ModelChoice::default(),
            iteration_limit: ITERATIONS,
            include_tools: Vec::new(),
            approval_tools: Vec::new(),
            workflow_config: None,
            output_schema: None,
            budget: Budget::default(),
            memory: Memory::default(),
        }
    }
}

/// Which model answers. Without a provider and a name it is the deployment's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelChoice {
    pub provider: Option<String>,
    pub model_name: Option<String>,
    /// One of the owner's model configurations; it goes before `provider` and `model_name`.
    pub model_config_id: Option<Uuid>,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    /// Tried in order when this one does not answer.
    pub fallbacks: Vec<ModelReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelReference {
    pub provider: Option<String>,
    pub model_name: Option<String>,
    pub model_config_id: Option<Uuid>,
}

/// What one run may use. A run that reaches a limit ends with `BUDGET_EXHAUSTED`; nothing is begun that is known to go beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Input and output together.
    pub max_tokens: Option<u64>,
    /// Millionths of a US dollar.
    pub max_cost_micros: Option<u64>,
    /// Running, waiting not counted.
    pub max_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What is known of the user is put before the conversation.
    pub recall: bool,
    /// After each run a background job keeps what it learned of the user.
    pub extract: bool,
}

/// An agent as its user writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewAgent {
    pub name: String,
    pub description: String,
    pub definition: Definition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its owner's alone.
    Draft,
    /// Others may read and run it.
    Published,
    /// Nobody may start it; runs under way go on.
    Stopped,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Draft, Self::Published, Self::Stopped];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Stopped => "stopped",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}
