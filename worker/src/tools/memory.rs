//! `memory_save` and `memory_search`: what is known of the user, across threads. They see the memories of the run's owner and no others.
use async_trait::async_trait;
use runmill_shared::{
    Error, ErrorKind,
    domain::memory::{Memory, NewMemory},
    services::memories,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, parse};

const LIMIT: usize = 5;
const MAX_LIMIT: usize = 50;

pub struct MemorySave;

pub struct MemorySearch;

#[derive(Deserialize)]
struct Save {
    text: String,
    #[serde(default)]
    topics: Vec<String>,
}

#[derive(Deserialize)]
struct Search {
    query: String,
    limit: Option<usize>,
}

fn shown(memory: &Memory) -> Value {
    json!({ "id": memory.id, "text": memory.text, "topics": memory.topics, "updated_at": memory.updated_at.rfc3339() })
}

fn memory_schema() -> Value {
    json!({
        "type": "object", "required": ["id", "text", "topics", "updated_at"],
        "properties": {
            "id": {"type": "string", "format": "uuid"}, "text": {"type": "string"},
            "topics": {"type": "array", "items": {"type": "string"}}, "updated_at": {"type": "string", "format": "date-time"},
        },
    })
}

fn failed(e: Error) -> ToolError {
    if e.kind == ErrorKind::Invalid {
        return ToolError::invalid(e.message);
    }
    tracing::warn!(error = %e, "memories cannot be reached");
    ToolError::new("UNAVAILABLE", "memories cannot be reached now")
}

#[async_trait]
impl Tool for MemorySave {
    fn name(&self) -> &str {
        "memory_save"
    }

    fn category(&self) -> &str {
        "memory"
    }

    fn description(&self) -> &str {
        "Keeps a fact about the user for later conversations: one fact in one sentence. What is known already is only confirmed."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["text"], "additionalProperties": false,
            "properties": {
                "text": {"type": "string", "minLength": 1, "maxLength": 2000},
                "topics": {"type": "array", "maxItems": 8, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["memory", "known"],
            "properties": {"memory": memory_schema(), "known": {"type": "boolean", "description": "it was there before"}},
        })
    }

    /// The same again confirms what is there.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Save { text, topics } = parse(arguments)?;
        let wanted = NewMemory::new(&text, &topics).map_err(failed)?;
        let saved = memories::save(&cx.app, &cx.scope.owner, &[wanted], Some(cx.scope.run_id)).await.map_err(failed)?;
        let known = saved.new.is_empty();
        let memory = saved.new.first().or(saved.known.first()).map(shown);
        Ok(json!({ "memory": memory, "known": known }))
    }
}

#[async_trait]
impl Tool for MemorySearch {
    fn name(&self) -> &str {
        "memory_search"
    }

    fn category(&self) -> &str {
        "memory"
    }

    fn description(&self) -> &str {
        "Finds what is known of the user from earlier conversations, by words; the best first."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["query"], "additionalProperties": false,
            "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": 1000},
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["memories"],
            "properties": {"memories": {"type": "array", "items": memory_schema()}},
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Search { query, limit } = parse(arguments)?;
        let limit = limit.unwrap_or(LIMIT).min(MAX_LIMIT);
        let found = memories::search(&cx.app, &cx.scope.owner, &query, limit).await.map_err(failed)?;
        Ok(json!({ "memories": found.iter().map(shown).collect::<Vec<_>>() }))
    }
}
