//! Agents as they come in and go out.
use chrono::{DateTime, Utc};
use poem_openapi::{Enum, Object, types::ToJSON};
use runmill_shared::{
    Result,
    domain::{
        agent::{Budget, Definition, ITERATIONS, Memory, ModelChoice, ModelReference, NewAgent, Status},
        message::Message,
    },
    services::agents::AgentRecord,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::http::body::checked;

#[derive(Object)]
pub struct FallbackBody {
    #[oai(skip_serializing_if_is_none)]
    provider: Option<String>,
    #[oai(skip_serializing_if_is_none)]
    model_name: Option<String>,
    #[oai(skip_serializing_if_is_none)]
    model_config_id: Option<Uuid>,
}

/// Which model answers; left out: the deployment's default.
#[derive(Object)]
pub struct ModelBody {
    /// openai, anthropic, gemini, deepseek, ollama or offline; with `model_name`
    #[oai(skip_serializing_if_is_none)]
    provider: Option<String>,
    #[oai(skip_serializing_if_is_none)]
    model_name: Option<String>,
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0"), maximum(value = "2")))]
    temperature: Option<f64>,
    /// of one answer
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    max_tokens: Option<u64>,
    /// one of your model configurations; it goes before `provider` and `model_name`
    #[oai(skip_serializing_if_is_none)]
    model_config_id: Option<Uuid>,
    /// tried in order when this one does not answer
    #[oai(default)]
    fallbacks: Vec<FallbackBody>,
}

/// What one run may use; it ends with `BUDGET_EXHAUSTED` when it needs more.
#[derive(Object)]
pub struct BudgetBody {
    /// input and output together
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    max_tokens: Option<u64>,
    /// millionths of a US dollar
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    max_cost_micros: Option<u64>,
    /// running, waiting not counted
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    max_seconds: Option<u64>,
}

#[derive(Object)]
pub struct MemoryBody {
    /// what is known of the user is put before the conversation
    #[oai(default)]
    recall: bool,
    /// after each run a background job keeps what it learned of the user
    #[oai(default)]
    extract: bool,
}

/// What an agent is and does. Whatever is left out has its default.
#[derive(Object)]
pub struct DefinitionBody {
    #[oai(validator(max_length = 2000))]
    description: Option<String>,
    system_prompt: Option<String>,
    model_config: Option<ModelBody>,
    /// how often it may ask its model in one run: 15 when left out
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    iteration_limit: Option<u32>,
    /// names of built-in tools, of your own, and of your enabled plugins'
    include_tools: Option<Vec<String>>,
    /// those of `include_tools` whose calls a person has to approve
    approval_tools: Option<Vec<String>>,
    /// `nodes` with `id` and `type`, `edges` with `source` and `target`; whatever else is in it is kept
    #[oai(skip_serializing_if_is_none)]
    workflow_config: Option<Value>,
    /// JSON Schema that its answers satisfy
    #[oai(skip_serializing_if_is_none)]
    output_schema: Option<Value>,
    budget: Option<BudgetBody>,
    memory: Option<MemoryBody>,
}

#[derive(Object)]
pub struct AgentInput {
    #[oai(validator(min_length = 1, max_length = 100))]
    name: String,
    #[oai(flatten)]
    definition: DefinitionBody,
}

/// What is left out stays as it is; within `model_config`, `budget` and `memory` too. `null` sets a field back to its default.
#[derive(Object)]
pub struct AgentPatch {
    #[oai(validator(min_length = 1, max_length = 100))]
    name: Option<String>,
    /// the version that you have read; 409 when it is no longer in force
    version: Option<i64>,
    #[oai(flatten)]
    definition: DefinitionBody,
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
pub enum StatusName {
    Draft,
    Published,
    Stopped,
}

#[derive(Object)]
pub struct AgentBody {
    id: Uuid,
    name: String,
    #[oai(flatten)]
    definition: DefinitionBody,
    status: StatusName,
    /// from 1; each PUT adds one
    version: i64,
    owner: String,
    /// the one that your runs which name no agent are executed by
    is_main: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Enum)]
pub enum Format {
    #[oai(rename = "runmill.agent")]
    Agent,
}

#[derive(Object)]
pub struct ExportBody {
    format: Format,
    #[oai(validator(minimum(value = "1"), maximum(value = "1")))]
    format_version: u32,
    pub agent: AgentInput,
}

#[derive(Object)]
pub struct PreviewMessage {
    id: String,
    role: String,
    content: String,
    execution_id: Uuid,
    created_at: DateTime<Utc>,
}

impl From<Message> for PreviewMessage {
    fn from(m: Message) -> Self {
        let (role, content) = (m.role.as_str().to_owned(), m.body.plain());
        Self { id: m.id, role, content, execution_id: m.run_id, created_at: m.at.utc() }
    }
}

impl From<ModelReference> for FallbackBody {
    fn from(m: ModelReference) -> Self {
        Self { provider: m.provider, model_name: m.model_name, model_config_id: m.model_config_id }
    }
}

impl From<FallbackBody> for ModelReference {
    fn from(m: FallbackBody) -> Self {
        Self { provider: m.provider, model_name: m.model_name, model_config_id: m.model_config_id }
    }
}

impl From<ModelChoice> for ModelBody {
    fn from(m: ModelChoice) -> Self {
        Self {
            provider: m.provider,
            model_name: m.model_name,
            temperature: m.temperature,
            max_tokens: m.max_tokens,
            model_config_id: m.model_config_id,
            fallbacks: m.fallbacks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ModelBody> for ModelChoice {
    fn from(m: ModelBody) -> Self {
        Self {
            provider: m.provider,
            model_name: m.model_name,
            model_config_id: m.model_config_id,
            temperature: m.temperature,
            max_tokens: m.max_tokens,
            fallbacks: m.fallbacks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Budget> for BudgetBody {
    fn from(b: Budget) -> Self {
        Self { max_tokens: b.max_tokens, max_cost_micros: b.max_cost_micros, max_seconds: b.max_seconds }
    }
}

impl From<BudgetBody> for Budget {
    fn from(b: BudgetBody) -> Self {
        Self { max_tokens: b.max_tokens, max_cost_micros: b.max_cost_micros, max_seconds: b.max_seconds }
    }
}

impl DefinitionBody {
    fn of(description: String, d: Definition) -> Self {
        let Budget { max_tokens, max_cost_micros, max_seconds } = d.budget;
        Self {
            description: Some(description),
            system_prompt: Some(d.system_prompt),
            model_config: Some(d.model.into()),
            iteration_limit: Some(d.iteration_limit),
            include_tools: Some(d.include_tools),
            approval_tools: Some(d.approval_tools),
            workflow_config: d.workflow_config,
            output_schema: d.output_schema,
            budget: Some(BudgetBody { max_tokens, max_cost_micros, max_seconds }),
            memory: Some(MemoryBody { recall: d.memory.recall, extract: d.memory.extract }),
        }
    }
}

impl From<AgentInput> for NewAgent {
    fn from(input: AgentInput) -> Self {
        let d = input.definition;
        let memory = d.memory.map_or_else(Memory::default, |m| Memory { recall: m.recall, extract: m.extract });
        let definition = Definition {
            system_prompt: d.system_prompt.unwrap_or_default(),
            model: d.model_config.map(Into::into).unwrap_or_default(),
            iteration_limit: d.iteration_limit.unwrap_or(ITERATIONS),
            include_tools: d.include_tools.unwrap_or_default(),
            approval_tools: d.approval_tools.unwrap_or_default(),
            workflow_config: d.workflow_config,
            output_schema: d.output_schema,
            budget: d.budget.map(Into::into).unwrap_or_default(),
            memory,
        };
        Self { name: input.name, description: d.description.unwrap_or_default(), definition }
    }
}

impl From<AgentRecord> for AgentInput {
    fn from(a: AgentRecord) -> Self {
        Self { name: a.name, definition: DefinitionBody::of(a.description, a.definition) }
    }
}

impl From<AgentRecord> for AgentBody {
    fn from(a: AgentRecord) -> Self {
        Self {
            id: a.id,
            name: a.name,
            definition: DefinitionBody::of(a.description, a.definition),
            status: match a.status {
                Status::Draft => StatusName::Draft,
                Status::Published => StatusName::Published,
                Status::Stopped => StatusName::Stopped,
            },
            version: a.version,
            owner: a.owner,
            is_main: a.is_main,
            created_at: a.created_at.utc(),
            updated_at: a.updated_at.utc(),
        }
    }
}

impl From<AgentRecord> for ExportBody {
    fn from(a: AgentRecord) -> Self {
        Self { format: Format::Agent, format_version: 1, agent: a.into() }
    }
}

impl AgentInput {
    /// The agent as it is once the patch is on it, and the version that the patch is for.
    pub fn patched(current: AgentRecord, patch: Value) -> Result<(Self, i64)> {
        let version = checked::<AgentPatch>(patch.clone())?.version.unwrap_or(current.version);
        let mut merged = Self::from(current).to_json().unwrap_or_default();
        if let (Some(whole), Value::Object(patch)) = (merged.as_object_mut(), patch) {
            merge(whole, patch, &["model_config", "budget", "memory"]);
        }
        Ok((checked(merged)?, version))
    }
}

/// JSON Merge Patch; but only the members `within` are merged, all others are replaced.
pub fn merge(whole: &mut Map<String, Value>, patch: Map<String, Value>, within: &[&str]) {
    for (name, value) in patch {
        match (whole.get_mut(&name), value) {
            (_, Value::Null) => drop(whole.remove(&name)),
            (Some(Value::Object(old)), Value::Object(new)) if within.contains(&name.as_str()) => merge(old, new, &[]),
            (_, value) => drop(whole.insert(name, value)),
        }
    }
}
