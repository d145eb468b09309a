//! One call of a tool, outside an agent: journaled and replayed as an agent's calls are, so that it is made once, and that a tool
//! which waits lets the worker go.
use std::{slice, sync::Arc};

use runmill_shared::{
    App,
    domain::{
        chat,
        event::{NewEvent, kind},
        run::{Claimed, RunUsage},
    },
    jobs::{CalledTool, ToolCall},
    services::runs::execution::{End, Parked, Writes},
};
use serde_json::{Value, json};

use super::{
    Failure, Left,
    calls::{self, Offer},
    journal::Journal,
    recorder::Recorder,
    waiting,
};
use crate::tools::{Tools, custom};

pub async fn execute(app: &App, recorder: &Recorder, tools: &Tools, run: Arc<Claimed>) -> Result<Left, Failure> {
    let input: ToolCall =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let (name, tools) = match input.tool {
        CalledTool::Builtin(name) => (name, tools.clone()),
        CalledTool::Custom(tool) => (tool.name.clone(), tools.with(vec![custom::open(app, &tools.means(app)?, *tool).await?])?),
    };
    let names = slice::from_ref(&name);
    let offered: Vec<_> = tools.specs(names).into_iter().chain(waiting::specs(names, false)).collect();
    let call = chat::ToolCall { id: format!("call-{}", run.id), name: name.clone(), arguments: input.arguments };
    let placed = calls::placed(0, slice::from_ref(&call));
    let mut journal = Journal::open(app, run, recorder.clone()).await?;
    announce(&journal, &call);
    let mut wake_seq = journal.run.wake_seq;
    let offer = Offer { app, tools: &tools, specs: &offered, approval: &[] };
    while let Some(waiting) = calls::execute(&offer, &mut journal, &placed).await? {
        match journal.park(app, wake_seq, &waiting).await? {
            Parked::Yes => return Ok(Left::Parked),
            Parked::Woken(seq) => wake_seq = seq,
        }
    }
    let result = placed.first().and_then(|p| journal.finished(&p.key)).map(told).unwrap_or_default();
    end(&journal, &result).await
}

/// Once: what is replayed has been said.
fn announce(journal: &Journal, call: &chat::ToolCall) {
    let started = json!({ "attempt": journal.run.attempt + 1, "agentId": Value::Null, "model": Value::Null });
    journal.emit(NewEvent::new(kind::RUN_STARTED, started));
    if journal.steps().next().is_none() {
        journal.emit(NewEvent::new(kind::TOOL_STARTED, json!({ "toolCallId": call.id, "name": call.name })));
        let delta = json!({ "toolCallId": call.id, "delta": call.arguments.to_string() });
        journal.emit(NewEvent::new(kind::TOOL_DELTA, delta));
    }
}

/// The journal's result, as the call's caller reads it.
fn told(result: &Value) -> Value {
    match result.get("ok") {
        Some(ok) => json!({ "ok": true, "result": ok }),
        None => json!({ "ok": false, "error": result["error"] }),
    }
}

async fn end(journal: &Journal, result: &Value) -> Result<Left, Failure> {
    let last = Writes { events: vec![NewEvent::finished(result, RunUsage::default(), &[])], ..Writes::default() };
    let end = End::succeeded(result.clone());
    journal.recorder.end(&journal.run, end, last).await?;
    Ok(Left::Ended)
}
