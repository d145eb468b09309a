//! Making, changing and deleting tasks.
use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use super::{forbids, hold, not_found, settle};
use crate::{
    app::App,
    clock::Timestamp,
    config,
    domain::{
        caller::{Caller, Owner, Scope},
        goal::{Goal, Settings},
        new_id,
        task::{Assignee, Task, TaskStatus},
        task_graph,
    },
    error::{Error, FieldError, Result},
    services::{accounts, agents, goals, model_configs::Patch, runs::after::After},
    store::{
        db::Tx,
        tasks::{self as store, NewTask},
    },
};

const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 20_000;
const MAX_KEY: usize = 64;
const MAX_PRIORITY: i64 = 1_000_000;
const MAX_ATTEMPTS: i64 = 20;

/// A task as somebody wants it.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// The same again is the task that is there.
    pub id: Option<Uuid>,
    pub goal_id: Option<Uuid>,
    pub parent_id: Option<Uuid>,
    /// Unique in the goal; made when left out.
    pub key: Option<String>,
    pub title: String,
    pub description: String,
    pub priority: i64,
    pub assignee: Option<Assignee>,
    pub requires_approval: bool,
    pub depends_on: Vec<Uuid>,
    /// By default as the goal says.
    pub max_attempts: Option<i64>,
}

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The version that the caller has seen.
    pub version: Option<i64>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub priority: Option<i64>,
    pub assignee: Patch<Assignee>,
    pub requires_approval: Option<bool>,
    pub max_attempts: Option<i64>,
    pub depends_on: Option<Vec<Uuid>>,
    pub parent_id: Patch<Uuid>,
}

/// Every field that breaks a rule.
#[derive(Default)]
struct Bad(Vec<FieldError>);

impl Bad {
    fn unless(&mut self, ok: bool, field: &str, message: impl Into<String>) {
        if !ok {
            self.0.push(FieldError { field: field.into(), message: message.into() });
        }
    }

    fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid_fields(self.0)) }
    }
}

fn check_texts(bad: &mut Bad, title: &str, description: &str) {
    let is_line =
        (1..=MAX_TITLE).contains(&title.chars().count()) && !title.trim().is_empty() && !title.chars().any(char::is_control);
    bad.unless(is_line, "title", format!("1 to {MAX_TITLE} characters in one line"));
    let fits = description.chars().count() <= MAX_DESCRIPTION && !description.contains('\0');
    bad.unless(fits, "description", format!("at most {MAX_DESCRIPTION} characters"));
}

fn check_numbers(bad: &mut Bad, priority: i64, max_attempts: i64) {
    bad.unless((-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority), "priority", format!("-{MAX_PRIORITY} to {MAX_PRIORITY}"));
    bad.unless((1..=MAX_ATTEMPTS).contains(&max_attempts), "max_attempts", format!("1 to {MAX_ATTEMPTS}"));
}

/// # Errors
/// `AGENT_NOT_FOUND`, `USER_NOT_FOUND`.
async fn check_assignee(app: &App, owner: &Owner, assignee: Option<&Assignee>) -> Result<()> {
    match assignee {
        None => Ok(()),
        Some(Assignee::User(id)) if id == owner.as_str() => Ok(()),
        Some(Assignee::User(id)) => {
            let found = match Uuid::parse_str(id) {
                Ok(id) => accounts::profile(app, id).await?,
                Err(_) => None,
            };
            found.map(|_| ()).ok_or_else(|| Error::not_found("USER_NOT_FOUND", "no such user"))
        }
        Some(Assignee::Agent(id)) => match agents::runnable(app, owner, Some(id)).await {
            // It may run again by then.
            Err(e) if e.code == "AGENT_STOPPED" => Ok(()),
            outcome => outcome.map(|_| ()),
        },
    }
}

/// That a task can stand where it is put among the goal's tasks.
///
/// # Errors
/// `TASK_NOT_FOUND` for an id that is unknown or another's; `Invalid` for one of another goal, and where it would come to depend on itself
/// or stand below itself.
struct Place<'a> {
    tasks: &'a [Task],
    id: Uuid,
    parent_id: Option<Uuid>,
    depends_on: &'a [Uuid],
}

impl Place<'_> {
    async fn check(&self, tx: &mut Tx, owner: &Owner, limits: &config::Goals) -> Result<()> {
        let mut bad = Bad::default();
        let mut wanted: Vec<_> = self.depends_on.iter().enumerate().map(|(i, id)| (format!("depends_on.{i}"), *id)).collect();
        wanted.extend(self.parent_id.map(|id| ("parent_id".to_owned(), id)));
        for (field, id) in wanted {
            if self.tasks.iter().any(|t| t.id == id) {
                continue;
            }
            store::by_id(&mut *tx, owner, id).await?.ok_or_else(not_found)?;
            bad.unless(false, &field, "a task of another goal");
        }
        if let Some(way) = task_graph::cycle(self.tasks, self.id, self.depends_on) {
            let key = |id: &Uuid| self.tasks.iter().find(|t| t.id == *id).map_or_else(|| id.to_string(), |t| t.key.clone());
            let way: Vec<_> = std::iter::once(&self.id).chain(&way).map(key).collect();
            bad.unless(false, "depends_on", format!("it would depend on itself: {}", way.join(" → ")));
        }
        match task_graph::depth_under(self.tasks, self.id, self.parent_id) {
            None => bad.unless(false, "parent_id", "it would stand below itself"),
            Some(depth) => {
                bad.unless(depth <= limits.max_depth, "parent_id", format!("the tree may be {} deep at most", limits.max_depth));
            }
        }
        bad.finish()
    }
}

fn unique(ids: Vec<Uuid>) -> Vec<Uuid> {
    let mut seen = HashSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}

/// Adds a task, ready when what it depends on is done. One with an id that is there already is answered as it is.
///
/// # Errors
/// `Invalid` naming every bad field; `GOAL_NOT_FOUND`; `GOAL_STATE` when the goal has ended; `TASK_LIMIT`; `TASK_EXISTS` for its key.
pub async fn create(app: &App, caller: &Caller, new: New) -> Result<Task> {
    let owner = caller.can(Scope::Write)?;
    check_new(&new)?;
    check_assignee(app, owner, new.assignee.as_ref()).await?;
    let (id, now) = (new.id.unwrap_or_else(new_id), app.clock.now());
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = match new.goal_id {
        Some(goal_id) => Some(goals::hold_mine(&mut tx, owner, goal_id).await?),
        None => None,
    };
    if new.id.is_some()
        && let Some(found) = store::by_id(&mut tx, owner, id).await?
    {
        return Ok(found);
    }
    let siblings = match &goal {
        Some(goal) => open_board(app, &mut tx, goal).await?,
        None => Vec::new(),
    };
    let depends_on = unique(new.depends_on.clone());
    let place = Place { tasks: &siblings, id, parent_id: new.parent_id, depends_on: &depends_on };
    place.check(&mut tx, owner, &app.config.goals).await?;
    let row = row(owner, id, new, depends_on, goal.as_ref(), &siblings);
    store::insert_many(&mut tx, std::slice::from_ref(&row), now).await?;
    if let Some(goal) = &goal {
        let made = store::any_by_id(&mut tx, id).await?.ok_or_else(not_found)?;
        settle::settle_after(&mut tx, &mut after, goal, vec![made], now).await?;
    }
    let made = store::any_by_id(&mut tx, id).await?.ok_or_else(not_found)?;
    tx.commit().await?;
    after.apply(app);
    Ok(made)
}

fn check_new(new: &New) -> Result<()> {
    let mut bad = Bad::default();
    check_texts(&mut bad, &new.title, &new.description);
    check_numbers(&mut bad, new.priority, new.max_attempts.unwrap_or(1));
    let is_key =
        |key: &str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let fits = new.key.as_deref().is_none_or(is_key);
    bad.unless(fits, "key", format!("1 to {MAX_KEY} letters, digits, underscores, dots or hyphens"));
    if new.goal_id.is_none() {
        bad.unless(new.parent_id.is_none(), "parent_id", "a task without a goal has none");
        bad.unless(new.depends_on.is_empty(), "depends_on", "a task without a goal depends on nothing");
    }
    bad.finish()
}

/// The tasks of a goal that takes another.
async fn open_board(app: &App, tx: &mut Tx, goal: &Goal) -> Result<Vec<Task>> {
    if goal.status.is_ended() {
        return Err(Error::conflict("GOAL_STATE", format!("the goal is {}; it takes no more tasks", goal.status.as_str())));
    }
    let siblings = store::of_goal(tx, goal.id).await?;
    let most = app.config.goals.max_tasks;
    if siblings.iter().filter(|t| t.status != TaskStatus::Cancelled).count() >= most {
        return Err(Error::conflict("TASK_LIMIT", format!("a goal has {most} tasks at most")));
    }
    Ok(siblings)
}

fn row(owner: &Owner, id: Uuid, new: New, depends_on: Vec<Uuid>, goal: Option<&Goal>, siblings: &[Task]) -> NewTask {
    let default = Settings::default().task_attempts;
    let attempts = goal.map_or(default, |g| g.settings.task_attempts);
    NewTask {
        id,
        owner: owner.as_str().to_owned(),
        goal_id: new.goal_id,
        parent_id: new.parent_id,
        key: new.key.unwrap_or_else(|| free_key(siblings)),
        title: new.title,
        description: new.description,
        status: if depends_on.is_empty() { TaskStatus::Ready } else { TaskStatus::Pending },
        priority: new.priority,
        position: siblings.iter().map(|t| t.position).max().map_or(0, |last| last + 1),
        assignee: new.assignee,
        requires_approval: new.requires_approval,
        depends_on,
        max_attempts: new.max_attempts.unwrap_or(i64::from(attempts)),
    }
}

fn free_key(siblings: &[Task]) -> String {
    let taken: HashSet<_> = siblings.iter().map(|t| t.key.as_str()).collect();
    let keys = (siblings.len() + 1..).map(|n| format!("task-{n}"));
    keys.into_iter().find(|key| !taken.contains(key.as_str())).unwrap_or_default()
}

/// Changes what is given.
///
/// # Errors
/// `Invalid` naming every bad field; `VERSION_CONFLICT`; `TASK_STATE` when it is to depend on something else and runs or has ended.
pub async fn update(app: &App, caller: &Caller, id: Uuid, change: Change) -> Result<Task> {
    let owner = caller.can(Scope::Write)?;
    if let Patch::Set(assignee) = &change.assignee {
        check_assignee(app, owner, Some(assignee)).await?;
    }
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let (task, goal) = hold(&mut tx, owner, id).await?;
    let changed = || Error::conflict("VERSION_CONFLICT", "it was changed meanwhile; read it again");
    if change.version.is_some_and(|seen| seen != task.version) {
        return Err(changed());
    }
    let wanted = applied(&task, change)?;
    check_move(app, &mut tx, owner, &task, &wanted).await?;
    if !store::update(&mut tx, &wanted, now).await? {
        return Err(changed());
    }
    let rewired = wanted.depends_on != task.depends_on;
    if rewired {
        store::set_dependencies(&mut tx, id, &wanted.depends_on).await?;
    }
    let stored = store::any_by_id(&mut tx, id).await?.ok_or_else(not_found)?;
    let stored = match goal {
        Some(goal) => tell(&mut tx, &mut after, &goal, stored, rewired, now).await?,
        None => stored,
    };
    tx.commit().await?;
    after.apply(app);
    Ok(stored)
}

async fn tell(tx: &mut Tx, after: &mut After, goal: &Goal, task: Task, rewired: bool, now: Timestamp) -> Result<Task> {
    if !rewired {
        settle::changed(tx, after, goal, &[&task], now).await?;
        return Ok(task);
    }
    let id = task.id;
    settle::settled(tx, after, goal, vec![task], now).await?.remove(&id).ok_or_else(not_found)
}

/// The task with the change, or every field that cannot be.
fn applied(task: &Task, change: Change) -> Result<Task> {
    let mut wanted = task.clone();
    wanted.title = change.title.unwrap_or(wanted.title);
    wanted.description = change.description.unwrap_or(wanted.description);
    wanted.priority = change.priority.unwrap_or(wanted.priority);
    wanted.requires_approval = change.requires_approval.unwrap_or(wanted.requires_approval);
    wanted.max_attempts = change.max_attempts.unwrap_or(wanted.max_attempts);
    match change.assignee {
        Patch::Keep => {}
        Patch::Remove => wanted.assignee = None,
        Patch::Set(assignee) => wanted.assignee = Some(assignee),
    }
    match change.parent_id {
        Patch::Keep => {}
        Patch::Remove => wanted.parent_id = None,
        Patch::Set(parent) => wanted.parent_id = Some(parent),
    }
    if let Some(depends_on) = change.depends_on {
        wanted.depends_on = unique(depends_on);
        wanted.depends_on.sort_unstable();
    }
    let mut bad = Bad::default();
    check_texts(&mut bad, &wanted.title, &wanted.description);
    check_numbers(&mut bad, wanted.priority, wanted.max_attempts);
    if task.goal_id.is_none() {
        bad.unless(wanted.parent_id.is_none(), "parent_id", "a task without a goal has none");
        bad.unless(wanted.depends_on.is_empty(), "depends_on", "a task without a goal depends on nothing");
    }
    bad.finish()?;
    Ok(wanted)
}

async fn check_move(app: &App, tx: &mut Tx, owner: &Owner, task: &Task, wanted: &Task) -> Result<()> {
    let Some(goal_id) = task.goal_id else { return Ok(()) };
    if wanted.depends_on == task.depends_on && wanted.parent_id == task.parent_id {
        return Ok(());
    }
    if !matches!(task.status, TaskStatus::Pending | TaskStatus::Ready) {
        return Err(forbids(task.status, "only a pending or ready task can be put elsewhere"));
    }
    let tasks = store::of_goal(&mut *tx, goal_id).await?;
    let place = Place { tasks: &tasks, id: task.id, parent_id: wanted.parent_id, depends_on: &wanted.depends_on };
    place.check(tx, owner, &app.config.goals).await
}

/// # Errors
/// `TASK_NEEDED` when others depend on it or stand below it; `TASK_STATE` when somebody is at it.
pub async fn remove(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let (task, goal) = hold(&mut tx, owner, id).await?;
    if let Some(goal) = &goal {
        let all = store::of_goal(&mut tx, goal.id).await?;
        let needed = all.iter().find(|t| t.depends_on.contains(&id) || t.parent_id == Some(id));
        if let Some(other) = needed {
            let how = if other.parent_id == Some(id) { "stands below it" } else { "depends on it" };
            return Err(Error::conflict("TASK_NEEDED", format!("the task {} {how}", other.key)));
        }
    }
    if !store::delete(&mut tx, id).await? {
        return Err(forbids(task.status, "release or cancel it first"));
    }
    if let Some(goal) = &goal {
        let mut said = settle::event(&task);
        said.data["status"] = json!("deleted");
        settle::say(&mut tx, &mut after, goal, vec![said], now).await?;
        settle::settle(&mut tx, &mut after, goal, now).await?;
        goals::wake(&mut tx, &mut after, goal, now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    Ok(())
}
