use async_trait::async_trait;
use runmill_shared::{
    domain::task::{Task, TaskStatus},
    services::tasks::{self, Change},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{super::parse, Board, Tool, ToolContext, ToolError, caller, goal_schema, refused, task_schema};

pub struct TaskUpdate;

#[derive(Deserialize)]
struct Arguments {
    goal_id: Option<Uuid>,
    task: String,
    title: Option<String>,
    description: Option<String>,
    priority: Option<i64>,
    depends_on: Option<Vec<String>>,
    status: Option<Wanted>,
    result: Option<Value>,
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Completed,
    Failed,
    Cancelled,
}

impl Arguments {
    fn changes(&self) -> bool {
        self.title.is_some() || self.description.is_some() || self.priority.is_some() || self.depends_on.is_some()
    }
}

#[async_trait]
impl Tool for TaskUpdate {
    fn name(&self) -> &str {
        "task_update"
    }

    fn category(&self) -> &str {
        "planning"
    }

    fn description(&self) -> &str {
        "Changes a task that nobody is executing: what it says, its priority, what it depends on, or whether it is completed, failed or \
         cancelled. What is left out stays."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["task"], "additionalProperties": false,
            "properties": {
                "goal_id": goal_schema(),
                "task": {"type": "string", "minLength": 1, "description": "its key or id"},
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "description": {"type": "string", "maxLength": 20_000},
                "priority": {"type": "integer"},
                "depends_on": {"type": "array", "maxItems": 100, "items": {"type": "string"},
                    "description": "keys or ids, in place of those before"},
                "status": {"enum": ["completed", "failed", "cancelled"]},
                "result": {"description": "of a task that is completed; tasks that depend on it see it"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "why it failed"},
            },
        })
    }

    fn output(&self) -> Value {
        task_schema()
    }

    /// The same again finds what it wants.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let given: Arguments = parse(arguments)?;
        let board = Board::of(cx, given.goal_id.or(cx.scope.goal_id)).await?;
        let id = board.id(&given.task)?;
        let mut task = tasks::get(&cx.app, &caller(cx), id).await.map_err(refused)?;
        if task.status == TaskStatus::Running {
            return Err(ToolError::new("TASK_STATE", "the task is running; wait until it has ended"));
        }
        if given.changes() {
            let depends_on = given.depends_on.as_deref().map(|names| board.ids(names)).transpose()?;
            let Arguments { title, description, priority, .. } = &given;
            let (title, description) = (title.clone(), description.clone());
            let change = Change { title, description, priority: *priority, depends_on, ..Change::default() };
            task = tasks::update(&cx.app, &caller(cx), id, change).await.map_err(refused)?;
        }
        if let Some(status) = given.status {
            task = end(cx, task, status, &given).await?;
        }
        Ok(board.shown(&task))
    }
}

/// A ready task is claimed first, as a person would do it.
async fn end(cx: &ToolContext, task: Task, wanted: Wanted, given: &Arguments) -> Result<Task, ToolError> {
    let caller = caller(cx);
    let status = match wanted {
        Wanted::Completed => TaskStatus::Completed,
        Wanted::Failed => TaskStatus::Failed,
        Wanted::Cancelled => TaskStatus::Cancelled,
    };
    if task.status == status {
        return Ok(task);
    }
    if task.status == TaskStatus::Ready && status != TaskStatus::Cancelled {
        tasks::claim(&cx.app, &caller, task.id).await.map_err(refused)?;
    }
    let outcome = match wanted {
        Wanted::Completed => tasks::complete(&cx.app, &caller, task.id, given.result.as_ref()).await,
        Wanted::Failed => tasks::fail(&cx.app, &caller, task.id, given.reason.as_deref().unwrap_or("no reason was given")).await,
        Wanted::Cancelled => tasks::cancel(&cx.app, &caller, task.id).await,
    };
    outcome.map_err(refused)
}
