//! What a client asks for when it starts a run: AG-UI's `RunAgentInput`, in its 0.x and 1.0 forms, checked as a whole, so
//! that one answer names everything that is wrong with it. From here on it is ours: camelCase, nulls and NULs end here.
mod check;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::check::{Check, Object, clean_json, given};
use super::{
    message::NewMessage,
    run::{Multitask, Priority},
};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
};

const MAX_TOOLS: usize = 128;
const MAX_CONTEXT: usize = 100;
const MAX_RESUME: usize = 100;
const MAX_DESCRIPTION: usize = 10_000;

/// Stored in the run's row: what the worker needs to know of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInput {
    pub thread_id: String,
    pub run_id: String,
    pub messages: Vec<NewMessage>,
    pub state: Option<Value>,
    pub tools: Vec<ClientTool>,
    pub context: Vec<ContextItem>,
    /// As sent; the fields of it that we know are in `options`.
    pub forwarded_props: Value,
    pub parent_run_id: Option<String>,
    pub options: RunOptions,
}

/// A tool that the client executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientTool {
    pub name: String,
    pub description: String,
    /// A JSON Schema; `{"type": "object"}` when the client gave none.
    pub parameters: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextItem {
    pub description: String,
    pub value: String,
}

/// What `forwardedProps` says to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    pub agent_id: Option<String>,
    /// The version of the agent that was in force when the run was accepted; 0: it is from the settings.
    pub agent_version: i64,
    pub model: Option<String>,
    pub priority: Priority,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    pub multitask: Multitask,
    /// What the run is about: its tools change the tasks of this goal. No client says it.
    pub goal_id: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputLimits {
    pub max_messages: usize,
}

impl RunInput {
    /// Fails with `Invalid`, naming every bad field by its dotted path (`messages.0.content`). Unknown fields are left out.
    pub fn parse(body: &Value, limits: &InputLimits) -> Result<Self> {
        let body = body.as_object().ok_or_else(|| Error::invalid("body", "must be a JSON object"))?;
        let mut check = Check::default();
        let input = Self {
            thread_id: check.id(body, "", "threadId"),
            run_id: check.id(body, "", "runId"),
            messages: messages::read(&mut check, body, limits.max_messages),
            state: given(body, "state").map(clean_json),
            tools: read_tools(&mut check, body),
            context: read_context(&mut check, body),
            forwarded_props: given(body, "forwardedProps").map_or(Value::Null, clean_json),
            parent_run_id: check.name(body, "", "parentRunId", 128),
            options: read_options(&mut check, body),
        };
        check.name(body, "", "protocolVersion", 32);
        check_resume(&mut check, body);
        check.finish()?;
        Ok(input)
    }
}

fn read_tools(check: &mut Check, body: &Object) -> Vec<ClientTool> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut tools = Vec::new();
    for (i, value) in check.list(body, "", "tools", MAX_TOOLS).iter().enumerate() {
        let at = format!("tools.{i}");
        let Some(tool) = check.object(value, &at) else { continue };
        let name = check.required_string(tool, &at, "name");
        if let Some(name) = name {
            let fits = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !fits {
                check.fail(&at, "name", "must be 1 to 64 letters, digits, underscores, dots or hyphens");
            } else if let Some(first) = seen.get(name) {
                check.fail(&at, "name", format!("repeats tools.{first}.name"));
            } else {
                seen.insert(name, i);
            }
        }
        let parameters = match given(tool, "parameters") {
            None => json!({ "type": "object" }),
            Some(schema) => {
                if !schema.is_object() {
                    check.fail(&at, "parameters", "must be an object: a JSON Schema");
                }
                clean_json(schema)
            }
        };
        let description = check.required_text(tool, &at, "description", MAX_DESCRIPTION);
        tools.push(ClientTool { name: name.unwrap_or_default().to_owned(), description, parameters });
    }
    tools
}

fn read_context(check: &mut Check, body: &Object) -> Vec<ContextItem> {
    let mut items = Vec::new();
    for (i, value) in check.list(body, "", "context", MAX_CONTEXT).iter().enumerate() {
        let at = format!("context.{i}");
        let Some(item) = check.object(value, &at) else { continue };
        items.push(ContextItem {
            description: check.required_text(item, &at, "description", MAX_DESCRIPTION),
            value: check.required_text(item, &at, "value", usize::MAX),
        });
    }
    items
}

fn read_options(check: &mut Check, body: &Object) -> RunOptions {
    const AT: &str = "forwardedProps";
    let Some(props) = given(body, AT).and_then(Value::as_object) else { return RunOptions::default() };
    RunOptions {
        agent_version: 0,
        agent_id: check.name(props, AT, "agentId", 128),
        model: check.name(props, AT, "model", 200),
        priority: check.word(props, AT, "priority", "must be high, normal or low"),
        run_at: check.string(props, AT, "runAt").and_then(|text| {
            let time = DateTime::parse_from_rfc3339(text);
            if time.is_err() {
                check.fail(AT, "runAt", "must be an RFC 3339 time, as 2026-03-16T10:00:00Z");
            }
            time.ok().map(|t| t.with_timezone(&Utc).into())
        }),
        multitask: check.word(props, AT, "multitask", "must be enqueue, reject, interrupt or rollback"),
        goal_id: None,
    }
}

/// Answers to AG-UI interrupts. Our runs do not end with one, so there is nothing to keep; a malformed answer is still refused.
fn check_resume(check: &mut Check, body: &Object) {
    for (i, value) in check.list(body, "", "resume", MAX_RESUME).iter().enumerate() {
        let at = format!("resume.{i}");
        let Some(entry) = check.object(value, &at) else { continue };
        check.id(entry, &at, "interruptId");
        if !matches!(check.required_string(entry, &at, "status"), None | Some("resolved" | "cancelled")) {
            check.fail(&at, "status", "must be resolved or cancelled");
        }
    }
}

/// The SHA-256, in hex, of the body without its `runId`, keys sorted at every level: equal for two bodies that ask for the same.
pub fn body_hash(body: &Value) -> String {
    let mut text = String::new();
    match body {
        Value::Object(fields) => write_object(&mut text, fields.iter().filter(|(key, _)| *key != "runId")),
        other => write_canonical(&mut text, other),
    }
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn write_canonical(out: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => write_object(out, fields.iter()),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                write_canonical(out, item);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_object<'a>(out: &mut String, fields: impl Iterator<Item = (&'a String, &'a Value)>) {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (i, (key, value)) in fields.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write_canonical(out, value);
    }
    out.push('}');
}
