//! The rules of the stock client (`verifyEvents` and the event schemas of @ag-ui/client 1.0.0), stated again for the tests.
use std::collections::HashSet;

use serde_json::Value;

#[derive(Default)]
pub struct Verifier {
    first_seen: bool,
    active: bool,
    open: HashSet<(&'static str, String)>,
}

impl Verifier {
    /// Takes the next event of a stream, or says why the stock client would refuse it.
    pub fn take(&mut self, event: &Value) -> Result<(), String> {
        let kind = event["type"].as_str().ok_or("no type")?;
        check_fields(kind, event)?;
        if !self.first_seen && !matches!(kind, "RUN_STARTED" | "RUN_ERROR") {
            return Err("the first event must be RUN_STARTED".into());
        }
        if self.first_seen && !self.active && kind != "RUN_STARTED" {
            return Err(format!("{kind} after the run's end"));
        }
        self.first_seen = true;
        match kind {
            "RUN_STARTED" if self.active => Err("RUN_STARTED while a run is active".into()),
            "RUN_STARTED" => {
                self.open.clear();
                self.active = true;
                Ok(())
            }
            "RUN_FINISHED" if !self.open.is_empty() => Err(format!("RUN_FINISHED while {:?} are open", self.open)),
            "RUN_FINISHED" | "RUN_ERROR" => {
                self.active = false;
                Ok(())
            }
            "TEXT_MESSAGE_START" => self.open("text", &event["messageId"]),
            "TEXT_MESSAGE_CONTENT" => self.within("text", &event["messageId"]),
            "TEXT_MESSAGE_END" => self.close("text", &event["messageId"]),
            "REASONING_START" => self.open("span", &event["messageId"]),
            "REASONING_END" => self.close("span", &event["messageId"]),
            "REASONING_MESSAGE_START" => self.open("reasoning", &event["messageId"]),
            "REASONING_MESSAGE_CONTENT" => self.within("reasoning", &event["messageId"]),
            "REASONING_MESSAGE_END" => self.close("reasoning", &event["messageId"]),
            "TOOL_CALL_START" => self.open("tool", &event["toolCallId"]),
            "TOOL_CALL_ARGS" => self.within("tool", &event["toolCallId"]),
            "TOOL_CALL_END" => self.close("tool", &event["toolCallId"]),
            "STEP_STARTED" => self.open("step", &event["stepName"]),
            "STEP_FINISHED" => self.close("step", &event["stepName"]),
            _ => Ok(()),
        }
    }

    fn open(&mut self, kind: &'static str, id: &Value) -> Result<(), String> {
        let new = self.open.insert((kind, id.to_string()));
        if new { Ok(()) } else { Err(format!("{kind} {id} is open already")) }
    }

    fn within(&self, kind: &'static str, id: &Value) -> Result<(), String> {
        let open = self.open.contains(&(kind, id.to_string()));
        if open { Ok(()) } else { Err(format!("{kind} {id} is not open")) }
    }

    fn close(&mut self, kind: &'static str, id: &Value) -> Result<(), String> {
        let open = self.open.remove(&(kind, id.to_string()));
        if open { Ok(()) } else { Err(format!("{kind} {id} is closed before it was opened")) }
    }
}

/// Required fields are strings (but for the few below), optional ones are never null, and nothing is there that is not known.
fn check_fields(kind: &str, event: &Value) -> Result<(), String> {
    let (required, optional): (&[&str], &[&str]) = match kind {
        "RUN_STARTED" => (&["threadId", "runId"], &["protocolVersion", "parentRunId", "input"]),
        "RUN_FINISHED" => (&["threadId", "runId"], &["result", "outcome", "usage", "metadata"]),
        "RUN_ERROR" => (&["message"], &["code", "usage"]),
        "TEXT_MESSAGE_START" => (&["messageId"], &["role", "name", "metadata"]),
        "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT" => (&["messageId", "delta"], &["metadata"]),
        "REASONING_MESSAGE_START" => (&["messageId", "role"], &["metadata"]),
        "TEXT_MESSAGE_END" | "REASONING_START" | "REASONING_MESSAGE_END" | "REASONING_END" => (&["messageId"], &["metadata"]),
        "TOOL_CALL_START" => (&["toolCallId", "toolCallName"], &["parentMessageId", "metadata"]),
        "TOOL_CALL_ARGS" => (&["toolCallId", "delta"], &["metadata"]),
        "TOOL_CALL_END" => (&["toolCallId"], &["metadata"]),
        "TOOL_CALL_RESULT" => (&["messageId", "toolCallId", "content"], &["role", "metadata"]),
        "STEP_STARTED" | "STEP_FINISHED" => (&["stepName"], &["metadata"]),
        "STATE_SNAPSHOT" => (&[], &["snapshot"]),
        "STATE_DELTA" => (&[], &["delta"]),
        "CUSTOM" => (&["name"], &["value"]),
        other => return Err(format!("unknown type {other}")),
    };
    if !event["timestamp"].is_i64() {
        return Err(format!("{kind} has no timestamp"));
    }
    if let Some(field) = required.iter().find(|field| !event[**field].is_string()) {
        return Err(format!("{kind}.{field} must be a string: {event}"));
    }
    let fields = event.as_object().ok_or("not an object")?;
    let known = |name: &str| required.contains(&name) || optional.contains(&name) || matches!(name, "type" | "timestamp");
    let opaque = |name: &str| matches!(name, "snapshot" | "value");
    match fields.iter().find(|(name, value)| !known(name) || (value.is_null() && !opaque(name))) {
        Some((name, value)) => Err(format!("{kind}.{name} = {value}")),
        None => Ok(()),
    }
}
