//! `/runs`: starting runs, and what becomes of them.
use poem::web::Data;
use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use runmill_shared::{
    App, Error, Result,
    domain::run::{Priority, Run, RunState},
    services::{
        runs::{
            accept,
            control::{self, Filter},
            start,
        },
        stream,
    },
};
use serde_json::Value;
use uuid::Uuid;

use super::{Reply, input::RunAgentInput};
use crate::http::{auth::Auth, body::Unchecked, trace::Trace};

const DEFAULT_LIMIT: u64 = 20;
const MAX_LIMIT: u64 = 100;

/// A run that was accepted. It goes on in the background, whoever listens.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct AcceptedBody {
    pub task_id: Uuid,
    pub thread_id: String,
    pub run_id: String,
    /// ISO 8601, UTC
    pub created: String,
}

impl From<accept::Accepted> for AcceptedBody {
    fn from(a: accept::Accepted) -> Self {
        Self { task_id: a.id, thread_id: a.thread, run_id: a.run, created: a.created_at.rfc3339() }
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum Status {
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Queued => Self::Queued,
            RunState::Running => Self::Running,
            RunState::Waiting => Self::Waiting,
            RunState::Succeeded => Self::Succeeded,
            RunState::Failed => Self::Failed,
            RunState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Status> for RunState {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => Self::Queued,
            Status::Running => Self::Running,
            Status::Waiting => Self::Waiting,
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Object)]
struct RunErrorBody {
    /// stable, for programs
    code: String,
    message: String,
    /// whether another try may succeed
    retryable: bool,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct UsageBody {
    input_tokens: u64,
    output_tokens: u64,
}

/// Times are ISO 8601, UTC.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct RunBody {
    task_id: Uuid,
    thread_id: String,
    run_id: String,
    /// agent, transcription, …
    kind: String,
    status: Status,
    /// failures so far that count
    attempt: i64,
    /// high, normal or low
    priority: String,
    agent_id: Option<String>,
    /// as it was asked for
    model: Option<String>,
    /// the run that started this one
    parent_task_id: Option<Uuid>,
    /// the run that this one tries again
    retry_of: Option<Uuid>,
    created: String,
    /// not before this time: delayed, or backing off
    run_at: Option<String>,
    started: Option<String>,
    finished: Option<String>,
    /// approval, tool, timer or children
    waiting_for: Option<String>,
    result: Option<Value>,
    error: Option<RunErrorBody>,
    usage: Option<UsageBody>,
}

impl From<Run> for RunBody {
    fn from(r: Run) -> Self {
        let priority = [Priority::High, Priority::Low].into_iter().find(|p| p.as_i64() == r.priority).unwrap_or_default();
        Self {
            task_id: r.id,
            thread_id: r.thread,
            run_id: r.external_id,
            kind: r.kind.as_str().to_owned(),
            status: r.state.into(),
            attempt: r.attempt,
            priority: priority.as_str().to_owned(),
            agent_id: r.agent_id,
            model: r.model,
            parent_task_id: r.parent_run_id,
            retry_of: r.retry_of,
            created: r.created_at.rfc3339(),
            run_at: r.due_at.map(|t| t.rfc3339()),
            started: r.started_at.map(|t| t.rfc3339()),
            finished: r.finished_at.map(|t| t.rfc3339()),
            waiting_for: r.waiting.filter(|_| r.state == RunState::Waiting).map(|w| w.reason().to_owned()),
            result: r.result,
            error: r.error.map(|e| RunErrorBody { code: e.code, message: e.message, retryable: e.retryable }),
            usage: r.usage.map(|u| UsageBody { input_tokens: u.input_tokens, output_tokens: u.output_tokens }),
        }
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct RunList {
    /// newest first
    runs: Vec<RunBody>,
    /// `before` of the next page; null on the last one
    next_before: Option<Uuid>,
}

impl RunList {
    /// From one run more than the page has room for.
    fn cut(mut runs: Vec<Run>, limit: usize) -> Self {
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next_before = runs.last().filter(|_| more).map(|r| r.id);
        Self { runs: runs.into_iter().map(RunBody::from).collect(), next_before }
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct StreamTokenBody {
    /// for `?access_token=` of this thread's events
    token: String,
    /// seconds
    expires_in: u64,
}

fn page_size(limit: Option<u64>) -> Result<usize> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(usize::try_from(limit).unwrap_or_default()),
        _ => Err(Error::malformed(format!("limit: must be 1 to {MAX_LIMIT}"))),
    }
}

pub struct RunsApi;

#[OpenApi]
impl RunsApi {
    /// Accepts a run and answers at once; its events tell the rest.
    ///
    /// The same runId, or the same Idempotency-Key, with the same body answers the first run again; with another body it is 409.
    #[oai(path = "/runs", method = "post", operation_id = "startRun")]
    async fn start(
        &self,
        app: Data<&App>,
        caller: Auth,
        trace: Trace,
        /// for clients that have no stable runId; kept for 24 hours
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: Unchecked<RunAgentInput>,
    ) -> Reply<Json<AcceptedBody>> {
        let request = start::Request { body: &body.0, idempotency_key: key.0, trace: trace.0 };
        Ok(Json(start::start(&app, &caller.0, request).await?.into()))
    }

    /// The caller's runs, newest first.
    #[oai(path = "/runs", method = "get", operation_id = "listRuns")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        #[oai(name = "threadId")] thread: Query<Option<String>>,
        status: Query<Option<Status>>,
        /// the nextBefore of the page before
        before: Query<Option<Uuid>>,
        /// 1 to 100; 20 by default
        limit: Query<Option<u64>>,
    ) -> Reply<Json<RunList>> {
        let limit = page_size(limit.0)?;
        let more = i64::try_from(limit).unwrap_or_default() + 1;
        let filter = Filter { thread: thread.0, state: status.0.map(Into::into), before: before.0, limit: more };
        Ok(Json(RunList::cut(control::list(&app, &caller.0, filter).await?, limit)))
    }

    /// How a run stands.
    #[oai(path = "/runs/:task_id", method = "get", operation_id = "getRun")]
    async fn get(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<RunBody>> {
        Ok(Json(control::get(&app, &caller.0, task_id.0).await?.into()))
    }

    /// Ends a run that has not ended, and those that it started; answers how it stands then.
    #[oai(path = "/runs/:task_id/cancel", method = "post", operation_id = "cancelRun")]
    async fn cancel(&self, app: Data<&App>, caller: Auth, task_id: Path<Uuid>) -> Reply<Json<RunBody>> {
        Ok(Json(control::cancel(&app, &caller.0, task_id.0).await?.into()))
    }

    /// A new run that goes on after the last finished step of one that has ended; 409 for one that has not.
    #[oai(path = "/runs/:task_id/retry", method = "post", operation_id = "retryRun")]
    async fn retry(&self, app: Data<&App>, caller: Auth, trace: Trace, task_id: Path<Uuid>) -> Reply<Json<AcceptedBody>> {
        Ok(Json(control::retry(&app, &caller.0, task_id.0, trace.0).await?.into()))
    }

    /// A token that reads the events of this thread, and nothing else, for five minutes.
    #[oai(path = "/runs/:thread_id/stream-token", method = "post", operation_id = "createStreamToken")]
    async fn stream_token(&self, app: Data<&App>, caller: Auth, thread_id: Path<String>) -> Reply<Json<StreamTokenBody>> {
        let issued = stream::token(&app, &caller.0, &thread_id.0).await?;
        Ok(Json(StreamTokenBody { token: issued.token, expires_in: issued.expires_in }))
    }
}
