//! What callers may do with their runs once they are accepted: look, stop, try again.
use uuid::Uuid;

use super::{
    accept::{self, Accepted, Work},
    after::After,
    ending::{self, Outside},
};
use crate::{
    app::App,
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        run::{Multitask, Priority, Run, RunState, Watcher},
    },
    error::{Error, Result},
    store::{runs::view, threads},
};

pub use crate::store::runs::view::Filter;

/// The reason of a cancel that the run's owner asked for.
pub const BY_OWNER: &str = "cancelled by its owner";

pub(crate) fn not_found() -> Error {
    Error::not_found("RUN_NOT_FOUND", "no such run")
}

pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Run> {
    view::by_id(&app.db, caller.can(Scope::Read)?, id).await?.ok_or_else(not_found)
}

/// Newest first; `filter.limit` of them.
///
/// # Errors
/// `NotFound` when it names a thread that is not the caller's.
pub async fn list(app: &App, caller: &Caller, filter: Filter) -> Result<Vec<Run>> {
    let owner = caller.can(Scope::Read)?;
    if let Some(thread) = &filter.thread
        && threads::by_name(&app.db, owner, thread).await?.is_none()
    {
        return Err(Error::not_found("THREAD_NOT_FOUND", "no such thread"));
    }
    view::list(&app.db, owner, filter).await
}

/// Ends a run that has not ended, wherever it is executed; its children follow. Answers how the run stands then: an ended run
/// stays as it is.
pub async fn cancel(app: &App, caller: &Caller, id: Uuid) -> Result<Run> {
    let owner = caller.can(Scope::Write)?;
    view::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    end(app, id, BY_OWNER).await?;
    view::by_id(&app.db, owner, id).await?.ok_or_else(not_found)
}

/// Cancels without asking who wants it: for the engine's own consequences.
pub async fn end(app: &App, id: Uuid, reason: &str) -> Result<bool> {
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let how = Outside { state: RunState::Cancelled, reason, error: None, drop_messages: false };
    let ended = ending::from_outside(&mut tx, &mut after, id, &how, app.clock.now()).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(ended)
}

/// A new run with the same input that goes on after the last finished step of one that has ended.
///
/// # Errors
/// `Conflict` when the run has not ended.
pub async fn retry(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    let run = view::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    if !run.state.is_ended() {
        let message = format!("the run is {}; only an ended run can be retried", run.state.as_str());
        return Err(Error::conflict("RUN_NOT_ENDED", message));
    }
    let work = retry_of(app, owner, &run, trace).await?;
    accept::accept(app, owner, &work).await
}

async fn retry_of(app: &App, owner: &Owner, run: &Run, trace: Option<String>) -> Result<Work> {
    let mut tx = app.db.begin().await?;
    let stored = view::input(&mut tx, owner, run.id).await?.ok_or_else(not_found)?;
    tx.commit().await?;
    Ok(Work {
        kind: run.kind,
        thread: run.thread.clone(),
        listed: true,
        run: format!("retry-{}", new_id()),
        input: stored.input,
        hash: stored.input_hash,
        idempotency_key: None,
        // The thread has them already.
        messages: Vec::new(),
        priority: match run.priority {
            1 => Priority::High,
            -1 => Priority::Low,
            _ => Priority::Normal,
        },
        run_at: None,
        multitask: Multitask::Enqueue,
        agent_id: run.agent_id.clone(),
        model: run.model.clone(),
        retry_of: Some(run.id),
        watcher: run.watcher.filter(|w| *w == Watcher::Owner),
        trace,
    })
}
