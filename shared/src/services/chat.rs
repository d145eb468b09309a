//! Talking to agents: a message starts a run in its session, and whoever wants to waits for what comes of it.
use std::time::Duration;

use tokio::time::timeout;

use super::{
    agents,
    runs::{
        accept::{self, Accepted, Work},
        control,
    },
    stream::{self, From, Item},
};
use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        dialogue::{CANCELLED, Call, Dialogue, Said},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Run, RunError, RunKind, RunState, Watcher, check_external_id},
        run_input::{RunInput, RunOptions},
    },
    error::{ErrorKind, Result},
};

/// What somebody says.
pub struct Message {
    pub text: String,
    /// The client's name of the thread; made when it is new.
    pub session: String,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

/// A name for a session that its client gave none.
pub fn new_session() -> String {
    new_id().to_string()
}

/// Accepts a message as a run of an agent; `agents::BARE` is the one that is none. It runs when those of the session before it
/// have ended.
///
/// # Errors
/// `Invalid` for a bad session, `AGENT_NOT_FOUND`, `AGENT_STOPPED`, and those of `accept`.
pub async fn say(app: &App, caller: &Caller, agent_id: &str, message: Message) -> Result<Accepted> {
    say_watched(app, caller, agent_id, message, None).await
}

/// As `say`; `watcher` is told when the run has ended.
pub async fn say_watched(
    app: &App,
    caller: &Caller,
    agent_id: &str,
    message: Message,
    watcher: Option<Watcher>,
) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    check_external_id("session_id", &message.session)?;
    let agent = agents::runnable(app, owner, Some(agent_id)).await?;
    let id = new_id();
    let run = format!("chat-{id}");
    let options = RunOptions { agent_id: Some(agent.id.clone()), agent_version: agent.version, ..RunOptions::default() };
    let input = RunInput {
        thread_id: message.session.clone(),
        run_id: run.clone(),
        messages: Vec::new(),
        state: None,
        tools: Vec::new(),
        context: Vec::new(),
        forwarded_props: serde_json::Value::Null,
        parent_run_id: None,
        options,
    };
    let said = NewMessage { id: format!("user-{id}"), role: MessageRole::User, body: MessageBody::text(message.text) };
    let work = Work {
        thread: message.session,
        listed: true,
        messages: vec![said],
        agent_id: Some(agent.id),
        watcher,
        trace: message.trace,
        ..Work::alone(RunKind::Agent, run, serde_json::to_string(&input)?)
    };
    accept::accept(app, owner, &work).await
}

/// What came of a message so far.
#[derive(Debug)]
pub struct Answer {
    pub run: Run,
    /// Those of the whole run, with what came of them.
    pub calls: Vec<Call>,
}

/// Waits until the run has ended, at most for `limit`, and answers how it stands then.
pub async fn answer(app: &App, caller: &Caller, accepted: &Accepted, limit: Duration) -> Result<Answer> {
    let mut calls = Vec::new();
    if let Ok(ended) = timeout(limit, listen(app, caller, accepted, &mut calls)).await {
        ended?;
    }
    Ok(Answer { run: control::get(app, caller, accepted.id).await?, calls })
}

async fn listen(app: &App, caller: &Caller, accepted: &Accepted, calls: &mut Vec<Call>) -> Result<()> {
    let mut dialogue = Dialogue::default();
    let mut follow = stream::follow(app, caller, &accepted.thread, From::Run(accepted.id)).await?;
    while let Some(item) = follow.next().await? {
        let Item::Event(event) = item else { continue };
        if event.run_id != accepted.id {
            continue;
        }
        for said in dialogue.hear(&event) {
            match said {
                Said::ToolCall(call) => calls.push(call),
                Said::ToolResult { id, outcome } => {
                    if let Some(call) = calls.iter_mut().find(|c| c.id == id) {
                        call.outcome = Some(outcome);
                    }
                }
                _ => {}
            }
        }
        if event.is_terminal() {
            break;
        }
    }
    Ok(())
}

/// Why a run has no answer, and which kind of refusal that is to whoever waited for it; `None` for one that has not failed.
pub fn failure(run: &Run) -> Option<(ErrorKind, RunError)> {
    match run.state {
        RunState::Failed => {}
        RunState::Cancelled => {
            return Some((ErrorKind::Conflict, RunError::new(CANCELLED, "the run was cancelled", false)));
        }
        _ => return None,
    }
    let error = run.error.clone().unwrap_or_else(|| RunError::new("RUN_FAILED", "the run failed", false));
    let kind = match error.code.as_str() {
        // Limits that its agent, or its operator, has set.
        "BUDGET_EXHAUSTED" | "MAX_ITERATIONS" => ErrorKind::Conflict,
        "MODEL_RATE_LIMITED" => ErrorKind::Limited,
        "INTERNAL" | "PANIC" | "INPUT_UNREADABLE" | "JOURNAL_UNREADABLE" | "WORKER_LOST" => ErrorKind::Internal,
        // What it needed did not do its part: a model, a participant, time.
        _ => ErrorKind::Unavailable,
    };
    Some((kind, error))
}
