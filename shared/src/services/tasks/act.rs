//! What the owner of a task does with it: each is one move of the table, made once, and what follows from it.
use serde_json::{Value, json};
use uuid::Uuid;

use super::{forbids, run, settle};
use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        goal::Goal,
        run::RunError,
        task::{STARVED, Task, TaskMove, TaskStatus, next},
    },
    error::{Error, Result},
    services::{goals, runs::after::After},
    store::{
        db::{Class, Tx},
        outbox::NoticeKind,
        tasks::{self as store, Change},
    },
};

const MAX_COMMENT: usize = 4000;

/// The code of the error of a task that its owner has rejected; the message is why.
const REJECTED: &str = "TASK_REJECTED";

/// In which states it could be done.
fn wanted(by: TaskMove) -> &'static str {
    match by {
        TaskMove::Claim => "only a ready task can be claimed",
        TaskMove::Release => "only a claimed task can be released",
        TaskMove::Complete | TaskMove::Submit => "only a claimed or running task can be completed",
        TaskMove::Fail => "only a claimed or running task can fail",
        TaskMove::Approve => "only a task in review can be approved",
        TaskMove::Reject => "only a task in review can be rejected",
        TaskMove::Retry => "only a failed or rejected task can be tried again",
        TaskMove::Cancel => "it has ended",
        _ => "it cannot be moved so",
    }
}

/// Takes a ready task for the caller, who has it for `goals.claim`. Of many at once one has it.
///
/// # Errors
/// `TASK_STATE`, naming the state, as all of these; `TASK_NOT_FOUND`.
pub async fn claim(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    let owner = caller.can(Scope::Write)?.as_str().to_owned();
    let until = app.clock.now().after(app.config.goals.claim);
    act(app, caller, id, |_| TaskMove::Claim, Change { claim: Some((&owner, until)), ..Change::default() }, None).await
}

/// Gives it back.
pub async fn release(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    act(app, caller, id, |_| TaskMove::Release, Change::default(), None).await
}

/// Done: a task that requires approval is to be approved then. A run that executes it is stopped.
///
/// # Errors
/// `Invalid` for a result that is too large.
pub async fn complete(app: &App, caller: &Caller, id: Uuid, result: Option<&Value>) -> Result<Task> {
    let most = app.config.goals.max_result_bytes;
    if result.is_some_and(|r| r.to_string().len() > most) {
        return Err(Error::invalid("result", format!("at most {most} bytes of JSON")));
    }
    let by = |task: &Task| if task.requires_approval { TaskMove::Submit } else { TaskMove::Complete };
    act(app, caller, id, by, Change { result, ..Change::default() }, None).await
}

/// For good, until somebody has it tried again. A run that executes it is stopped.
pub async fn fail(app: &App, caller: &Caller, id: Uuid, reason: &str) -> Result<Task> {
    check_comment("reason", reason)?;
    if reason.trim().is_empty() {
        return Err(Error::invalid("reason", "say why"));
    }
    let error = RunError::new("TASK_FAILED", reason, false);
    act(app, caller, id, |_| TaskMove::Fail, Change { error: Some(&error), attempts: 1, ..Change::default() }, None).await
}

/// A comment is kept in the goal's log.
pub async fn approve(app: &App, caller: &Caller, id: Uuid, comment: Option<&str>) -> Result<Task> {
    check_comment("comment", comment.unwrap_or_default())?;
    act(app, caller, id, |_| TaskMove::Approve, Change::default(), comment).await
}

/// Counts as a failure: it is done again while tries remain, and the next one sees the comment.
pub async fn reject(app: &App, caller: &Caller, id: Uuid, comment: Option<&str>) -> Result<Task> {
    check_comment("comment", comment.unwrap_or_default())?;
    let error = RunError::new(REJECTED, comment.unwrap_or("what was done was rejected"), true);
    act(app, caller, id, |_| TaskMove::Reject, Change { error: Some(&error), attempts: 1, ..Change::default() }, None).await
}

/// Once more, whatever its tries. What failed because of it waits again.
///
/// # Errors
/// `TASK_BLOCKED` when it failed because of another, which has to be tried again first.
pub async fn retry(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    act(app, caller, id, |_| TaskMove::Retry, Change::default(), None).await
}

/// What depends on it cannot be done any more. A run that executes it is stopped.
pub async fn cancel(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    act(app, caller, id, |_| TaskMove::Cancel, Change::default(), None).await
}

fn check_comment(field: &str, text: &str) -> Result<()> {
    if text.chars().count() > MAX_COMMENT {
        return Err(Error::invalid(field, format!("must be at most {MAX_COMMENT} characters")));
    }
    Ok(())
}

async fn act(
    app: &App,
    caller: &Caller,
    id: Uuid,
    by: impl Fn(&Task) -> TaskMove,
    change: Change<'_>,
    comment: Option<&str>,
) -> Result<Task> {
    let owner = caller.can(Scope::Write)?;
    let seen = store::by_id(&app.db, owner, id).await?.ok_or_else(super::not_found)?;
    let by = by(&seen);
    // Of many at once most find it gone, and need not wait for each other to learn that.
    if next(seen.status, by).is_none() {
        return Err(forbids(seen.status, wanted(by)));
    }
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = match seen.goal_id {
        Some(goal_id) => Some(goals::hold(&mut tx, goal_id).await?.ok_or_else(super::not_found)?),
        None => None,
    };
    let Some(moved) = store::make(&mut tx, id, by, &change, now).await? else {
        let task = store::by_id(&mut tx, owner, id).await?.ok_or_else(super::not_found)?;
        return Err(forbids(task.status, wanted(by)));
    };
    if let (Some(goal), Some(comment)) = (&goal, comment) {
        let mut said = settle::event(&moved);
        said.data["comment"] = json!(comment);
        settle::say(&mut tx, &mut after, goal, vec![said], now).await?;
    }
    let stops = matches!(by, TaskMove::Complete | TaskMove::Submit | TaskMove::Fail | TaskMove::Cancel);
    if let (true, Some(run)) = (stops, moved.run_id) {
        after.tell(&mut tx, [run], NoticeKind::Cancel, "its task goes on without it", now).await?;
    }
    let moved = follow(app, &mut tx, &mut after, goal.as_ref(), moved, by).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(moved)
}

/// What the move sets off; answers how the task stands then.
async fn follow(app: &App, tx: &mut Tx, after: &mut After, goal: Option<&Goal>, moved: Task, by: TaskMove) -> Result<Task> {
    let now = app.clock.now();
    if by == TaskMove::Submit {
        settle::ask(tx, &moved, now).await?;
    }
    let moved = match by {
        TaskMove::Reject if moved.attempt < moved.max_attempts => run::again(tx, moved, now).await?,
        TaskMove::Retry if goal.is_none() => {
            store::make(&mut *tx, moved.id, TaskMove::Unblock, &Change::default(), now).await?.unwrap_or(moved)
        }
        _ => moved,
    };
    let Some(goal) = goal else { return Ok(moved) };
    let id = moved.id;
    let last = match by {
        TaskMove::Claim | TaskMove::Release | TaskMove::Submit => {
            settle::changed(tx, after, goal, &[&moved], now).await?;
            moved
        }
        _ => settle::settled(tx, after, goal, vec![moved], now).await?.remove(&id).ok_or_else(super::not_found)?,
    };
    let is_starved = last.status == TaskStatus::Failed && last.error.as_ref().is_some_and(|e| e.code == STARVED);
    if by == TaskMove::Retry && is_starved {
        return Err(Error::conflict("TASK_BLOCKED", "what it depends on has not been done; have that tried again first"));
    }
    Ok(last)
}

/// Gives back what was claimed and not done in time; answers how many.
pub async fn lapsed(app: &App) -> Result<usize> {
    let (now, batch) = (app.clock.now(), app.config.worker.batch);
    let mut released = 0;
    for store::Lapsed(goal_id) in store::lapsed(&app.db, now, batch).await? {
        let mut after = After::default();
        let mut tx = app.db.begin_as(Class::Background).await?;
        let goal = match goal_id {
            Some(id) => goals::hold(&mut tx, id).await?,
            None => None,
        };
        let tasks = store::release_lapsed(&mut tx, goal_id, now, batch).await?;
        if let Some(goal) = goal {
            settle::changed(&mut tx, &mut after, &goal, &tasks.iter().collect::<Vec<_>>(), now).await?;
        }
        tx.commit().await?;
        after.apply(app);
        released += tasks.len();
    }
    Ok(released)
}
