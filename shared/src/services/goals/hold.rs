//! The lock of a goal and of the readiness of its tasks is the head of the goal's thread: it is taken first, then things are read, then
//! written. What a goal becomes is said in its thread.
use serde_json::json;
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        event::{NewEvent, kind},
        goal::{Goal, GoalStatus, Progress},
        notification::{NewNotification, NotificationKind},
        run::RunError,
    },
    error::{Error, Result},
    services::runs::after::{After, Source},
    store::{
        db::Tx,
        goals as store, notifications,
        outbox::NoticeKind,
        threads::{self, Advance},
    },
};

pub fn not_found() -> Error {
    Error::not_found("GOAL_NOT_FOUND", "no such goal")
}

/// Takes the goal's lock, and reads the goal as it is then.
pub async fn hold(tx: &mut Tx, id: Uuid) -> Result<Option<Goal>> {
    let Some(goal) = store::any_by_id(&mut *tx, id).await? else { return Ok(None) };
    threads::advance(tx, goal.thread_id, Advance::default()).await?;
    store::any_by_id(tx, id).await
}

/// As `hold`, for its owner.
///
/// # Errors
/// `GOAL_NOT_FOUND` when it is unknown or another's.
pub async fn hold_mine(tx: &mut Tx, owner: &Owner, id: Uuid) -> Result<Goal> {
    hold(tx, id).await?.filter(|goal| goal.owner == owner.as_str()).ok_or_else(not_found)
}

/// Whose events those of the goal itself are: no run says them.
pub fn source(goal: &Goal) -> Source<'_> {
    Source { thread_id: goal.thread_id, run_id: goal.id, run: "", fence: 0 }
}

/// Changes the state of a goal that is held: it is said in its thread, its run is woken, and its owner is told when it has ended.
///
/// # Errors
/// `GOAL_STATE` when it is no longer as it was when it was held.
pub async fn move_to(
    tx: &mut Tx,
    after: &mut After,
    goal: &Goal,
    to: GoalStatus,
    error: Option<&RunError>,
    now: Timestamp,
) -> Result<Goal> {
    let moved = store::set_status(tx, goal.id, &[goal.status], to, error, now).await?;
    let moved = moved.ok_or_else(|| forbids(goal.status, "what was read before"))?;
    tell(tx, after, &moved, now).await?;
    if to.is_ended() && !goal.status.is_ended() {
        notifications::insert(tx, &ended(&moved, now), now).await?;
    }
    Ok(moved)
}

/// Says in the goal's thread how it stands, and has its run look at it.
pub async fn tell(tx: &mut Tx, after: &mut After, goal: &Goal, now: Timestamp) -> Result<()> {
    let progress = store::progress(&mut *tx, goal.id).await?;
    let Progress { done, total } = progress;
    let progress = json!({ "done": done, "total": total, "percent": progress.percent() });
    let mut data = json!({ "goalId": goal.id, "status": goal.status.as_str(), "progress": progress });
    if let Some(error) = &goal.error {
        data["error"] = json!(error);
    }
    after.append(tx, source(goal), vec![NewEvent::new(kind::GOAL_CHANGED, data)], now).await?;
    wake(tx, after, goal, now).await
}

/// Has the goal's run look at it.
pub async fn wake(tx: &mut Tx, after: &mut After, goal: &Goal, now: Timestamp) -> Result<()> {
    if let Some(run) = goal.run_id {
        after.tell(tx, [run], NoticeKind::Wake, "its goal has changed", now).await?;
    }
    Ok(())
}

/// A goal that is executed anew ends again.
fn ended(goal: &Goal, now: Timestamp) -> NewNotification {
    let title = format!("{}: {}", goal.title, goal.status.as_str());
    let about = NewNotification::about(&goal.owner, NotificationKind::GoalEnded, "goal", &goal.id.to_string(), title);
    let dedupe_key = format!("{}:{}", about.dedupe_key, now.0);
    let body = goal.error.as_ref().map(|e| e.message.clone()).unwrap_or_default();
    NewNotification { dedupe_key, ..about }.saying(body)
}

/// The refusal of what its state forbids; `wanted` is what would have been possible in another.
pub fn forbids(status: GoalStatus, wanted: &str) -> Error {
    Error::conflict("GOAL_STATE", format!("the goal is {}, which does not allow {wanted}", status.as_str()))
}
