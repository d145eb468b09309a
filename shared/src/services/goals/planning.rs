//! A goal gets its tasks: a run plans them, and what it comes to is stored at once. What is done, and what somebody is at, stays.
use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Board, forbids, hold, hold::source, hold_mine, move_to, not_found};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::{Caller, Owner, Scope},
        event::{NewEvent, kind},
        goal::{Goal, GoalStatus},
        new_id,
        plan::{self, Diff, Plan, PlanLimits, PlannedTask},
        run::{Claimed, Run, RunError, RunKind, RunState, Watcher},
        step::StepWrite,
        task::{Task, TaskMove, TaskStatus},
    },
    error::{Error, Result},
    jobs::GoalPlan,
    services::{
        runs::{
            accept::{self, Accepted, Work},
            after::After,
            execution::lost,
        },
        tasks,
    },
    store::{
        db::Tx,
        goals as store, plans,
        runs::{moves, view},
        steps::{self, Held},
        tasks::{self as task_store, NewTask},
    },
};

/// What somebody who wants a plan says to it.
pub(super) struct Asked {
    pub activate: bool,
    pub instructions: Option<String>,
    pub trace: Option<String>,
}

/// Has a goal that has no tasks planned in the background.
///
/// # Errors
/// `GOAL_NOT_FOUND`, `GOAL_STATE`; `GOAL_HAS_TASKS`.
pub async fn decompose(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Accepted> {
    let states = [GoalStatus::Draft, GoalStatus::Active, GoalStatus::Paused];
    let asked = Asked { activate: false, instructions: None, trace };
    plan(app, caller.can(Scope::Write)?, id, (&states, "to plan it"), asked, true).await
}

/// Has what is not done of a goal planned anew in the background. A failed goal that has a new plan is paused.
///
/// # Errors
/// `GOAL_NOT_FOUND`, `GOAL_STATE`.
pub async fn replan(
    app: &App,
    caller: &Caller,
    id: Uuid,
    instructions: Option<String>,
    trace: Option<String>,
) -> Result<Accepted> {
    let states = [GoalStatus::Draft, GoalStatus::Active, GoalStatus::Paused, GoalStatus::Failed];
    let asked = Asked { activate: false, instructions, trace };
    plan(app, caller.can(Scope::Write)?, id, (&states, "to plan it anew"), asked, false).await
}

async fn plan(
    app: &App,
    owner: &Owner,
    id: Uuid,
    (states, wanted): (&[GoalStatus], &str),
    asked: Asked,
    is_first: bool,
) -> Result<Accepted> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    if !states.contains(&goal.status) {
        return Err(forbids(goal.status, wanted));
    }
    if is_first && store::progress(&mut tx, id).await?.total > 0 {
        return Err(Error::conflict("GOAL_HAS_TASKS", "the goal has tasks already; replan changes them"));
    }
    let accepted = ask(app, &mut tx, &mut after, &goal, asked, now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(accepted)
}

/// Accepts the run that plans a goal which is held; the goal is being planned from then on.
pub(super) async fn ask(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    goal: &Goal,
    asked: Asked,
    now: Timestamp,
) -> Result<Accepted> {
    let Asked { activate, instructions, trace } = asked;
    let replan = store::progress(&mut *tx, goal.id).await?.total > 0;
    let input = GoalPlan { goal_id: goal.id, plan_version: goal.plan_version, replan, activate, instructions };
    let work = Work {
        agent_id: goal.agent_id.clone(),
        watcher: Some(Watcher::Plan),
        trace,
        ..Work::alone(RunKind::GoalPlan, format!("goal-plan-{}", new_id()), serde_json::to_string(&input)?)
    };
    let accepted = accept::within(app, &mut *tx, after, &Owner::of_row(&goal.owner), &work, now).await?;
    store::set_planner(tx, goal.id, accepted.id).await?;
    move_to(tx, after, goal, GoalStatus::Planning, None, now).await?;
    Ok(accepted)
}

fn outdated() -> Error {
    Error::conflict("PLAN_OUTDATED", "the goal has another plan by now, or is being planned by another run")
}

/// Takes the goal and the planning run's own locks, and the goal as it is then.
async fn hold_for(tx: &mut Tx, run: &Claimed, wanted: &GoalPlan) -> Result<Goal> {
    let goal = hold(&mut *tx, wanted.goal_id).await?.filter(|goal| goal.owner == run.owner).ok_or_else(not_found)?;
    if !moves::hold(tx, run.id, run.fence).await? {
        return Err(lost());
    }
    if goal.plan_version != wanted.plan_version {
        return Err(outdated());
    }
    Ok(goal)
}

/// What the run plans from. The goal is being planned by this run from then on.
///
/// # Errors
/// `PLAN_OUTDATED`, `GOAL_NOT_FOUND`, `GOAL_STATE`.
pub async fn open_planning(app: &App, run: &Claimed, wanted: &GoalPlan) -> Result<Board> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let mut goal = hold_for(&mut tx, run, wanted).await?;
    match goal.status {
        GoalStatus::Planning if goal.plan_run_id != Some(run.id) => return Err(outdated()),
        GoalStatus::Planning => {}
        GoalStatus::Completed | GoalStatus::Cancelled => return Err(forbids(goal.status, "to plan it")),
        // A goal's own run has it planned: it has said so to nobody.
        GoalStatus::Draft | GoalStatus::Active | GoalStatus::Paused | GoalStatus::Failed => {
            store::set_planner(&mut tx, goal.id, run.id).await?;
            goal = move_to(&mut tx, &mut after, &goal, GoalStatus::Planning, None, now).await?;
        }
    }
    let tasks = task_store::of_goal(&mut tx, goal.id).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(Board { goal, tasks })
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub plan_version: i64,
    pub diff: Diff,
}

impl Stored {
    /// As the planning run's result has it.
    pub fn result(&self) -> Value {
        let Diff { added, removed, changed, kept } = &self.diff;
        json!({ "plan_version": self.plan_version, "added": added, "removed": removed, "changed": changed, "kept": kept })
    }
}

/// Stores a plan whose writer has `seen` these keys, and the end of the step that `step` starts: both, or neither. A plan that was made
/// from another is not stored.
///
/// # Errors
/// `PLAN_OUTDATED`, also when it does not fit any more what has been done meanwhile; `GOAL_NOT_FOUND`.
pub async fn store_plan(
    app: &App,
    run: &Claimed,
    wanted: &GoalPlan,
    mut plan: Plan,
    seen: &HashSet<String>,
    step: StepWrite,
) -> Result<Stored> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_for(&mut tx, run, wanted).await?;
    if goal.status != GoalStatus::Planning || goal.plan_run_id != Some(run.id) {
        return Err(outdated());
    }
    let goal = store::set_plan(&mut tx, goal.id, goal.plan_version, run.id, now).await?.ok_or_else(outdated)?;
    let current = task_store::of_goal(&mut tx, goal.id).await?;
    let kept = plan::kept(&current, seen);
    plan.settle(&kept);
    plan.fill(&current);
    if let Some(problem) = plan.check(&limits(app), &kept).first() {
        return Err(Error::conflict("PLAN_OUTDATED", format!("the plan does not fit what was done meanwhile: {problem}")));
    }
    let stored = Stored { plan_version: goal.plan_version, diff: plan.diff(&current, seen) };
    let mut data = stored.result();
    data["goalId"] = json!(goal.id);
    after.append(&mut tx, source(&goal), vec![NewEvent::new(kind::GOAL_PLANNED, data)], now).await?;
    let moved = write(&mut tx, &goal, &current, &plan, &stored.diff, now).await?;
    tasks::settle_after(&mut tx, &mut after, &goal, moved, now).await?;
    move_to(&mut tx, &mut after, &goal, after_planning(&goal, wanted.activate), None, now).await?;
    finish(&mut tx, run, step, stored.result(), now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(stored)
}

/// What may be planned, by the settings.
pub fn limits(app: &App) -> PlanLimits {
    PlanLimits { max_tasks: app.config.goals.max_tasks, max_depth: app.config.goals.max_depth }
}

fn after_planning(goal: &Goal, activate: bool) -> GoalStatus {
    match goal.before {
        _ if activate => GoalStatus::Active,
        // It is not over any more, and nobody has said that it goes on.
        Some(GoalStatus::Failed) => GoalStatus::Paused,
        before => before.unwrap_or(GoalStatus::Draft),
    }
}

async fn finish(tx: &mut Tx, run: &Claimed, start: StepWrite, result: Value, now: Timestamp) -> Result<()> {
    let StepWrite::Start { key, .. } = &start else { return Ok(()) };
    let finish = StepWrite::Finish { key: key.clone(), result };
    let held = [&start, &finish].map(|step| Held { run_id: run.id, fence: run.fence, step });
    steps::write(tx, &held, now).await
}

/// Answers the tasks that were cancelled or are tried again.
async fn write(tx: &mut Tx, goal: &Goal, current: &[Task], plan: &Plan, diff: &Diff, now: Timestamp) -> Result<Vec<Task>> {
    let there: HashMap<&str, &Task> =
        current.iter().filter(|t| t.status != TaskStatus::Cancelled).map(|t| (t.key.as_str(), t)).collect();
    let is_planned = |key: &str| plan.tasks.iter().any(|t| t.key == key);
    let removed: HashSet<&str> = diff.removed.iter().map(String::as_str).collect();
    // The table cancels nothing that has ended: what failed is wanted again first.
    let again = |t: &&Task| matches!(t.status, TaskStatus::Failed | TaskStatus::Rejected);
    let again = there.values().filter(|t| is_planned(&t.key) || removed.contains(t.key.as_str())).copied().filter(again);
    let again: Vec<_> = again.map(|t| t.id).collect();
    let mut moved = task_store::make_many(&mut *tx, &again, TaskMove::Retry, None, now).await?;
    let gone: Vec<_> = removed.iter().filter_map(|key| there.get(key)).map(|t| t.id).collect();
    let cancelled = task_store::make_many(&mut *tx, &gone, TaskMove::Cancel, None, now).await?;
    moved.retain(|t| !gone.contains(&t.id));
    moved.extend(cancelled);
    let mut ids: HashMap<&str, Uuid> = there.iter().map(|(key, t)| (*key, t.id)).collect();
    for task in plan.tasks.iter().filter(|t| !there.contains_key(t.key.as_str())) {
        ids.insert(&task.key, new_id());
    }
    let stays = current.iter().filter(|t| !is_planned(&t.key)).map(|t| t.position + 1).max().unwrap_or(0);
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for (task, position) in plan.tasks.iter().zip(stays..) {
        let placed = placed(goal, task, position, &ids)?;
        if there.contains_key(task.key.as_str()) { old.push(placed) } else { new.push(placed) }
    }
    // What is new first: others may come to depend on it.
    if !new.is_empty() {
        task_store::insert_many(&mut *tx, &new, now).await?;
    }
    let changed: HashSet<Uuid> = diff.changed.iter().filter_map(|key| ids.get(key.as_str()).copied()).collect();
    plans::rewrite(tx, &old, &changed, &again, now).await?;
    Ok(moved)
}

fn placed(goal: &Goal, task: &PlannedTask, position: i64, ids: &HashMap<&str, Uuid>) -> Result<NewTask> {
    let id = |key: &str| ids.get(key).copied().ok_or_else(|| Error::internal(format!("a checked plan names no task {key}")));
    Ok(NewTask {
        id: id(&task.key)?,
        owner: goal.owner.clone(),
        goal_id: Some(goal.id),
        parent_id: task.parent.as_deref().map(id).transpose()?,
        key: task.key.clone(),
        title: task.title.trim().to_owned(),
        description: task.description.clone(),
        status: TaskStatus::Pending,
        priority: task.priority,
        position,
        assignee: task.assignee.clone(),
        requires_approval: task.requires_approval,
        depends_on: task.depends_on.iter().map(|key| id(key)).collect::<Result<_>>()?,
        max_attempts: i64::from(goal.settings.task_attempts),
    })
}

/// A goal whose plan did not come is what it was before, and says why.
pub async fn plan_ended(tx: &mut Tx, after: &mut After, run: &Run, now: Timestamp) -> Result<()> {
    let owner = Owner::of_row(&run.owner);
    let Some(stored) = view::input(&mut *tx, &owner, run.id).await? else { return Ok(()) };
    let wanted: GoalPlan = serde_json::from_str(&stored.input)?;
    let Some(goal) = hold(&mut *tx, wanted.goal_id).await? else { return Ok(()) };
    if goal.status != GoalStatus::Planning || goal.plan_run_id != Some(run.id) {
        return Ok(());
    }
    let cancelled = || RunError::new("PLAN_CANCELLED", "its planning was cancelled", false);
    let error = run.error.clone().filter(|_| run.state == RunState::Failed).unwrap_or_else(cancelled);
    let before = goal.before.unwrap_or(GoalStatus::Draft);
    move_to(tx, after, &goal, before, Some(&error), now).await?;
    Ok(())
}
