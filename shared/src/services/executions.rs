//! Runs as the platform shows them: it calls them executions. Listing and looking at them is here, starting one too; `control` is
//! what their owner may do with one that is there.
mod control;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    chat,
    runs::accept::Accepted,
    stream::{self, Follow, From},
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::{Caller, Scope},
        page::{Listed, PageRequest},
        run::{Run, RunKind, RunState, Watcher},
    },
    error::{Error, FieldError, Result},
    store::{
        executions::{self as store, Filter, Record},
        threads,
    },
};

pub use control::{cancel, pause, resume, retry};
pub use store::{Child, Step};

pub struct Execution {
    pub run: Run,
    /// The client's name of the conversation that it is part of.
    pub session: Option<String>,
    /// The goal that it plans or executes, or whose task it executes.
    pub goal_id: Option<Uuid>,
    /// What it was asked: of an agent and a team `{"message", …}`, of a task `{"task_id", "message"}`, else the payload of its kind.
    pub input: Value,
    /// `None` where it is one of many, or in short.
    pub details: Option<Details>,
}

pub struct Details {
    /// In the order in which they were started.
    pub steps: Vec<Step>,
    /// The runs that it started.
    pub children: Vec<Child>,
}

impl std::convert::From<Record> for Execution {
    fn from(record: Record) -> Self {
        let Record { run, input, listed, message, goal_id } = record;
        let session = listed.then(|| run.thread.clone());
        let message = message.map(|body| body.plain());
        let input = match run.kind {
            RunKind::Agent => json!({ "message": message }),
            RunKind::Task => json!({ "task_id": input["task_id"], "message": message }),
            RunKind::Team => {
                json!({ "message": input["message"], "plan": input["team"]["plan"], "members": input["team"]["members"] })
            }
            _ => input,
        };
        Self { run, session, goal_id, input, details: None }
    }
}

fn not_found() -> Error {
    Error::not_found("RUN_NOT_FOUND", "no such run")
}

/// How the platform calls the states.
pub fn status(state: RunState) -> &'static str {
    match state {
        RunState::Succeeded => "completed",
        other => other.as_str(),
    }
}

/// One, with its steps and children.
///
/// # Errors
/// `RUN_NOT_FOUND` when it is unknown or another's.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    let owner = caller.can(Scope::Read)?;
    let record = store::one(&app.db, owner, id).await?.ok_or_else(not_found)?;
    let steps = store::steps(&app.db, owner, id).await?;
    let ids: Vec<Uuid> = steps.iter().filter_map(|s| s.intent["childRunId"].as_str()?.parse().ok()).collect();
    let children = if ids.is_empty() { Vec::new() } else { store::children(&app.db, owner, &ids).await? };
    Ok(Execution { details: Some(Details { steps, children }), ..record.into() })
}

/// One, in short.
async fn short(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    Ok(store::one(&app.db, caller.can(Scope::Read)?, id).await?.ok_or_else(not_found)?.into())
}

/// An execution, and a reader of what happens to it from that moment on: whoever reads both misses nothing.
///
/// # Errors
/// Those of `get`.
pub async fn watch(app: &App, caller: &Caller, id: Uuid) -> Result<(Execution, Follow)> {
    let thread = short(app, caller, id).await?.run.thread;
    let follow = stream::follow(app, caller, &thread, From::Now).await?;
    Ok((get(app, caller, id).await?, follow))
}

/// Which executions, as they were asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub kind: Option<String>,
    pub agent_id: Option<String>,
    pub goal_id: Option<String>,
    pub session_id: Option<String>,
    /// RFC 3339: accepted from here on …
    pub from: Option<String>,
    /// … and before this.
    pub to: Option<String>,
    /// As a page before this one has named it: what comes after it. There is no total then.
    pub cursor: Option<String>,
}

pub struct Page {
    pub listed: Listed<Execution>,
    /// `None`: nothing comes after these.
    pub next: Option<Uuid>,
}

/// The caller's, newest first, in short.
///
/// # Errors
/// `Invalid`, naming every filter that cannot be.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest, asked: Asked) -> Result<Page> {
    let owner = caller.can(Scope::Read)?;
    let session = asked.session_id.clone();
    let (mut filter, before) = read(page, asked)?;
    if let Some(session) = session {
        let Some(thread) = threads::by_name(&app.db, owner, &session).await? else {
            return Ok(Page { listed: Listed { items: Vec::new(), total: 0 }, next: None });
        };
        filter.thread_id = Some(thread.id);
    }
    let offset = if before.is_some() { 0 } else { page.offset() };
    // One more than is shown tells whether there is a next page.
    let mut records = store::list(&app.db, owner, &filter, before, page.size.saturating_add(1), offset).await?;
    let shown = usize::try_from(page.size).unwrap_or(usize::MAX);
    let has_more = records.len() > shown;
    records.truncate(shown);
    let next = records.last().filter(|_| has_more).map(|last| last.run.id);
    // Whoever walks through a long list does not want it counted at each step.
    let total = if before.is_some() { 0 } else { store::total(&app.db, owner, &filter).await? };
    Ok(Page { listed: Listed { items: records.into_iter().map(Into::into).collect(), total }, next })
}

fn read(page: &PageRequest, asked: Asked) -> Result<(Filter, Option<Uuid>)> {
    let mut bad = page.check(&RunState::ALL.map(status), &[]).err().map(|e| e.fields).unwrap_or_default();
    let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
    if page.search.is_some() {
        fail("search", "not for this list".to_owned());
    }
    let state = RunState::ALL.into_iter().find(|s| page.status.as_deref() == Some(status(*s)));
    let kind = asked.kind.and_then(|kind| {
        let known = RunKind::parse(&kind);
        if known.is_none() {
            fail("kind", format!("one of {}", RunKind::ALL.map(RunKind::as_str).join(", ")));
        }
        known
    });
    let mut id = |field: &str, text: Option<String>, what: &str| {
        let parsed = text.map(|text| text.parse::<Uuid>());
        parsed.and_then(|id| id.map_err(|_| fail(field, what.to_owned())).ok())
    };
    let goal_id = id("goal_id", asked.goal_id, "must be a UUID");
    let before = id("cursor", asked.cursor, "must be the next_cursor of a page");
    let mut time = |field: &str, text: Option<String>| {
        let parsed = text.map(|text| DateTime::parse_from_rfc3339(&text));
        let parsed = parsed.and_then(|t| t.map_err(|_| fail(field, "must be RFC 3339, as 2026-07-01T00:00:00Z".to_owned())).ok());
        parsed.map(|t| Timestamp::from(t.with_timezone(&Utc)))
    };
    let (from, to) = (time("from", asked.from), time("to", asked.to));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        fail("from", "must not be after `to`".to_owned());
    }
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    Ok((Filter { state, kind, agent_id: asked.agent_id, goal_id, thread_id: None, from, to }, before))
}

/// What is to be executed.
pub struct NewExecution {
    pub agent_id: Option<String>,
    pub workflow_id: Option<Uuid>,
    /// Text; anything else is given to the agent as JSON.
    pub input: Value,
    /// The client's name of a conversation; a new one when there is none.
    pub session: Option<String>,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

/// Starts an execution that nobody waits for: its owner is told when it has ended.
///
/// # Errors
/// `Invalid` naming every bad field; `WORKFLOW_NOT_FOUND`; and those of `chat::say`.
pub async fn start(app: &App, caller: &Caller, new: NewExecution) -> Result<Accepted> {
    let mut bad = Vec::new();
    let mut fail = |field: &str, message: &str| bad.push(FieldError { field: field.to_owned(), message: message.to_owned() });
    if new.agent_id.is_some() == new.workflow_id.is_some() {
        fail("agent_id", "either this or workflow_id");
        fail("workflow_id", "either this or agent_id");
    }
    let text = match new.input {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if text.is_empty() {
        fail("input", "must not be empty");
    }
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    let Some(agent_id) = new.agent_id else {
        return Err(Error::not_found("WORKFLOW_NOT_FOUND", "no such workflow"));
    };
    let session = new.session.unwrap_or_else(chat::new_session);
    let message = chat::Message { text, session, trace: new.trace, watcher: Some(Watcher::Owner) };
    chat::say(app, caller, &agent_id, message).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: Option<&str>, sort: Option<&str>) -> PageRequest {
        let (status, sort) = (status.map(str::to_owned), sort.map(str::to_owned));
        PageRequest { number: 1, size: 20, search: None, status, sort }
    }

    #[test]
    fn every_filter_that_cannot_be_is_named() {
        let bad = || Some("x".to_owned());
        let asked =
            Asked { kind: bad(), goal_id: bad(), from: bad(), to: bad(), cursor: bad(), agent_id: bad(), session_id: bad() };
        let refused = read(&page(Some("succeeded"), Some("name")), asked).unwrap_err();
        let named: Vec<_> = refused.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(named, ["status", "sort", "kind", "goal_id", "cursor", "from", "to"]);
        let backwards =
            Asked { from: Some("2026-07-02T00:00:00Z".into()), to: Some("2026-07-01T00:00:00+00:00".into()), ..Asked::default() };
        assert_eq!(read(&page(None, None), backwards).unwrap_err().fields[0].field, "from");
    }

    #[test]
    fn the_platforms_words_are_understood() {
        let (filter, before) =
            read(&page(Some("completed"), None), Asked { kind: Some("goal_plan".into()), ..Asked::default() }).unwrap();
        assert_eq!((filter.state, filter.kind, before), (Some(RunState::Succeeded), Some(RunKind::GoalPlan), None));
    }
}
