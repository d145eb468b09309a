use async_trait::async_trait;
use runmill_shared::{domain::goal::NewGoal, services::goals};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::parse, Tool, ToolContext, ToolError, id_of, refused};

pub struct GoalCreate;

#[derive(Deserialize)]
struct Arguments {
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    start: bool,
}

#[async_trait]
impl Tool for GoalCreate {
    fn name(&self) -> &str {
        "goal_create"
    }

    fn category(&self) -> &str {
        "planning"
    }

    fn description(&self) -> &str {
        "Makes a goal: something larger that the user wants to have done, to be planned as tasks. With `start` it is planned and \
         executed in the background at once."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["title"], "additionalProperties": false,
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "description": {"type": "string", "maxLength": 20_000, "description": "all that is needed to plan it"},
                "start": {"type": "boolean", "default": false},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["id", "title", "status"],
            "properties": {
                "id": {"type": "string", "format": "uuid"}, "title": {"type": "string"}, "status": {"type": "string"},
                "execution_id": {"type": "string", "format": "uuid", "description": "the run that executes it"},
            },
        })
    }

    /// The same call finds the goal that it has made, and the run that executes it.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { title, description, start } = parse(arguments)?;
        let (owner, new) =
            (&cx.scope.owner, NewGoal { title, description, agent_id: cx.scope.agent_id.clone(), ..NewGoal::default() });
        let goal = goals::create_as(&cx.app, owner, id_of(cx), new).await.map_err(refused)?.goal;
        let mut made = json!({ "id": goal.id, "title": goal.title, "status": goal.status.as_str() });
        if start {
            let run = goals::execute_as(&cx.app, owner, goal.id, None).await.map_err(refused)?;
            made["status"] = "active".into();
            made["execution_id"] = json!(run.run_id);
        }
        Ok(made)
    }
}
