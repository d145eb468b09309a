//! Holding an execution, letting it go on, ending it, trying it again. A state that forbids it is a conflict that says which.
use serde_json::json;
use uuid::Uuid;

use super::{Execution, not_found, short, status};
use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        event::{NewEvent, kind},
        run::{Run, RunKind},
    },
    error::{Error, Result},
    services::runs::{
        accept::Accepted,
        after::{After, Source},
        control,
    },
    store::{
        db::Tx,
        runs::{
            moves::{self, Paused},
            view,
        },
        threads::{self, Advance},
    },
};

fn ended(run: &Run) -> Error {
    Error::conflict("EXECUTION_ENDED", format!("the execution is {}: it has ended", status(run.state)))
}

/// In the caller's transaction, under the lock of the thread's head.
async fn locked(tx: &mut Tx, caller: &Caller, id: Uuid) -> Result<Run> {
    let run = view::by_id(&mut *tx, caller.can(Scope::Write)?, id).await?.ok_or_else(not_found)?;
    threads::advance(tx, run.thread_id, Advance::default()).await?;
    Ok(run)
}

/// Holds it at its next checkpoint: between two steps, never in the middle of one. One that is about to be executed waits at once;
/// one that waits for something else stays held when that has come. Asking twice changes nothing.
///
/// # Errors
/// `RUN_NOT_FOUND`; `EXECUTION_NOT_PAUSABLE` for a kind that is one step; `EXECUTION_ENDED`.
pub async fn pause(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let run = locked(&mut tx, caller, id).await?;
    if !run.state.is_ended() && !run.kind.has_checkpoints() {
        let message = format!("an execution of the kind {} is one step: it cannot be held in between", run.kind.as_str());
        return Err(Error::conflict("EXECUTION_NOT_PAUSABLE", message));
    }
    match moves::pause(&mut tx, id).await? {
        Some(Paused::Parked) => {
            let source = Source { thread_id: run.thread_id, run_id: id, run: &run.external_id, fence: 0 };
            let told = NewEvent::new(kind::RUN_WAITING, json!({ "reason": "paused" }));
            after.append(&mut tx, source, vec![told], now).await?;
        }
        Some(Paused::Marked) => after.marked(id),
        None => {
            let run = view::any_by_id(&mut tx, id).await?.ok_or_else(not_found)?;
            if run.state.is_ended() {
                return Err(ended(&run));
            }
        }
    }
    tx.commit().await?;
    after.apply(app);
    short(app, caller, id).await
}

/// Lets it go on from where it was held.
///
/// # Errors
/// `RUN_NOT_FOUND`; `EXECUTION_NOT_PAUSED`; `EXECUTION_ENDED`.
pub async fn resume(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    locked(&mut tx, caller, id).await?;
    let Some(ready) = moves::resume(&mut tx, id, app.config.runs.queue_timeout, app.clock.now()).await? else {
        let run = view::any_by_id(&mut tx, id).await?.ok_or_else(not_found)?;
        if run.state.is_ended() {
            return Err(ended(&run));
        }
        let message = format!("the execution is {} and not paused", status(run.state));
        return Err(Error::conflict("EXECUTION_NOT_PAUSED", message));
    };
    after.ready(ready);
    tx.commit().await?;
    after.apply(app);
    short(app, caller, id).await
}

/// Ends it, wherever it is executed; its children follow.
///
/// # Errors
/// `RUN_NOT_FOUND`; `EXECUTION_ENDED`.
pub async fn cancel(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    caller.can(Scope::Write)?;
    short(app, caller, id).await?;
    let was_live = control::end(app, id, "cancelled by its owner").await?;
    let execution = short(app, caller, id).await?;
    if was_live { Ok(execution) } else { Err(ended(&execution.run)) }
}

/// A new execution with the same input, which takes over the steps that succeeded.
///
/// # Errors
/// `RUN_NOT_FOUND`; `RUN_NOT_ENDED`; `EXECUTION_NOT_RETRYABLE` for what is tried again by another way, which it names.
pub async fn retry(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Accepted> {
    caller.can(Scope::Write)?;
    let found = short(app, caller, id).await?;
    if found.run.state.is_ended()
        && let Some(instead) = instead(&found)
    {
        let message = format!("an execution of the kind {} is not retried by itself: use {instead}", found.run.kind.as_str());
        return Err(Error::conflict("EXECUTION_NOT_RETRYABLE", message));
    }
    if !found.run.state.is_ended() {
        let message = format!("the execution is {}; only one that has ended can be retried", status(found.run.state));
        return Err(Error::conflict("RUN_NOT_ENDED", message));
    }
    control::retry(app, caller, id, trace).await
}

/// A goal and its tasks have states of their own, which a bare run would go past.
fn instead(execution: &Execution) -> Option<String> {
    let id = |name: &str| execution.input[name].as_str().unwrap_or_default().to_owned();
    match execution.run.kind {
        RunKind::Task => Some(format!("POST /tasks/{}/retry", id("task_id"))),
        RunKind::Goal => Some(format!("POST /goals/{}/execute-async", id("goal_id"))),
        RunKind::GoalPlan => Some(format!("POST /goals/{}/decompose or replan", id("goal_id"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::RunState;

    #[test]
    fn the_platform_says_completed() {
        assert_eq!(RunState::ALL.map(status), ["queued", "running", "waiting", "completed", "failed", "cancelled"]);
    }
}
