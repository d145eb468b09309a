//! Goals and tasks, for agents: what they plan and change is their run's owner's. A run that is about a goal need not name it.
mod goal_create;
mod task_create;
mod task_list;
mod task_update;

use std::sync::Arc;

use runmill_shared::{
    Error, ErrorKind,
    domain::{caller::Caller, task::Task},
    services::goals,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::{Tool, ToolContext, ToolError};

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(goal_create::GoalCreate),
        Arc::new(task_create::TaskCreate),
        Arc::new(task_update::TaskUpdate),
        Arc::new(task_list::TaskList),
    ]
}

/// Follows from the call, so that the same call after a crash finds what it has made.
fn id_of(cx: &ToolContext) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(format!("{}/{}", cx.scope.run_id, cx.step_key)).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_random_bytes(bytes).into_uuid()
}

fn caller(cx: &ToolContext) -> Caller {
    Caller::run_of(&cx.scope.owner)
}

/// What the model is told of a refusal; what is our own fault goes to the log.
fn refused(e: Error) -> ToolError {
    match e.kind {
        ErrorKind::Invalid => ToolError::invalid(e.message),
        ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Exists | ErrorKind::Forbidden => ToolError::new(e.code, e.message),
        _ => {
            tracing::warn!(error = %e, "goals and tasks cannot be reached");
            ToolError::new("UNAVAILABLE", "goals and tasks cannot be reached now")
        }
    }
}

/// The tasks of a goal; models name them by their keys.
struct Board {
    tasks: Vec<Task>,
}

impl Board {
    async fn of(cx: &ToolContext, goal_id: Option<Uuid>) -> Result<Self, ToolError> {
        let tasks = match goal_id {
            Some(id) => goals::tree(&cx.app, &caller(cx), id).await.map_err(refused)?,
            None => Vec::new(),
        };
        Ok(Self { tasks })
    }

    /// By key or id. An id that is not of this goal is left to the service, which knows what is wrong with it.
    fn id(&self, name: &str) -> Result<Uuid, ToolError> {
        if let Some(task) = self.tasks.iter().find(|t| t.key == name) {
            return Ok(task.id);
        }
        name.parse().map_err(|_| {
            let keys: Vec<_> = self.tasks.iter().map(|t| t.key.as_str()).collect();
            ToolError::new("TASK_NOT_FOUND", format!("there is no task {name:?}; there are: {}", keys.join(", ")))
        })
    }

    fn ids(&self, names: &[String]) -> Result<Vec<Uuid>, ToolError> {
        names.iter().map(|name| self.id(name)).collect()
    }

    fn shown(&self, task: &Task) -> Value {
        let key = |id: &Uuid| self.tasks.iter().find(|t| t.id == *id).map_or_else(|| id.to_string(), |t| t.key.clone());
        let mut shown = json!({
            "id": task.id, "key": task.key, "title": task.title, "status": task.status.as_str(), "priority": task.priority,
            "depends_on": task.depends_on.iter().map(key).collect::<Vec<_>>(),
        });
        if let Some(goal) = task.goal_id {
            shown["goal_id"] = json!(goal);
        }
        if let Some(error) = &task.error {
            shown["error"] = json!(error.message);
        }
        shown
    }
}

fn task_schema() -> Value {
    json!({
        "type": "object", "required": ["id", "key", "title", "status", "priority", "depends_on"],
        "properties": {
            "id": {"type": "string", "format": "uuid"}, "key": {"type": "string"}, "title": {"type": "string"},
            "status": {"type": "string"}, "priority": {"type": "integer"},
            "depends_on": {"type": "array", "items": {"type": "string"}, "description": "keys"},
            "goal_id": {"type": "string", "format": "uuid"}, "error": {"type": "string"},
        },
    })
}

fn goal_schema() -> Value {
    json!({"type": "string", "format": "uuid", "description": "default: the goal that this conversation is about"})
}
