//! Goals: what their owners do with them. `hold` is the lock under which they and the readiness of their tasks change, `planning` how
//! they get their tasks, `execute` how they get their run, and `drive` what that does.
pub mod drive;
mod execute;
mod hold;
mod planning;

use uuid::Uuid;

use self::hold::{not_found, tell};
pub use self::{
    execute::{Executed, Fire, begin_run, execute_as, execute_async},
    hold::{forbids, hold, hold_mine, move_to, source, wake},
    planning::{Stored, decompose, limits, open_planning, plan_ended, replan, store_plan},
};
pub use crate::store::goals::Standing;
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        agent::Status,
        caller::{Caller, Owner, Scope},
        goal::{Goal, GoalStatus, NewGoal, thread_name},
        new_id,
        page::{Listed, PageRequest},
        run::RunError,
        run_input::RunOptions,
        task::{GOAL_ENDED, Task, TaskMove, TaskStatus},
    },
    error::{Error, FieldError, Result},
    services::{
        agents,
        chat::{self, Message},
        runs::{accept::Accepted, after::After},
        tasks,
    },
    store::{agents as agent_store, db::Tx, goals as store, outbox::NoticeKind, runs::view, tasks as task_store, threads},
};

/// More do not help a planner.
const MAX_ASSIGNABLE: i64 = 30;
const SORTS: [&str; 4] = ["title", "created_at", "updated_at", "deadline"];

/// A goal and all its tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    pub goal: Goal,
    /// In the order of the plan.
    pub tasks: Vec<Task>,
}

/// Newest first when no order is asked for.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Standing>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&GoalStatus::ALL.map(GoalStatus::as_str), &SORTS)?;
    store::list(&app.db, owner, page).await
}

/// # Errors
/// `GOAL_NOT_FOUND` when it is unknown or another's.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Standing> {
    standing(app, caller.can(Scope::Read)?, id).await
}

async fn standing(app: &App, owner: &Owner, id: Uuid) -> Result<Standing> {
    store::standing(&app.db, owner, id).await?.ok_or_else(not_found)
}

/// The goal and its tasks, for its owner and for agents that work for them.
///
/// # Errors
/// `GOAL_NOT_FOUND` when it is unknown or another's.
pub async fn board(app: &App, owner: &Owner, id: Uuid) -> Result<Board> {
    let goal = store::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    Ok(Board { tasks: task_store::of_goal(&app.db, id).await?, goal })
}

/// An agent that a task can be given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignable {
    pub id: String,
    pub name: String,
    pub description: String,
}

/// The agents that planners are told of: the latest that `owner` may run.
pub async fn assignable(app: &App, owner: &Owner) -> Result<Vec<Assignable>> {
    let page = PageRequest { number: 1, size: MAX_ASSIGNABLE, search: None, status: None, sort: Some("-updated_at".to_owned()) };
    let found = agent_store::list(&app.db, owner, &page).await?.items.into_iter().filter(|a| a.status != Status::Stopped);
    Ok(found.map(|a| Assignable { id: a.id.to_string(), name: a.name, description: a.description }).collect())
}

/// All tasks of a goal, in the order of its plan.
///
/// # Errors
/// `GOAL_NOT_FOUND` when it is unknown or another's.
pub async fn tree(app: &App, caller: &Caller, id: Uuid) -> Result<Vec<Task>> {
    Ok(board(app, caller.can(Scope::Read)?, id).await?.tasks)
}

/// Stores a draft.
///
/// # Errors
/// `Invalid` naming every bad field; `AGENT_NOT_FOUND`.
pub async fn create(app: &App, caller: &Caller, new: NewGoal) -> Result<Standing> {
    create_as(app, caller.can(Scope::Write)?, new_id(), new).await
}

/// As `create`, under an id that follows from who asks for it: the same again answers what is there.
pub async fn create_as(app: &App, owner: &Owner, id: Uuid, new: NewGoal) -> Result<Standing> {
    let now = app.clock.now();
    let mut bad = new.faults(app.config.goals.max_parallel);
    bad.extend(past(new.deadline, now));
    check(app, owner, &new, bad).await?;
    let mut tx = app.db.begin().await?;
    // Its lock first: of two equal requests at once, the second finds the first.
    let thread_id = threads::ensure(&mut tx, new_id(), owner, &thread_name(id), false, now).await?;
    if store::by_id(&mut tx, owner, id).await?.is_none() {
        store::insert(&mut tx, &draft(owner, id, thread_id, new, now)).await?;
        tx.commit().await?;
    }
    standing(app, owner, id).await
}

fn draft(owner: &Owner, id: Uuid, thread_id: Uuid, new: NewGoal, now: Timestamp) -> Goal {
    Goal {
        id,
        owner: owner.as_str().to_owned(),
        thread_id,
        title: new.title.trim().to_owned(),
        description: new.description,
        status: GoalStatus::Draft,
        before: None,
        agent_id: new.agent_id,
        autonomy: new.autonomy,
        deadline: new.deadline,
        settings: new.settings,
        plan_version: 0,
        plan_run_id: None,
        run_id: None,
        error: None,
        version: 1,
        created_at: now,
        updated_at: now,
        started_at: None,
        finished_at: None,
    }
}

fn past(deadline: Option<Timestamp>, now: Timestamp) -> Option<FieldError> {
    let is_past = deadline.is_some_and(|deadline| deadline <= now);
    is_past.then(|| FieldError { field: "deadline".to_owned(), message: "is in the past".to_owned() })
}

/// Bad fields go first; then the agent has to be one that `owner` may run. One that is stopped may be deployed again.
async fn check(app: &App, owner: &Owner, new: &NewGoal, bad: Vec<FieldError>) -> Result<()> {
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    match &new.agent_id {
        Some(id) => match agents::runnable(app, owner, Some(id)).await {
            Err(e) if e.code != "AGENT_STOPPED" => Err(e),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// Replaces what its owner writes, when `version` is the one in force.
///
/// # Errors
/// `GOAL_NOT_FOUND`, `VERSION_CONFLICT`, and those of `create`.
pub async fn update(app: &App, caller: &Caller, id: Uuid, version: i64, new: NewGoal) -> Result<Standing> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let current = store::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    let mut bad = new.faults(app.config.goals.max_parallel);
    bad.extend(past(new.deadline.filter(|d| Some(*d) != current.deadline), now));
    check(app, owner, &new, bad).await?;
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    let NewGoal { title, description, agent_id, autonomy, deadline, settings } = new;
    let goal = Goal { title: title.trim().to_owned(), description, agent_id, autonomy, deadline, settings, version, ..goal };
    if !store::update(&mut tx, &goal, now).await? {
        return Err(Error::conflict("VERSION_CONFLICT", "somebody has changed it meanwhile: read it again"));
    }
    // Its run has to heed a new deadline, and how many tasks may run at once.
    tell(&mut tx, &mut after, &goal, now).await?;
    tx.commit().await?;
    after.apply(app);
    standing(app, owner, id).await
}

/// With its tasks; its runs are kept.
///
/// # Errors
/// `GOAL_NOT_FOUND`; `GOAL_ACTIVE` while anybody works on it.
pub async fn delete(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    let rests = match goal.status {
        GoalStatus::Draft | GoalStatus::Completed | GoalStatus::Failed | GoalStatus::Cancelled => true,
        GoalStatus::Paused => !is_executed(&mut tx, &goal).await?,
        GoalStatus::Planning | GoalStatus::Active => false,
    };
    if !rests || !store::delete(&mut tx, owner, id).await? {
        let message = format!("the goal is {}, or somebody is at one of its tasks: cancel it first", goal.status.as_str());
        return Err(Error::conflict("GOAL_ACTIVE", message));
    }
    tx.commit().await
}

/// Whether it has a run that has not ended.
async fn is_executed(tx: &mut Tx, goal: &Goal) -> Result<bool> {
    let Some(run) = goal.run_id else { return Ok(false) };
    Ok(view::any_by_id(tx, run).await?.is_some_and(|run| !run.state.is_ended()))
}

/// Makes it active; without tasks it is planned first.
///
/// # Errors
/// `GOAL_NOT_FOUND`, `GOAL_STATE`.
pub async fn start(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Standing> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    if !matches!(goal.status, GoalStatus::Draft | GoalStatus::Failed) {
        return Err(forbids(goal.status, "to start it"));
    }
    if store::progress(&mut tx, id).await?.total == 0 {
        let asked = planning::Asked { activate: true, instructions: None, trace };
        planning::ask(app, &mut tx, &mut after, &goal, asked, now).await?;
    } else {
        move_to(&mut tx, &mut after, &goal, GoalStatus::Active, None, now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    standing(app, owner, id).await
}

/// Running tasks end, none is started.
///
/// # Errors
/// `GOAL_NOT_FOUND`, `GOAL_STATE`.
pub async fn pause(app: &App, caller: &Caller, id: Uuid) -> Result<Standing> {
    change(app, caller, id, GoalStatus::Active, GoalStatus::Paused, "to pause it").await
}

/// # Errors
/// `GOAL_NOT_FOUND`, `GOAL_STATE`.
pub async fn resume(app: &App, caller: &Caller, id: Uuid) -> Result<Standing> {
    change(app, caller, id, GoalStatus::Paused, GoalStatus::Active, "to resume it").await
}

async fn change(app: &App, caller: &Caller, id: Uuid, from: GoalStatus, to: GoalStatus, wanted: &str) -> Result<Standing> {
    let owner = caller.can(Scope::Write)?;
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    if goal.status != from {
        return Err(forbids(goal.status, wanted));
    }
    move_to(&mut tx, &mut after, &goal, to, None, app.clock.now()).await?;
    tx.commit().await?;
    after.apply(app);
    standing(app, owner, id).await
}

/// Ends it: tasks that have not ended are cancelled, and so are the runs that work on it.
///
/// # Errors
/// `GOAL_NOT_FOUND`; `GOAL_STATE` when it has ended.
pub async fn cancel(app: &App, caller: &Caller, id: Uuid) -> Result<Standing> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = hold_mine(&mut tx, owner, id).await?;
    if goal.status.is_ended() {
        return Err(forbids(goal.status, "to cancel it"));
    }
    let planner = goal.plan_run_id.filter(|_| goal.status == GoalStatus::Planning);
    after.tell(&mut tx, planner.into_iter().chain(goal.run_id), NoticeKind::Cancel, "its goal was cancelled", now).await?;
    cancel_tasks(&mut tx, &mut after, &goal, now).await?;
    move_to(&mut tx, &mut after, &goal, GoalStatus::Cancelled, None, now).await?;
    tx.commit().await?;
    after.apply(app);
    standing(app, owner, id).await
}

/// Cancels what has not ended of a goal that is held and about to end, and the runs of it.
pub async fn cancel_tasks(tx: &mut Tx, after: &mut After, goal: &Goal, now: Timestamp) -> Result<()> {
    let open: Vec<_> = task_store::of_goal(&mut *tx, goal.id).await?.into_iter().filter(|t| !t.status.is_ended()).collect();
    let ids: Vec<_> = open.iter().map(|t| t.id).collect();
    let why = RunError::new(GOAL_ENDED, "its goal has ended", false);
    let cancelled = task_store::make_many(&mut *tx, &ids, TaskMove::Cancel, Some(&why), now).await?;
    let runs = open.iter().filter(|t| t.status == TaskStatus::Running).filter_map(|t| t.run_id);
    after.tell(tx, runs, NoticeKind::Cancel, "its task was cancelled", now).await?;
    tasks::changed(tx, after, goal, &cancelled.iter().collect::<Vec<_>>(), now).await
}

/// Says something to the goal's agent about the goal: a run that is told of its tasks and has tools to change them. Its session is its
/// own when none is named: the goal's thread is its run's.
///
/// # Errors
/// `GOAL_NOT_FOUND`, and those of `chat::say`.
pub async fn interact(
    app: &App,
    caller: &Caller,
    id: Uuid,
    text: String,
    session: Option<String>,
    trace: Option<String>,
) -> Result<Accepted> {
    let goal = get(app, caller, id).await?.goal;
    let session = session.unwrap_or_else(|| format!("{}-chat", thread_name(id)));
    let options = RunOptions { goal_id: Some(id), ..RunOptions::default() };
    chat::say_about(app, caller, goal.agent_id.as_deref(), Message { text, session, trace, watcher: None }, options).await
}
