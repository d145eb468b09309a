//! A goal gets the run that executes it: one at a time.
use uuid::Uuid;

use super::{forbids, hold_mine, move_to};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::{Caller, Owner, Scope},
        goal::{Goal, GoalStatus, thread_name},
        new_id,
        run::{RunKind, RunState, Watcher},
    },
    error::Result,
    jobs::GoalRun,
    services::runs::{
        accept::{self, Accepted, Work},
        after::After,
    },
    store::{db::Tx, goals as store, runs::view},
};

/// The run that executes a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    pub run_id: Uuid,
    pub state: RunState,
}

/// How a goal's run is begun.
#[derive(Clone, Debug)]
pub struct Fire {
    /// Names the run; nothing else may be called so.
    pub name: String,
    /// All its tasks are done anew.
    pub fresh: bool,
    pub watcher: Option<Watcher>,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

impl Default for Fire {
    fn default() -> Self {
        Self { name: format!("goal-run-{}", new_id()), fresh: false, watcher: None, trace: None }
    }
}

/// Makes it active and has it executed in the background; without tasks it is planned first. One that is being executed goes on, and
/// its run is answered.
///
/// # Errors
/// `GOAL_NOT_FOUND`; `GOAL_STATE` when it is being planned, or has ended otherwise than by a failure.
pub async fn execute_async(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Executed> {
    execute_as(app, caller.can(Scope::Write)?, id, trace).await
}

/// As `execute_async`, for agents that work for the owner.
pub async fn execute_as(app: &App, owner: &Owner, id: Uuid, trace: Option<String>) -> Result<Executed> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    if !matches!(goal.status, GoalStatus::Draft | GoalStatus::Active | GoalStatus::Paused | GoalStatus::Failed) {
        return Err(forbids(goal.status, "to execute it"));
    }
    let run = match current(&mut tx, &goal).await? {
        Some(run) => run,
        None => {
            let fire = Fire { trace, ..Fire::default() };
            let run_id = begin_run(app, &mut tx, &mut after, &goal, fire, now).await?.id;
            Executed { run_id, state: RunState::Queued }
        }
    };
    if goal.status != GoalStatus::Active {
        move_to(&mut tx, &mut after, &goal, GoalStatus::Active, None, now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    Ok(run)
}

/// The run that executes it now.
async fn current(tx: &mut Tx, goal: &Goal) -> Result<Option<Executed>> {
    let Some(run_id) = goal.run_id else { return Ok(None) };
    let run = view::any_by_id(tx, run_id).await?.filter(|run| !run.state.is_ended());
    Ok(run.map(|run| Executed { run_id, state: run.state }))
}

/// Accepts a run of a goal that is held, in the goal's thread: it is executed when the one before has ended. Its state is the caller's
/// to change.
pub async fn begin_run(app: &App, tx: &mut Tx, after: &mut After, goal: &Goal, fire: Fire, now: Timestamp) -> Result<Accepted> {
    let input = serde_json::to_string(&GoalRun { goal_id: goal.id, fresh: fire.fresh })?;
    let work = Work {
        thread: thread_name(goal.id),
        agent_id: goal.agent_id.clone(),
        watcher: fire.watcher,
        trace: fire.trace,
        ..Work::alone(RunKind::Goal, fire.name, input)
    };
    let accepted = accept::within_held(app, tx, after, &Owner::of_row(&goal.owner), &work, goal.thread_id, now).await?;
    if current(tx, goal).await?.is_none() {
        store::set_run(tx, goal.id, Some(accepted.id)).await?;
    }
    Ok(accepted)
}
