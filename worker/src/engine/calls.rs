//! The tool calls of one answer: journaled before and after, in parallel; those that have to wait let the run be parked.
use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use runmill_shared::{
    App,
    clock::Timestamp,
    domain::{
        chat::{ChatMessage, ToolCall, ToolSpec},
        event::{NewEvent, kind},
        message::{MessageBody, MessageRole, NewMessage},
        run::{RunKind, Waiting},
        step::StepKind,
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Failure,
    approval::{self, Asked},
    journal::Journal,
    waiting::{self, Progress},
};
use crate::tools::{ToolContext, ToolError, ToolScope, Tools};

/// A call with its place in the journal.
pub struct Placed<'a> {
    pub call: &'a ToolCall,
    pub key: String,
}

/// What is the same for all calls of a run.
pub struct Offer<'a> {
    pub app: &'a App,
    pub tools: &'a Tools,
    /// What the model may call: a name that it makes up, or remembers from elsewhere, is not executed.
    pub specs: &'a [ToolSpec],
    /// Names of tools whose calls a person has to approve.
    pub approval: &'a [String],
}

/// Executes the calls that have not finished. `Some`: the run has to wait before it can go on.
pub async fn execute(offer: &Offer<'_>, journal: &mut Journal, calls: &[Placed<'_>]) -> Result<Option<Waiting>, Failure> {
    let open = calls.iter().filter(|c| journal.finished(&c.key).is_none());
    let (known, unknown): (Vec<_>, Vec<_>) = open.partition(|c| offer.specs.iter().any(|o| o.name == c.call.name));
    for placed in unknown {
        refuse_unknown(journal, placed, offer.specs).await?;
    }
    // People are asked first: they need not wait until the other calls have ended.
    let Asked { free, pending } = approval::ask(offer, journal, known).await?;
    let (waiting, plain): (Vec<_>, Vec<_>) = free.into_iter().partition(|c| waiting::is_waiting(&c.call.name));
    run_plain(offer, journal, &plain).await?;
    let (mut until, mut children): (Option<Timestamp>, Vec<Uuid>) = (None, Vec::new());
    let sooner = |until: Option<Timestamp>, at: Timestamp| Some(until.map_or(at, |u| u.min(at)));
    for placed in waiting {
        match waiting::advance(offer.app, journal, placed).await? {
            Progress::Result(result) => finish(journal, placed, result, Duration::ZERO, None).await?,
            Progress::Until(at) => until = sooner(until, at),
            Progress::Child(id) => children.push(id),
        }
    }
    if !pending.is_empty() {
        let until = pending.iter().fold(until, |until, (_, expires)| sooner(until, *expires));
        return Ok(Some(Waiting::Approval { approvals: pending.into_iter().map(|(id, _)| id).collect(), until }));
    }
    Ok(match (children.is_empty(), until) {
        (false, until) => Some(Waiting::Children { runs: children, until }),
        (true, Some(until)) => Some(Waiting::Timer { until }),
        (true, None) => None,
    })
}

async fn refuse_unknown(journal: &mut Journal, placed: &Placed<'_>, offered: &[ToolSpec]) -> Result<(), Failure> {
    let names: Vec<_> = offered.iter().map(|o| o.name.as_str()).collect();
    let message = format!("there is no tool named {:?}; there are {}", placed.call.name, names.join(", "));
    refuse(journal, placed, &ToolError::new("UNKNOWN_TOOL", message), None).await
}

/// Finishes a call that is not made; `told` is said before.
pub async fn refuse(journal: &mut Journal, placed: &Placed<'_>, e: &ToolError, told: Option<NewEvent>) -> Result<(), Failure> {
    start(journal, placed, StepKind::Tool, json!({ "toolCallId": placed.call.id })).await?;
    finish(journal, placed, failed(e), Duration::ZERO, told).await
}

/// The calls of ordinary tools, all at once. Each result is kept as it comes: a crash does not forget what is known.
async fn run_plain(offer: &Offer<'_>, journal: &mut Journal, plain: &[&Placed<'_>]) -> Result<(), Failure> {
    let (app, tools) = (offer.app, offer.tools);
    let cancel = CancellationToken::new();
    let _stop_with_us = cancel.clone().drop_guard();
    let (mut starts, mut running) = (Vec::new(), FuturesUnordered::new());
    for placed in plain {
        let earlier = journal.step(&placed.key).map(|s| s.intent.clone());
        let again = earlier.is_some();
        let step_key = idempotency_key(journal, placed, earlier.as_ref());
        let is_unknown = again && tools.get(&placed.call.name).is_some_and(|t| !t.idempotent(&placed.call.arguments));
        if !is_unknown {
            let intent = json!({ "toolCallId": placed.call.id, "arguments": placed.call.arguments, "idempotencyKey": step_key });
            starts.push(journal.starting(&placed.key, StepKind::Tool, &placed.call.name, intent));
        }
        let cx = ToolContext {
            app: app.clone(),
            scope: ToolScope::of(&journal.run),
            step_key,
            clock: app.clock.clone(),
            cancel: cancel.clone(),
            timeout: app.config.tools.timeout,
            max_output_bytes: app.config.tools.max_output_bytes,
        };
        running.push(async move { (*placed, call(tools, placed.call, cx, is_unknown).await) });
    }
    if !starts.is_empty() {
        journal.commit(Vec::new(), starts, Vec::new()).await?;
    }
    while let Some((placed, (result, took))) = running.next().await {
        metrics::histogram!("runmill_tool_seconds", "tool" => placed.call.name.clone()).record(took);
        finish(journal, placed, result, took, None).await?;
    }
    Ok(())
}

/// What makes two tries of a call the same: kept with its first start, so that a retry of the run, which inherits it, says the same.
fn idempotency_key(journal: &Journal, placed: &Placed<'_>, earlier: Option<&Value>) -> String {
    let kept = earlier.and_then(|intent| intent["idempotencyKey"].as_str());
    kept.map_or_else(|| format!("{}:{}", journal.run.id, placed.key), str::to_owned)
}

async fn call(tools: &Tools, call: &ToolCall, cx: ToolContext, is_unknown: bool) -> (Value, Duration) {
    let started = Instant::now();
    let outcome = if is_unknown {
        let told = "the worker stopped while this tool was running: it may have taken effect, and was not called again";
        Err(ToolError::new("OUTCOME_UNKNOWN", told))
    } else {
        tools.call(&call.name, &cx, call.arguments.clone()).await
    };
    (outcome.map_or_else(|e| failed(&e), |ok| json!({ "ok": ok })), started.elapsed())
}

pub fn failed(e: &ToolError) -> Value {
    json!({ "error": { "code": e.code, "message": e.message } })
}

/// Keeps a call's result, and tells of it; `told` is said before.
pub async fn finish(
    journal: &mut Journal,
    placed: &Placed<'_>,
    result: Value,
    took: Duration,
    told: Option<NewEvent>,
) -> Result<(), Failure> {
    let message_id = message_id(placed.call);
    let mut data = json!({ "toolCallId": placed.call.id, "messageId": message_id });
    data["durationMs"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match result.get("ok") {
        Some(ok) => data["result"] = ok.clone(),
        None => data["error"] = result["error"].clone(),
    }
    let mut body = MessageBody::text(text_of(&result));
    body.tool_call_id = Some(placed.call.id.clone());
    let message = NewMessage { id: message_id, role: MessageRole::Tool, body };
    // A call that no model asked for is no part of a conversation.
    let messages = if journal.run.kind == RunKind::ToolCall { Vec::new() } else { vec![message] };
    let step = journal.finishing(&placed.key, result);
    let events = told.into_iter().chain([NewEvent::new(kind::TOOL_FINISHED, data)]).collect();
    journal.commit(events, vec![step], messages).await
}

/// The id of the message with a call's result.
pub fn message_id(call: &ToolCall) -> String {
    format!("{}-result", call.id)
}

/// What the model is told.
fn text_of(result: &Value) -> String {
    match result.get("ok") {
        Some(Value::String(text)) => text.clone(),
        Some(ok) => ok.to_string(),
        None => format!("error: {}", result["error"]),
    }
}

/// The result of a finished call, as the model reads it.
pub fn result_message(journal: &Journal, placed: &Placed<'_>) -> Option<ChatMessage> {
    let result = journal.finished(&placed.key)?;
    Some(ChatMessage::tool(&placed.call.id, text_of(result)))
}

pub async fn start(journal: &mut Journal, placed: &Placed<'_>, kind: StepKind, intent: Value) -> Result<(), Failure> {
    let step = journal.starting(&placed.key, kind, &placed.call.name, intent);
    journal.commit(Vec::new(), vec![step], Vec::new()).await
}

/// The calls of an answer with their places in the journal.
pub fn placed<'a>(iteration: u32, calls: &'a [ToolCall]) -> Vec<Placed<'a>> {
    let place = |(index, call): (usize, &'a ToolCall)| {
        let key = super::journal::tool_key(iteration, index, &call.name, &call.arguments);
        Placed { call, key }
    };
    calls.iter().enumerate().map(place).collect()
}
