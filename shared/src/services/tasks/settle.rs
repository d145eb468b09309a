//! What follows when a task changes: others become ready, or cannot be done any more; it is said in the goal's thread, and the goal's
//! run looks again.
use std::collections::HashMap;

use serde_json::json;
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    domain::{
        event::{NewEvent, kind},
        goal::Goal,
        notification::{NewNotification, NotificationKind},
        run::RunError,
        task::{STARVED, Task, TaskMove},
        task_graph,
    },
    error::Result,
    services::{goals, runs::after::After},
    store::{db::Tx, notifications, tasks as store},
};

/// Makes the moves that follow from how the goal's tasks stand, and tells of them. Under the goal's lock; a few statements, however many
/// tasks there are.
pub async fn settle(tx: &mut Tx, after: &mut After, goal: &Goal, now: Timestamp) -> Result<()> {
    settle_after(tx, after, goal, Vec::new(), now).await
}

/// As `settle`, after the moves that the tasks have just made, which are told with it.
pub async fn settle_after(tx: &mut Tx, after: &mut After, goal: &Goal, moved: Vec<Task>, now: Timestamp) -> Result<()> {
    settled(tx, after, goal, moved, now).await.map(|_| ())
}

/// As `settle_after`; answers what was told.
pub(super) async fn settled(
    tx: &mut Tx,
    after: &mut After,
    goal: &Goal,
    moved: Vec<Task>,
    now: Timestamp,
) -> Result<HashMap<Uuid, Task>> {
    let starved = RunError::new(STARVED, "something that it depends on cannot be completed", false);
    let all = store::of_goal(&mut *tx, goal.id).await?;
    let mut last: HashMap<_, _> = moved.into_iter().map(|t| (t.id, t)).collect();
    for (by, ids) in task_graph::settle(&all) {
        let error = (by == TaskMove::Starve).then_some(&starved);
        last.extend(store::make_many(&mut *tx, &ids, by, error, now).await?.into_iter().map(|t| (t.id, t)));
    }
    // In the order of the plan, so that a log is the same whatever the database answers first.
    let told: Vec<_> = all.iter().filter_map(|t| last.get(&t.id)).collect();
    changed(tx, after, goal, &told, now).await?;
    Ok(last)
}

/// Tells in the goal's thread how tasks stand now, and has the goal's run look again. Under the goal's lock.
pub async fn changed(tx: &mut Tx, after: &mut After, goal: &Goal, tasks: &[&Task], now: Timestamp) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    tell(tx, after, goal, tasks, now).await?;
    goals::wake(tx, after, goal, now).await
}

pub(super) async fn tell(tx: &mut Tx, after: &mut After, goal: &Goal, tasks: &[&Task], now: Timestamp) -> Result<()> {
    say(tx, after, goal, tasks.iter().map(|t| event(t)).collect(), now).await
}

/// No run says it: the goal does.
pub(super) async fn say(tx: &mut Tx, after: &mut After, goal: &Goal, events: Vec<NewEvent>, now: Timestamp) -> Result<()> {
    after.append(tx, goals::source(goal), events, now).await
}

pub(super) fn event(task: &Task) -> NewEvent {
    let mut data = json!({
        "goalId": task.goal_id, "taskId": task.id, "key": task.key, "title": task.title, "status": task.status.as_str(),
        "attempt": task.attempt,
    });
    if let Some(run) = task.run_id {
        data["executionId"] = json!(run);
    }
    if let Some(error) = &task.error {
        data["error"] = json!(error);
    }
    if let Some(claimed_by) = &task.claimed_by {
        data["claimedBy"] = json!(claimed_by);
    }
    NewEvent::new(kind::TASK_CHANGED, data)
}

/// Tells its owner that a task which is done wants their approval.
pub(super) async fn ask(tx: &mut Tx, task: &Task, now: Timestamp) -> Result<()> {
    let title = format!("Approve: {}", task.title);
    let about = NewNotification::about(&task.owner, NotificationKind::ApprovalWanted, "task", &task.id.to_string(), title);
    // It may be rejected, done again, and wanted again.
    let dedupe_key = format!("{}:{}", about.dedupe_key, task.version);
    notifications::insert(tx, &NewNotification { dedupe_key, ..about }, now).await
}
