//! `schedule_create`: has an agent of the owner's started at the times of a cron pattern.
use async_trait::async_trait;
use runmill_shared::{
    Error, ErrorKind,
    services::schedules::{self, Change},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::tools::{Tool, ToolContext, ToolError, parse};

pub struct ScheduleCreate;

#[derive(Deserialize)]
struct Arguments {
    name: String,
    cron: String,
    timezone: Option<String>,
    message: String,
    agent_id: Option<String>,
    overlap: Option<String>,
}

#[async_trait]
impl Tool for ScheduleCreate {
    fn name(&self) -> &str {
        "schedule_create"
    }

    fn category(&self) -> &str {
        "operations"
    }

    fn description(&self) -> &str {
        "Has an agent started with a message at the times of a cron pattern: this agent, or another by its id. It has to be deployed to be \
         started. cron_next tells which times a pattern names."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["name", "cron", "message"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100},
                "cron": {"type": "string", "minLength": 1, "maxLength": 200,
                    "description": "five fields, six with the seconds first, or @hourly, @daily, @weekly, @monthly, @yearly"},
                "timezone": {"type": "string", "description": "an IANA name, as Europe/Vienna", "default": "UTC"},
                "message": {"type": "string", "minLength": 1, "description": "what the agent is told each time"},
                "agent_id": {"type": "string", "description": "this agent when left out"},
                "overlap": {"type": "string", "enum": ["skip", "buffer_one", "buffer_all", "cancel_previous", "allow"], "default": "skip",
                    "description": "what happens while the run before has not ended"},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["schedule_id", "next_fire_times"],
            "properties": {
                "schedule_id": {"type": "string", "format": "uuid"},
                "next_fire_times": {"type": "array", "items": {"type": "string", "format": "date-time"}},
            },
        })
    }

    /// The schedule's id follows from the call: made again it is the same one.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: Arguments = parse(arguments)?;
        let agent_id = arguments.agent_id.or_else(|| cx.scope.agent_id.clone());
        let agent_id = agent_id.ok_or_else(|| ToolError::invalid("agent_id: no agent runs this, so one has to be named"))?;
        let new = Change {
            name: Some(arguments.name),
            agent_id: Some(agent_id),
            cron: Some(arguments.cron),
            timezone: arguments.timezone,
            input: Some(arguments.message.into()),
            overlap: arguments.overlap,
            ..Change::default()
        };
        let made =
            schedules::create_as(&cx.app, &cx.scope.owner, id(&cx.step_key, cx.scope.run_id), new).await.map_err(failed)?;
        let coming: Vec<_> = made.next_fire_times.iter().map(|at| at.rfc3339()).collect();
        Ok(json!({ "schedule_id": made.schedule.id, "next_fire_times": coming }))
    }
}

fn id(step: &str, run: Uuid) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(format!("{run} {step}"))[..16]);
    Builder::from_random_bytes(bytes).into_uuid()
}

fn failed(e: Error) -> ToolError {
    match e.kind {
        ErrorKind::Invalid => ToolError::invalid(e.message),
        ErrorKind::Internal | ErrorKind::Unavailable => {
            tracing::warn!(error = %e, "a schedule cannot be stored");
            ToolError::new("UNAVAILABLE", "schedules cannot be reached now")
        }
        _ => ToolError::new(e.code, e.message),
    }
}
