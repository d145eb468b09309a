//! A task and the run that executes it: how it begins, and what the run's end makes of the task, once.
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{not_found, settle};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::Owner,
        goal::Goal,
        run::{Run, RunError, RunState},
        task::{Task, TaskMove},
    },
    error::{Error, Result},
    services::{goals, runs::after::After},
    store::{
        db::Tx,
        runs::view,
        tasks::{self as store, Change},
    },
};

/// Begins a task with the run that executes it, in the transaction that accepts the run. Under the goal's lock, where it has a goal.
///
/// # Errors
/// `TASK_NOT_READY`, naming its status; `TASK_NOT_FOUND`.
pub async fn start(tx: &mut Tx, after: &mut After, goal: Option<&Goal>, id: Uuid, run_id: Uuid, now: Timestamp) -> Result<Task> {
    let change = Change { run_id: Some(run_id), ..Change::default() };
    let Some(task) = store::make(&mut *tx, id, TaskMove::Start, &change, now).await? else {
        let task = store::any_by_id(tx, id).await?.ok_or_else(not_found)?;
        let message = format!("the task is {}; only a ready task can be started", task.status.as_str());
        return Err(Error::conflict("TASK_NOT_READY", message));
    };
    if let Some(goal) = goal {
        settle::tell(tx, after, goal, &[&task], now).await?;
    }
    Ok(task)
}

/// What is needed of the payload of a task's run.
#[derive(Deserialize)]
struct Executes {
    task_id: Uuid,
}

/// Makes of the task what its run has come to. A task that has gone on without the run keeps what it is; only what was used is counted.
pub async fn run_ended(_app: &App, tx: &mut Tx, after: &mut After, run: &Run, now: Timestamp) -> Result<()> {
    let Some(stored) = view::input(&mut *tx, &Owner::of_row(&run.owner), run.id).await? else { return Ok(()) };
    let Executes { task_id } = serde_json::from_str(&stored.input)?;
    let Some(task) = store::any_by_id(&mut *tx, task_id).await? else { return Ok(()) };
    let goal = match task.goal_id {
        Some(id) => goals::hold(&mut *tx, id).await?,
        None => None,
    };
    let Some(task) = end(tx, &task, goal.as_ref(), run, now).await? else {
        return store::add_usage(tx, task_id, run.usage.unwrap_or_default()).await;
    };
    match goal {
        Some(goal) => settle::settle_after(tx, after, &goal, vec![task], now).await,
        None => Ok(()),
    }
}

/// `None`: it is not this run's any more.
async fn end(tx: &mut Tx, task: &Task, goal: Option<&Goal>, run: &Run, now: Timestamp) -> Result<Option<Task>> {
    let result = run.result.as_ref().map(result_of);
    let of_run = Change { of_run: Some(run.id), usage: run.usage.unwrap_or_default(), ..Change::default() };
    match run.state {
        RunState::Succeeded => {
            let by = if task.requires_approval { TaskMove::Submit } else { TaskMove::Complete };
            let done = store::make(&mut *tx, task.id, by, &Change { result: result.as_ref(), ..of_run }, now).await?;
            if let (Some(done), TaskMove::Submit) = (&done, by) {
                settle::ask(tx, done, now).await?;
            }
            Ok(done)
        }
        RunState::Cancelled if goal.is_some_and(|g| g.status.is_ended()) => {
            store::make(tx, task.id, TaskMove::Cancel, &of_run, now).await
        }
        // Somebody stopped it: no failure of the task's.
        RunState::Cancelled => {
            let Some(failed) = store::make(&mut *tx, task.id, TaskMove::Fail, &of_run, now).await? else { return Ok(None) };
            again(tx, failed, now).await.map(Some)
        }
        _ => {
            let unknown = RunError::new("RUN_FAILED", "its run has failed", false);
            let error = run.error.as_ref().unwrap_or(&unknown);
            let change = Change { error: Some(error), attempts: 1, ..of_run };
            let Some(failed) = store::make(&mut *tx, task.id, TaskMove::Fail, &change, now).await? else { return Ok(None) };
            let tries = error.retryable && failed.attempt < failed.max_attempts;
            if tries { again(tx, failed, now).await.map(Some) } else { Ok(Some(failed)) }
        }
    }
}

/// Has a failed or rejected task tried again. One of a goal is settled by the caller.
pub(super) async fn again(tx: &mut Tx, task: Task, now: Timestamp) -> Result<Task> {
    let waits = store::make(&mut *tx, task.id, TaskMove::Retry, &Change::default(), now).await?.unwrap_or(task);
    if waits.goal_id.is_some() {
        return Ok(waits);
    }
    Ok(store::make(tx, waits.id, TaskMove::Unblock, &Change::default(), now).await?.unwrap_or(waits))
}

/// Of an agent's answer: what it says, and what it gives in the form that it was asked for.
fn result_of(result: &Value) -> Value {
    let Some(content) = result.get("content") else { return result.clone() };
    let mut kept = json!({ "content": content });
    if let Some(output) = result.get("output").filter(|o| !o.is_null()) {
        kept["output"] = output.clone();
    }
    kept
}
