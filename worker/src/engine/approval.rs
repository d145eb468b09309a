//! Calls that wait for a person: those of tools that need approval, and questions. What is asked for is journaled, stored and told
//! in one transaction; the decision is journaled before it is acted on.
use std::time::Duration;

use runmill_shared::{
    clock::Timestamp,
    domain::{
        approval::{Approval, ApprovalKind, ApprovalStatus, Decision, NewApproval},
        event::{NewEvent, kind},
        step::StepKind,
        tool::ToolDescriptor,
    },
    services::approvals,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failure,
    calls::{Offer, Placed, failed, finish, refuse, start},
    journal::{Journal, approval_key},
};
use crate::tools::ToolError;

pub const ASK: &str = "ask_human";
const MAX_QUESTION: usize = 4000;
const EXPIRED: &str = "expired";

pub fn descriptor() -> ToolDescriptor {
    ToolDescriptor {
        name: ASK.to_owned(),
        category: "agents".to_owned(),
        description: "Asks a person, and waits until they approve or reject, with a comment. Use it when only they can decide."
            .to_owned(),
        input_schema: json!({
            "type": "object", "additionalProperties": false, "required": ["question"],
            "properties": {
                "question": { "type": "string", "minLength": 1, "maxLength": MAX_QUESTION },
                "options": { "type": "array", "maxItems": 20, "items": { "type": "string" }, "description": "answers to choose from" },
            },
        }),
        output_schema: json!({
            "type": "object", "required": ["decision", "comment"],
            "properties": { "decision": { "enum": ["approve", "reject"] }, "comment": { "type": ["string", "null"] } },
        }),
    }
}

#[derive(Deserialize)]
struct Question {
    question: String,
    #[serde(default)]
    options: Vec<String>,
}

/// The calls of an answer, after people have been asked.
pub struct Asked<'a, 'c> {
    /// Nobody has to be asked, or they have approved.
    pub free: Vec<&'a Placed<'c>>,
    /// Decisions that have not been made, and when they expire.
    pub pending: Vec<(Uuid, Timestamp)>,
}

/// A call that a person has something to say to.
struct Gate<'a, 'c> {
    placed: &'a Placed<'c>,
    /// The key of the decision in the journal: the call's own, when the decision is its result.
    key: String,
}

impl Gate<'_, '_> {
    fn is_question(&self) -> bool {
        self.key == self.placed.key
    }
}

/// Asks for what has not been asked for, and takes in what has been decided. Calls that were rejected, and questions that were
/// answered, are finished.
pub async fn ask<'a, 'c>(offer: &Offer<'_>, journal: &mut Journal, calls: Vec<&'a Placed<'c>>) -> Result<Asked<'a, 'c>, Failure> {
    let mut asked = Asked { free: Vec::new(), pending: Vec::new() };
    let mut gates = Vec::new();
    for placed in calls {
        match gate(offer, journal, placed) {
            None => asked.free.push(placed),
            Some(gate) => gates.push(gate),
        }
    }
    if gates.is_empty() {
        return Ok(asked);
    }
    request(offer, journal, &gates).await?;
    let known = approvals::of_run(offer.app, &journal.run).await?;
    for gate in gates {
        let decided = journal.finished(&gate.key).cloned();
        if decided.is_some() && gate.is_question() {
            continue; // It could not be asked.
        }
        let id = journal.step(&gate.key).and_then(|s| s.intent["approvalId"].as_str()?.parse::<Uuid>().ok());
        let found = known.iter().find(|a| Some(a.id) == id);
        let decided = match (decided, found) {
            (Some(decided), _) => decided,
            (None, Some(open)) if open.status == ApprovalStatus::Pending => {
                asked.pending.push((open.id, open.expires_at));
                continue;
            }
            (None, found) => take_in(journal, &gate, found).await?,
        };
        if gate.is_question() {
            continue;
        }
        match refusal(&decided) {
            None => asked.free.push(gate.placed),
            Some(e) => refuse(journal, gate.placed, &e, None).await?,
        }
    }
    Ok(asked)
}

fn gate<'a, 'c>(offer: &Offer<'_>, journal: &Journal, placed: &'a Placed<'c>) -> Option<Gate<'a, 'c>> {
    if placed.call.name == ASK {
        return Some(Gate { placed, key: placed.key.clone() });
    }
    let key = approval_key(&placed.key);
    // A call that was begun without being asked for needed no approval then.
    let begun = journal.step(&placed.key).is_some() && journal.step(&key).is_none();
    (!begun && offer.approval.contains(&placed.call.name)).then_some(Gate { placed, key })
}

/// All that is new in one transaction: steps, approvals and what is told of them.
async fn request(offer: &Offer<'_>, journal: &mut Journal, gates: &[Gate<'_, '_>]) -> Result<(), Failure> {
    let (now, settings) = (offer.app.clock.now(), &offer.app.config.approvals);
    let (mut events, mut steps, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for gate in gates {
        if journal.step(&gate.key).is_some_and(|s| s.result.is_some() || s.intent["approvalId"].is_string()) {
            continue;
        }
        let call = gate.placed.call;
        let approval = match subject(gate) {
            Ok((kind, reason, subject)) => NewApproval::new(settings, now, kind, reason, subject),
            Err(e) => {
                start(journal, gate.placed, StepKind::Approval, json!({})).await?;
                finish(journal, gate.placed, failed(&e), Duration::ZERO, None).await?;
                continue;
            }
        };
        let intent = json!({ "approvalId": approval.id, "toolCallId": call.id });
        steps.push(journal.starting(&gate.key, StepKind::Approval, &call.name, intent));
        let data = json!({
            "approvalId": approval.id, "reason": approval.reason, "toolCallId": call.id, "kind": approval.kind.as_str(),
            "expiresAt": approval.expires_at.rfc3339(),
        });
        events.push(NewEvent::new(kind::APPROVAL_REQUESTED, data));
        wanted.push(approval);
    }
    if wanted.is_empty() { Ok(()) } else { journal.commit_asking(events, steps, wanted).await }
}

fn subject(gate: &Gate<'_, '_>) -> Result<(ApprovalKind, String, Value), ToolError> {
    let call = gate.placed.call;
    if !gate.is_question() {
        let subject = json!({ "toolCallId": call.id, "tool": call.name, "arguments": call.arguments });
        return Ok((ApprovalKind::Tool, format!("the agent wants to call {}", call.name), subject));
    }
    let invalid = |message: String| ToolError::new("INVALID_ARGUMENTS", message);
    let asked: Question = serde_json::from_value(call.arguments.clone()).map_err(|e| invalid(e.to_string()))?;
    let question = asked.question.trim();
    if !(1..=MAX_QUESTION).contains(&question.chars().count()) {
        return Err(invalid(format!("question: must be 1 to {MAX_QUESTION} characters")));
    }
    let subject = json!({ "toolCallId": call.id, "question": question, "options": asked.options });
    Ok((ApprovalKind::Question, question.to_owned(), subject))
}

/// Journals what became of an approval, and tells of it; that of a question is the call's result. One that is gone counts as expired.
async fn take_in(journal: &mut Journal, gate: &Gate<'_, '_>, approval: Option<&Approval>) -> Result<Value, Failure> {
    let decision = match approval.map(|a| a.status) {
        Some(ApprovalStatus::Approved) => Decision::Approve.as_str(),
        Some(ApprovalStatus::Rejected) => Decision::Reject.as_str(),
        _ => EXPIRED,
    };
    let decided = json!({ "decision": decision, "comment": approval.and_then(|a| a.comment.clone()) });
    let mut data = decided.clone();
    data["toolCallId"] = json!(gate.placed.call.id);
    data["approvalId"] = journal.step(&gate.key).map_or(Value::Null, |s| s.intent["approvalId"].clone());
    let told = NewEvent::new(kind::APPROVAL_RESOLVED, data);
    if gate.is_question() {
        let result = if decision == EXPIRED { failed(&expired()) } else { json!({ "ok": decided }) };
        finish(journal, gate.placed, result, Duration::ZERO, Some(told)).await?;
    } else {
        let step = journal.finishing(&gate.key, decided.clone());
        journal.commit(vec![told], vec![step], Vec::new()).await?;
    }
    Ok(decided)
}

/// Why the call may not be made.
fn refusal(decided: &Value) -> Option<ToolError> {
    if decided["decision"] == Decision::Approve.as_str() {
        return None;
    }
    if decided["decision"] != Decision::Reject.as_str() {
        return Some(expired());
    }
    let comment = decided["comment"].as_str().filter(|c| !c.is_empty()).map_or(String::new(), |c| format!(": {c}"));
    Some(ToolError::new("APPROVAL_REJECTED", format!("a person has rejected this call; it was not made{comment}")))
}

fn expired() -> ToolError {
    ToolError::new("APPROVAL_EXPIRED", "nobody has decided in time; it was not done")
}
