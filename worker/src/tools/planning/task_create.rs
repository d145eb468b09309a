use async_trait::async_trait;
use runmill_shared::services::tasks::{self, New};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{super::parse, Board, Tool, ToolContext, ToolError, caller, goal_schema, id_of, refused, task_schema};

pub struct TaskCreate;

#[derive(Deserialize)]
struct Arguments {
    goal_id: Option<Uuid>,
    title: String,
    #[serde(default)]
    description: String,
    key: Option<String>,
    #[serde(default)]
    depends_on: Vec<String>,
    parent: Option<String>,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    requires_approval: bool,
}

#[async_trait]
impl Tool for TaskCreate {
    fn name(&self) -> &str {
        "task_create"
    }

    fn category(&self) -> &str {
        "planning"
    }

    fn description(&self) -> &str {
        "Adds a task to a goal, or one by itself. Tasks of a goal are done when all that they depend on is completed."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["title"], "additionalProperties": false,
            "properties": {
                "goal_id": goal_schema(),
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "description": {"type": "string", "maxLength": 20_000, "description": "all that whoever does it has to know"},
                "key": {"type": "string", "minLength": 1, "maxLength": 64, "description": "a short name, unique in the goal"},
                "depends_on": {"type": "array", "maxItems": 100, "items": {"type": "string"},
                    "description": "keys or ids of tasks of the same goal that have to be completed first"},
                "parent": {"type": "string", "description": "key or id of the task that it is a part of"},
                "priority": {"type": "integer", "default": 0, "description": "the higher, the earlier"},
                "requires_approval": {"type": "boolean", "default": false, "description": "a person approves what was done"},
            },
        })
    }

    fn output(&self) -> Value {
        task_schema()
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let given: Arguments = parse(arguments)?;
        let goal_id = given.goal_id.or(cx.scope.goal_id);
        let board = Board::of(cx, goal_id).await?;
        let new = New {
            id: Some(id_of(cx)),
            goal_id,
            parent_id: given.parent.as_deref().map(|name| board.id(name)).transpose()?,
            key: given.key,
            title: given.title,
            description: given.description,
            priority: given.priority,
            assignee: None,
            requires_approval: given.requires_approval,
            depends_on: board.ids(&given.depends_on)?,
            max_attempts: None,
        };
        let made = tasks::create(&cx.app, &caller(cx), new).await.map_err(refused)?;
        Ok(board.shown(&made))
    }
}
