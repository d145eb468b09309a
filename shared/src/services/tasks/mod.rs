//! Tasks: what people and agents do with them. `edit` makes, changes and deletes them, `act` moves them as their owner wants, `settle` is
//! what follows for a goal's tasks when one of them changes, `run` is what the run that executes a task does to it. Whatever changes the
//! tasks of a goal holds the goal's lock; a task by itself needs none.
mod act;
mod edit;
mod run;
mod settle;

use serde_json::Value;
use uuid::Uuid;

pub use act::{approve, cancel, claim, complete, fail, lapsed, reject, release, retry};
pub use edit::{Change, New, create, remove, update};
pub use run::{run_ended, start};
pub use settle::{changed, settle, settle_after};

use crate::{
    app::App,
    domain::{
        approval::ApprovalStatus,
        caller::{Caller, Owner, Scope},
        goal::Goal,
        page::{Listed, PageRequest},
        task::{Task, TaskStatus},
    },
    error::{Error, Result},
    services::goals,
    store::{approvals, db::Tx, goals as goal_store, tasks as store},
};

pub use crate::store::tasks::Filter;

const SORTS: [&str; 5] = ["title", "priority", "position", "created_at", "updated_at"];

pub(crate) fn not_found() -> Error {
    Error::not_found("TASK_NOT_FOUND", "no such task")
}

/// The refusal of what its state forbids; `wanted` says in which state it could be done.
fn forbids(status: TaskStatus, wanted: &str) -> Error {
    Error::conflict("TASK_STATE", format!("the task is {}; {wanted}", status.as_str()))
}

/// The owner's task, under the goal's lock where it has a goal, and that goal.
async fn hold(tx: &mut Tx, owner: &Owner, id: Uuid) -> Result<(Task, Option<Goal>)> {
    let task = store::by_id(&mut *tx, owner, id).await?.ok_or_else(not_found)?;
    let Some(goal_id) = task.goal_id else { return Ok((task, None)) };
    let goal = goals::hold(&mut *tx, goal_id).await?.ok_or_else(not_found)?;
    let task = store::by_id(tx, owner, id).await?.ok_or_else(not_found)?;
    Ok((task, Some(goal)))
}

/// The caller's tasks, by default the newest first.
///
/// # Errors
/// `Invalid` for a status or an order that there is none of.
pub async fn list(app: &App, caller: &Caller, filter: &Filter, page: &PageRequest) -> Result<Listed<Task>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&TaskStatus::ALL.map(TaskStatus::as_str), &SORTS)?;
    store::list(&app.db, owner, filter, page).await
}

pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Task> {
    store::by_id(&app.db, caller.can(Scope::Read)?, id).await?.ok_or_else(not_found)
}

async fn my_goal(app: &App, owner: &Owner, id: Uuid) -> Result<Goal> {
    goal_store::by_id(&app.db, owner, id).await?.ok_or_else(|| Error::not_found("GOAL_NOT_FOUND", "no such goal"))
}

/// What can be claimed now of a goal's tasks, the most urgent first.
///
/// # Errors
/// `GOAL_NOT_FOUND`; `Invalid` for a filter or an order: both are fixed.
pub async fn available(app: &App, caller: &Caller, goal_id: Uuid, page: &PageRequest) -> Result<Listed<Task>> {
    my_goal(app, caller.can(Scope::Read)?, goal_id).await?;
    page.check(&[], &[])?;
    store::available(&app.db, goal_id, page).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockerKind {
    /// A task that has to be completed first.
    Dependency,
    /// Somebody has to decide.
    Approval,
}

/// What keeps a task from going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub kind: BlockerKind,
    /// Of the task, or of the approval; a task that is to be approved itself names itself.
    pub id: Uuid,
    pub title: String,
    pub status: &'static str,
}

/// Unfinished dependencies, and decisions that are wanted: of the task when it is done, or before it is executed.
pub async fn blockers(app: &App, caller: &Caller, id: Uuid) -> Result<Vec<Blocker>> {
    let owner = caller.can(Scope::Read)?;
    let task = store::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    let mut found = Vec::new();
    let Some(goal_id) = task.goal_id else { return Ok(own_review(&task).into_iter().collect()) };
    if !task.depends_on.is_empty() && !task.status.is_ended() {
        let all = store::of_goal(&app.db, goal_id).await?;
        let open = all.into_iter().filter(|t| task.depends_on.contains(&t.id) && t.status != TaskStatus::Completed);
        found.extend(open.map(|t| Blocker {
            kind: BlockerKind::Dependency,
            id: t.id,
            title: t.title,
            status: t.status.as_str(),
        }));
    }
    found.extend(own_review(&task));
    let run = goal_store::by_id(&app.db, owner, goal_id).await?.and_then(|g| g.run_id);
    if let (Some(run), false) = (run, task.status.is_ended()) {
        let now = app.clock.now();
        let about = |subject: &Value| subject["taskId"].as_str().and_then(|id| id.parse().ok()) == Some(task.id);
        let asked = approvals::of_run(&app.db, run).await?.into_iter();
        let open = asked.filter(|a| a.status == ApprovalStatus::Pending && a.expires_at > now && about(&a.subject));
        found.extend(open.map(|a| Blocker { kind: BlockerKind::Approval, id: a.id, title: a.reason, status: "pending" }));
    }
    Ok(found)
}

fn own_review(task: &Task) -> Option<Blocker> {
    let wanted = || Blocker { kind: BlockerKind::Approval, id: task.id, title: task.title.clone(), status: "pending" };
    (task.status == TaskStatus::InReview).then(wanted)
}
