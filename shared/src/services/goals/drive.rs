//! What a goal's run does to its goal: each thing in one transaction with the step that says so, under the goal's lock, so that whoever
//! takes the run over neither does it twice nor leaves it out.
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cancel_tasks,
    hold::{self, hold, move_to},
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        goal::{Goal, GoalStatus, of_thread},
        run::{Claimed, RunError, RunState},
        step::StepWrite,
        task::{Task, TaskMove, TaskStatus},
    },
    error::Result,
    jobs::GoalRun,
    services::{
        runs::{
            after::After,
            ending::Ended,
            execution::{self, Child},
        },
        tasks,
    },
    store::{
        approvals,
        db::Tx,
        goal_runs, goals as store,
        tasks::{self as task_store, Change},
    },
};

/// The goal and all of its tasks; `None`: it was deleted.
pub async fn look(app: &App, goal_id: Uuid) -> Result<Option<(Goal, Vec<Task>)>> {
    let Some(goal) = store::any_by_id(&app.db, goal_id).await? else { return Ok(None) };
    Ok(Some((goal, task_store::of_goal(&app.db, goal_id).await?)))
}

/// For changes that the goal's run makes itself: it need not be woken by them.
fn unwatched(goal: &Goal) -> Goal {
    Goal { run_id: None, ..goal.clone() }
}

/// The goal's run takes the goal up, once: the goal is active from here on, and what failed before is tried again; where it is executed
/// anew, so is everything.
///
/// # Errors
/// `GOAL_NOT_FOUND` when it was deleted.
pub async fn begin(app: &App, run: &Claimed, input: &GoalRun, steps: &[StepWrite]) -> Result<()> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold(&mut tx, input.goal_id).await?.ok_or_else(hold::not_found)?;
    execution::journal_within(&mut tx, run, steps, now).await?;
    store::set_run(&mut tx, goal.id, Some(run.id)).await?;
    goal_runs::take_up(&mut tx, goal.id, input.fresh, now).await?;
    tasks::settle(&mut tx, &mut after, &unwatched(&goal), now).await?;
    if goal.status == GoalStatus::Draft || input.fresh && goal.status.is_ended() {
        move_to(&mut tx, &mut after, &goal, GoalStatus::Active, None, now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    Ok(())
}

/// Has an agent execute a task. `false`: it is no longer ready, or the goal is held.
pub async fn start(app: &App, run: &Claimed, goal_id: Uuid, task_id: Uuid, child: &Child, steps: &[StepWrite]) -> Result<bool> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let Some(goal) = hold(&mut tx, goal_id).await?.filter(|g| g.status == GoalStatus::Active) else { return Ok(false) };
    execution::adopt(app, &mut tx, &mut after, run, child, steps, now).await?;
    match tasks::start(&mut tx, &mut after, Some(&unwatched(&goal)), task_id, child.id, now).await {
        Err(e) if e.code == "TASK_NOT_READY" => return Ok(false),
        outcome => outcome?,
    };
    tx.commit().await?;
    after.apply(app);
    Ok(true)
}

/// Has the goal planned, from the plan that `goal` has. `false`: it has another one by now, or is held.
pub async fn plan(app: &App, run: &Claimed, goal: &Goal, child: &Child, steps: &[StepWrite]) -> Result<bool> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let same = |g: &Goal| g.status == GoalStatus::Active && g.plan_version == goal.plan_version;
    let Some(goal) = hold(&mut tx, goal.id).await?.filter(same) else { return Ok(false) };
    execution::adopt(app, &mut tx, &mut after, run, child, steps, now).await?;
    store::set_planner(&mut tx, goal.id, child.id).await?;
    move_to(&mut tx, &mut after, &goal, GoalStatus::Planning, None, now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(true)
}

/// A person does not want a task to be executed; nothing changes when it is somebody's by now.
pub async fn refuse(app: &App, run: &Claimed, goal_id: Uuid, task_id: Uuid, error: &RunError, steps: &[StepWrite]) -> Result<()> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold(&mut tx, goal_id).await?.ok_or_else(hold::not_found)?;
    execution::journal_within(&mut tx, run, steps, now).await?;
    let change = Change { error: Some(error), ..Change::default() };
    if let Some(refused) = task_store::make(&mut tx, task_id, TaskMove::Refuse, &change, now).await? {
        let goal = unwatched(&goal);
        tasks::changed(&mut tx, &mut after, &goal, &[&refused], now).await?;
        tasks::settle(&mut tx, &mut after, &goal, now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    Ok(())
}

/// What a goal's run came to.
pub fn result(status: GoalStatus, tasks: &[Task]) -> Value {
    let count = |wanted: fn(&Task) -> bool| tasks.iter().filter(|t| wanted(t)).count();
    json!({
        "status": status.as_str(), "done": count(|t| t.status == TaskStatus::Completed),
        "total": count(|t| t.status != TaskStatus::Cancelled),
    })
}

/// The goal's run has ended, whoever ended it: so does the goal, in the same transaction, and what has not ended of its tasks.
pub async fn run_ended(tx: &mut Tx, after: &mut After, ended: &Ended<'_>, now: Timestamp) -> Result<()> {
    approvals::cancel_of_run(tx, ended.id, now).await?;
    let Some(goal_id) = of_thread(ended.thread) else { return Ok(()) };
    let goal = store::any_by_id(&mut *tx, goal_id).await?;
    // One that waits behind another run of the goal does not take it along.
    let Some(goal) = goal.filter(|g| !g.status.is_ended() && g.run_id.is_none_or(|id| id == ended.id)) else { return Ok(()) };
    let to = match ended.state {
        RunState::Succeeded => GoalStatus::Completed,
        RunState::Cancelled => GoalStatus::Cancelled,
        _ => GoalStatus::Failed,
    };
    cancel_tasks(tx, after, &unwatched(&goal), now).await?;
    move_to(tx, after, &goal, to, ended.error, now).await?;
    Ok(())
}
