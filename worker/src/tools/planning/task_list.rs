use async_trait::async_trait;
use runmill_shared::{
    domain::page::PageRequest,
    services::tasks::{self, Filter},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{super::parse, Board, Tool, ToolContext, ToolError, caller, goal_schema, refused, task_schema};

const LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

pub struct TaskList;

#[derive(Deserialize)]
struct Arguments {
    goal_id: Option<Uuid>,
    status: Option<String>,
    limit: Option<i64>,
}

#[async_trait]
impl Tool for TaskList {
    fn name(&self) -> &str {
        "task_list"
    }

    fn category(&self) -> &str {
        "planning"
    }

    fn description(&self) -> &str {
        "The tasks of a goal in the order of its plan, with their status and what they depend on. Without a goal: the user's tasks, newest \
         first."
    }

    fn parameters(&self) -> Value {
        let statuses = runmill_shared::domain::task::TaskStatus::ALL.map(|s| s.as_str());
        json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "goal_id": goal_schema(),
                "status": {"enum": statuses},
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["tasks", "total"],
            "properties": {"tasks": {"type": "array", "items": task_schema()}, "total": {"type": "integer"}},
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { goal_id, status, limit } = parse(arguments)?;
        let goal_id = goal_id.or(cx.scope.goal_id);
        let board = Board::of(cx, goal_id).await?;
        let sort = goal_id.map(|_| "position".to_owned());
        let page = PageRequest { number: 1, size: limit.unwrap_or(LIMIT).clamp(1, MAX_LIMIT), search: None, status, sort };
        let found = tasks::list(&cx.app, &caller(cx), &Filter { goal_id, assignee: None }, &page).await.map_err(refused)?;
        Ok(json!({ "tasks": found.items.iter().map(|t| board.shown(t)).collect::<Vec<_>>(), "total": found.total }))
    }
}
