//! `notify_user`: an agent tells its owner something that they see wherever they want to be told, without the run waiting for them.
use async_trait::async_trait;
use runmill_shared::services::notifications;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::{Tool, ToolContext, ToolError, parse};

pub struct NotifyUser;

#[derive(Deserialize)]
struct Arguments {
    title: String,
    message: String,
}

#[async_trait]
impl Tool for NotifyUser {
    fn name(&self) -> &str {
        "notify_user"
    }

    fn category(&self) -> &str {
        "operations"
    }

    fn description(&self) -> &str {
        "Notifies the user, in the app and wherever else they want to be told, and goes on without an answer. Use it for what they should \
         know although they do not look now."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["title", "message"], "additionalProperties": false,
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 200, "description": "one line"},
                "message": {"type": "string", "minLength": 1, "maxLength": 4000},
            },
        })
    }

    fn output(&self) -> Value {
        json!({"type": "object", "required": ["notified"], "properties": {"notified": {"type": "boolean"}}})
    }

    fn is_limited(&self) -> bool {
        true
    }

    /// The same call is told once.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { title, message } = parse(arguments)?;
        let told = notifications::message(&cx.app, &cx.scope.owner, cx.scope.run_id, &cx.step_key, &title, &message).await;
        told.map_err(|e| {
            tracing::warn!(error = %e, "a user cannot be notified");
            ToolError::new("UNAVAILABLE", "the user cannot be notified now")
        })?;
        Ok(json!({ "notified": true }))
    }
}
