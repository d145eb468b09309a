//! The tool calls of one answer: journaled before and after, in parallel; those that have to wait let the run be parked.
use futures::{StreamExt, stream::FuturesUnordered};
use runmill_shared::{
    App,
    clock::Timestamp,
    domain::{
        chat::{ChatMessage, ToolCall, ToolSpec},
        event::{NewEvent, kind},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{RunKind, RunState, Waiting},
        run_input::{RunInput, RunOptions},
        step::StepKind,
    },
    services::runs::execution::{self, Child},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Failure, journal::Journal};
use crate::tools::{ToolContext, ToolError, Tools};

/// Tools that the engine executes itself, because they let the run wait.
pub const TOOLS: [&str; 2] = [WAIT, DELEGATE];
const WAIT: &str = "wait";
const DELEGATE: &str = "delegate_to_agent";
const LONGEST_WAIT: u64 = 30 * 24 * 3600;

/// As models see them. A child run does not delegate any further.
pub fn specs(names: &[String], is_child: bool) -> Vec<ToolSpec> {
    let all = [
        ToolSpec {
            name: WAIT.to_owned(),
            description:
                "Waits for a time, without costing anything meanwhile. Use it when something has to be tried again later."
                    .to_owned(),
            parameters: json!({
                "type": "object", "additionalProperties": false, "required": ["seconds"],
                "properties": { "seconds": { "type": "integer", "minimum": 1, "maximum": LONGEST_WAIT } },
            }),
        },
        ToolSpec {
            name: DELEGATE.to_owned(),
            description: "Gives a task to another agent, which works on it in the background, and answers with its result."
                .to_owned(),
            parameters: json!({
                "type": "object", "additionalProperties": false, "required": ["task"],
                "properties": { "task": { "type": "string", "minLength": 1 }, "agent": { "type": "string" } },
            }),
        },
    ];
    let wanted = |s: &ToolSpec| names.contains(&s.name) && !(is_child && s.name == DELEGATE);
    all.into_iter().filter(wanted).collect()
}

/// A call with its place in the journal.
pub struct Placed<'a> {
    pub call: &'a ToolCall,
    pub key: String,
}

/// What a call came to so far.
enum Progress {
    Result(Value),
    Until(Timestamp),
    Child(Uuid),
}

/// Executes the calls that have not finished. `offered` is what the model may call: a name that it makes up, or remembers from
/// elsewhere, is not executed. `Some`: the run has to wait before it can go on.
pub async fn execute(
    app: &App,
    journal: &mut Journal,
    tools: &Tools,
    offered: &[ToolSpec],
    calls: &[Placed<'_>],
) -> Result<Option<Waiting>, Failure> {
    let open = calls.iter().filter(|c| journal.finished(&c.key).is_none());
    let (known, unknown): (Vec<_>, Vec<_>) = open.partition(|c| offered.iter().any(|o| o.name == c.call.name));
    for placed in unknown {
        refuse(journal, placed, offered).await?;
    }
    let (waiting, plain): (Vec<_>, Vec<_>) = known.into_iter().partition(|c| TOOLS.contains(&c.call.name.as_str()));
    run_plain(app, journal, tools, &plain).await?;
    let (mut until, mut children): (Option<Timestamp>, Vec<Uuid>) = (None, Vec::new());
    for placed in waiting {
        match advance(app, journal, placed).await? {
            Progress::Result(result) => finish(journal, placed, result, Duration::ZERO).await?,
            Progress::Until(at) => until = Some(until.map_or(at, |u| u.min(at))),
            Progress::Child(id) => children.push(id),
        }
    }
    Ok(match (children.is_empty(), until) {
        (false, until) => Some(Waiting::Children { runs: children, until }),
        (true, Some(until)) => Some(Waiting::Timer { until }),
        (true, None) => None,
    })
}

async fn refuse(journal: &mut Journal, placed: &Placed<'_>, offered: &[ToolSpec]) -> Result<(), Failure> {
    let names: Vec<_> = offered.iter().map(|o| o.name.as_str()).collect();
    let message = format!("there is no tool named {:?}; there are {}", placed.call.name, names.join(", "));
    start(journal, placed, StepKind::Tool, json!({ "toolCallId": placed.call.id })).await?;
    finish(journal, placed, failed(&ToolError::new("UNKNOWN_TOOL", message)), Duration::ZERO).await
}

/// The calls of ordinary tools, all at once. Each result is kept as it comes: a crash does not forget what is known.
async fn run_plain(app: &App, journal: &mut Journal, tools: &Tools, plain: &[&Placed<'_>]) -> Result<(), Failure> {
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
        finish(journal, placed, result, took).await?;
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

fn failed(e: &ToolError) -> Value {
    json!({ "error": { "code": e.code, "message": e.message } })
}

/// Keeps a call's result, and tells of it.
async fn finish(journal: &mut Journal, placed: &Placed<'_>, result: Value, took: Duration) -> Result<(), Failure> {
    let message_id = format!("{}-result", placed.call.id);
    let mut data = json!({ "toolCallId": placed.call.id, "messageId": message_id });
    data["durationMs"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match result.get("ok") {
        Some(ok) => data["result"] = ok.clone(),
        None => data["error"] = result["error"].clone(),
    }
    let mut body = MessageBody::text(text_of(&result));
    body.tool_call_id = Some(placed.call.id.clone());
    let message = NewMessage { id: message_id, role: MessageRole::Tool, body };
    let step = journal.finishing(&placed.key, result);
    journal.commit(vec![NewEvent::new(kind::TOOL_FINISHED, data)], vec![step], vec![message]).await
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

#[derive(Deserialize)]
struct WaitArguments {
    seconds: u64,
}

#[derive(Deserialize)]
struct DelegateArguments {
    task: String,
    agent: Option<String>,
}

/// Starts a waiting tool, or looks how far it has come.
async fn advance(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    if placed.call.name == WAIT { wait(app, journal, placed).await } else { delegate(app, journal, placed).await }
}

fn bad_arguments(e: &serde_json::Error) -> Progress {
    Progress::Result(failed(&ToolError::new("INVALID_ARGUMENTS", e.to_string())))
}

async fn wait(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let until = match journal.step(&placed.key) {
        Some(step) => step.intent["until"].as_i64().map(Timestamp),
        None => None,
    };
    let until = match until {
        Some(until) => until,
        None => {
            let seconds = match serde_json::from_value::<WaitArguments>(placed.call.arguments.clone()) {
                Ok(arguments) => arguments.seconds.clamp(1, LONGEST_WAIT),
                Err(e) => {
                    start(journal, placed, StepKind::Timer, json!({})).await?;
                    return Ok(bad_arguments(&e));
                }
            };
            let until = app.clock.now().after(Duration::from_secs(seconds));
            start(journal, placed, StepKind::Timer, json!({ "until": until })).await?;
            until
        }
    };
    if app.clock.now() < until {
        return Ok(Progress::Until(until));
    }
    Ok(Progress::Result(json!({ "ok": { "waited_until": until.rfc3339() } })))
}

async fn start(journal: &mut Journal, placed: &Placed<'_>, kind: StepKind, intent: Value) -> Result<(), Failure> {
    let step = journal.starting(&placed.key, kind, &placed.call.name, intent);
    journal.commit(Vec::new(), vec![step], Vec::new()).await
}

async fn delegate(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let known = journal.step(&placed.key).and_then(|s| s.intent["childRunId"].as_str()?.parse::<Uuid>().ok());
    let Some(child) = known else { return start_child(app, journal, placed).await };
    let outcomes = execution::outcomes(app, &[child]).await?;
    let Some(outcome) = outcomes.first() else {
        return Ok(Progress::Result(failed(&ToolError::new("CHILD_GONE", "the delegated run is gone"))));
    };
    Ok(match outcome.state {
        RunState::Succeeded => {
            let content = outcome.result.as_ref().map_or(Value::Null, |r| r["content"].clone());
            Progress::Result(json!({ "ok": content }))
        }
        RunState::Failed | RunState::Cancelled => {
            let message = outcome.error.as_ref().map_or_else(|| "it was cancelled".to_owned(), |e| e.message.clone());
            Progress::Result(failed(&ToolError::new("CHILD_FAILED", message)))
        }
        RunState::Queued | RunState::Running | RunState::Waiting => Progress::Child(child),
    })
}

async fn start_child(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let arguments = match serde_json::from_value::<DelegateArguments>(placed.call.arguments.clone()) {
        Ok(arguments) => arguments,
        Err(e) => {
            start(journal, placed, StepKind::Child, json!({})).await?;
            return Ok(bad_arguments(&e));
        }
    };
    let agent = arguments.agent.clone().or_else(|| journal.run.agent_id.clone());
    if app.config.agent(agent.as_deref()).is_none() {
        start(journal, placed, StepKind::Child, json!({})).await?;
        let known: Vec<_> = app.config.agents.keys().map(String::as_str).collect();
        let message = format!("there is no such agent; there are {}", known.join(", "));
        return Ok(Progress::Result(failed(&ToolError::new("UNKNOWN_AGENT", message))));
    }
    let id = new_id();
    let step = journal.starting(&placed.key, StepKind::Child, DELEGATE, json!({ "childRunId": id }));
    let child = child_of(journal, id, agent, &arguments.task)?;
    execution::start_child(app, &journal.run, child, step).await?;
    let data = json!({ "toolCallId": placed.call.id, "childTaskId": id, "childThreadId": format!("child-{id}") });
    journal.emit(NewEvent::new(kind::PROGRESS, data));
    Ok(Progress::Child(id))
}

fn child_of(journal: &Journal, id: Uuid, agent: Option<String>, task: &str) -> Result<Child, Failure> {
    let name = format!("child-{id}");
    let options = RunOptions { agent_id: agent.clone(), model: journal.run.model.clone(), ..RunOptions::default() };
    let input = RunInput {
        thread_id: name.clone(),
        run_id: name,
        messages: Vec::new(),
        state: None,
        tools: Vec::new(),
        context: Vec::new(),
        forwarded_props: Value::Null,
        parent_run_id: Some(journal.run.external_id.clone()),
        options,
    };
    let input = serde_json::to_string(&input).map_err(|e| Failure::from(runmill_shared::Error::from(e)))?;
    let message = NewMessage { id: format!("{id}-task"), role: MessageRole::User, body: MessageBody::text(task) };
    Ok(Child { id, kind: RunKind::Agent, input, messages: vec![message], agent_id: agent, model: journal.run.model.clone() })
}

/// The calls of an answer with their places in the journal.
pub fn placed<'a>(iteration: u32, calls: &'a [ToolCall]) -> Vec<Placed<'a>> {
    let place = |(index, call): (usize, &'a ToolCall)| {
        let key = super::journal::tool_key(iteration, index, &call.name, &call.arguments);
        Placed { call, key }
    };
    calls.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_run_does_not_delegate() {
        let names = [WAIT, DELEGATE].map(str::to_owned);
        let seen = |is_child| specs(&names, is_child).into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(seen(false), [WAIT, DELEGATE]);
        assert_eq!(seen(true), [WAIT]);
    }
}
