//! Tasks and what they depend on. `moves` makes the transitions of `domain::task`, each a compare-and-set.
mod moves;

use serde_json::json;
use uuid::Uuid;

use super::db::{Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        page::{Listed, PageRequest},
        task::{Assignee, Task, TaskStatus},
    },
    error::{Error, Result},
};

pub use moves::{Change, Lapsed, add_usage, lapsed, make, make_many, release_lapsed};

impl FromRow for Task {
    fn from_row(row: &Row) -> Result<Self> {
        let status: String = row.get("status")?;
        let kind: Option<String> = row.get("assignee_kind")?;
        let assignee = kind.zip(row.get::<Option<String>>("assignee_id")?);
        let assignee = assignee.map(|(kind, id)| {
            Assignee::of(&kind, id).ok_or_else(|| Error::internal(format!("a stored task has an assignee that is a {kind}")))
        });
        let mut depends_on: Vec<Uuid> = row.json("depends_on")?;
        depends_on.sort_unstable();
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            goal_id: row.get("goal_id")?,
            parent_id: row.get("parent_id")?,
            key: row.get("key")?,
            title: row.get("title")?,
            description: row.get("description")?,
            status: TaskStatus::parse(&status)
                .ok_or_else(|| Error::internal(format!("a stored task has the status {status}")))?,
            priority: row.get("priority")?,
            position: row.get("position")?,
            assignee: assignee.transpose()?,
            requires_approval: row.get("requires_approval")?,
            depends_on,
            result: row.opt_json("result")?,
            error: row.opt_json("error")?,
            attempt: row.get("attempt")?,
            max_attempts: row.get("max_attempts")?,
            claimed_by: row.get("claimed_by")?,
            claim_expires_at: row.opt_time("claim_expires_at")?,
            run_id: row.get("run_id")?,
            usage: row.json("usage")?,
            version: row.get("version")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
            started_at: row.opt_time("started_at")?,
            finished_at: row.opt_time("finished_at")?,
        })
    }
}

/// A task with the ids of those that it depends on, as JSON.
macro_rules! columns {
    (postgres) => {
        columns!("(SELECT COALESCE(json_agg(d.depends_on), '[]')::text FROM task_dependencies d WHERE d.task_id = tasks.id)")
    };
    (sqlite) => {
        columns!("(SELECT json_group_array(lower(hex(d.depends_on))) FROM task_dependencies d WHERE d.task_id = tasks.id)")
    };
    ($depends_on:literal) => {
        concat!(
            "id, owner, goal_id, parent_id, key, title, description, status, priority, position, assignee_kind, assignee_id,
             requires_approval, ",
            $depends_on,
            " AS depends_on, result, error, attempt, max_attempts, claimed_by, claim_expires_at, run_id, usage, version, created_at,
             updated_at, started_at, finished_at"
        )
    };
}
macro_rules! select {
    ($rest:expr) => {
        Sql::each(
            concat!("SELECT ", columns!(postgres), " FROM tasks WHERE ", $rest),
            concat!("SELECT ", columns!(sqlite), " FROM tasks WHERE ", $rest),
        )
    };
}
pub(super) use columns;

/// $1 is whose, then goal, status and assignee, each skipped when it is NULL, and what is searched for.
macro_rules! filtered {
    () => {
        "owner = $1 AND (CAST($2 AS UUID) IS NULL OR goal_id = $2) AND (CAST($3 AS TEXT) IS NULL OR status = $3)
           AND (CAST($4 AS TEXT) IS NULL OR assignee_id = $4)
           AND (LOWER(title) LIKE $5 ESCAPE '\\' OR LOWER(description) LIKE $5 ESCAPE '\\')"
    };
}

pub const BY_ID: Sql = select!("id = $1 AND owner = $2");
/// For the engine's own moves, which have established whose it is.
pub const ANY_BY_ID: Sql = select!("id = $1");
pub const OF_GOAL: Sql = select!("goal_id = $1 ORDER BY position, id");
/// What anybody may take now, the most urgent first.
pub const AVAILABLE: Sql = select!("goal_id = $1 AND status = 'ready' ORDER BY priority DESC, position, id LIMIT $2 OFFSET $3");
pub const COUNT_AVAILABLE: Sql = Sql::both("SELECT COUNT(*) AS n FROM tasks WHERE goal_id = $1 AND status = 'ready'");
pub const LIST: Sql = select!(concat!(
    filtered!(),
    " ORDER BY CASE $6 WHEN 'title' THEN LOWER(title) END, CASE $6 WHEN '-title' THEN LOWER(title) END DESC,
         CASE $6 WHEN 'priority' THEN priority WHEN 'position' THEN position WHEN 'created_at' THEN created_at
             WHEN 'updated_at' THEN updated_at END,
         CASE $6 WHEN '-priority' THEN priority WHEN '-position' THEN position WHEN '-created_at' THEN created_at
             WHEN '-updated_at' THEN updated_at END DESC, id DESC
     LIMIT $7 OFFSET $8"
));
pub const COUNT: Sql = Sql::both(concat!("SELECT COUNT(*) AS n FROM tasks WHERE ", filtered!()));
pub const INSERT_MANY: Sql = Sql::each(
    "INSERT INTO tasks (id, owner, goal_id, parent_id, key, title, description, status, priority, position, assignee_kind, assignee_id,
         requires_approval, attempt, max_attempts, usage, version, created_at, updated_at)
     SELECT id, owner, goal_id, parent_id, key, title, description, status, priority, position, assignee_kind, assignee_id,
         requires_approval, 0, max_attempts, '{}', 1, $2, $2
     FROM json_to_recordset($1::json) AS t (id UUID, owner TEXT, goal_id UUID, parent_id UUID, key TEXT, title TEXT, description TEXT,
         status TEXT, priority BIGINT, position BIGINT, assignee_kind TEXT, assignee_id TEXT, requires_approval BOOLEAN,
         max_attempts BIGINT)",
    "INSERT INTO tasks (id, owner, goal_id, parent_id, key, title, description, status, priority, position, assignee_kind, assignee_id,
         requires_approval, attempt, max_attempts, usage, version, created_at, updated_at)
     SELECT unhex(t.value ->> 'id'), t.value ->> 'owner', unhex(t.value ->> 'goal_id'), unhex(t.value ->> 'parent_id'),
         t.value ->> 'key', t.value ->> 'title', t.value ->> 'description', t.value ->> 'status', t.value ->> 'priority',
         t.value ->> 'position', t.value ->> 'assignee_kind', t.value ->> 'assignee_id', t.value ->> 'requires_approval', 0,
         t.value ->> 'max_attempts', '{}', 1, $2, $2 FROM json_each($1) AS t",
);
pub const DEPEND: Sql = Sql::each(
    "INSERT INTO task_dependencies (task_id, depends_on)
     SELECT task_id, depends_on FROM json_to_recordset($1::json) AS d (task_id UUID, depends_on UUID)
     ON CONFLICT (task_id, depends_on) DO NOTHING",
    "INSERT INTO task_dependencies (task_id, depends_on)
     SELECT unhex(d.value ->> 'task_id'), unhex(d.value ->> 'depends_on') FROM json_each($1) AS d WHERE TRUE
     ON CONFLICT (task_id, depends_on) DO NOTHING",
);
pub const FORGET_DEPENDENCIES: Sql = Sql::both("DELETE FROM task_dependencies WHERE task_id = $1");
/// A compare-and-set on the version that was read.
pub const UPDATE: Sql = Sql::both(
    "UPDATE tasks SET title = $3, description = $4, priority = $5, assignee_kind = $6, assignee_id = $7, requires_approval = $8,
         max_attempts = $9, parent_id = $10, position = $11, version = version + 1, updated_at = $12
     WHERE id = $1 AND version = $2 RETURNING id",
);
pub const DELETE: Sql = Sql::both("DELETE FROM tasks WHERE id = $1 AND status NOT IN ('claimed', 'running') RETURNING id");
const STATEMENTS: &[Sql] = &[
    BY_ID,
    ANY_BY_ID,
    OF_GOAL,
    AVAILABLE,
    COUNT_AVAILABLE,
    LIST,
    COUNT,
    INSERT_MANY,
    DEPEND,
    FORGET_DEPENDENCIES,
    UPDATE,
    DELETE,
];

/// Registered statements of the files.
pub fn statements() -> Vec<Sql> {
    [STATEMENTS, moves::STATEMENTS].concat()
}

/// One that is about to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    pub id: Uuid,
    pub owner: String,
    pub goal_id: Option<Uuid>,
    pub parent_id: Option<Uuid>,
    /// Unique in its goal.
    pub key: String,
    pub title: String,
    pub description: String,
    /// Pending, or ready where it depends on nothing; `services::tasks::settle` does the rest.
    pub status: TaskStatus,
    pub priority: i64,
    pub position: i64,
    pub assignee: Option<Assignee>,
    pub requires_approval: bool,
    pub depends_on: Vec<Uuid>,
    pub max_attempts: i64,
}

/// Which of an owner's tasks a list has; each is skipped when it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub goal_id: Option<Uuid>,
    /// The id of an agent or a user.
    pub assignee: Option<String>,
}

pub async fn by_id<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid) -> Result<Option<Task>> {
    query(BY_ID).bind(id).bind(owner.as_str()).optional_as(on).await
}

pub async fn any_by_id<'a>(on: impl Into<On<'a>>, id: Uuid) -> Result<Option<Task>> {
    query(ANY_BY_ID).bind(id).optional_as(on).await
}

/// All of them, in the order of the plan.
pub async fn of_goal<'a>(on: impl Into<On<'a>>, goal_id: Uuid) -> Result<Vec<Task>> {
    query(OF_GOAL).bind(goal_id).all(on).await
}

pub async fn available(db: &Db, goal_id: Uuid, page: &PageRequest) -> Result<Listed<Task>> {
    let items = query(AVAILABLE).bind(goal_id).bind(page.size).bind(page.offset()).all(db).await?;
    Ok(Listed { items, total: query(COUNT_AVAILABLE).bind(goal_id).one(db).await?.get("n")? })
}

/// By default the newest first.
pub async fn list(db: &Db, owner: &Owner, filter: &Filter, page: &PageRequest) -> Result<Listed<Task>> {
    let filtered = |sql| {
        let statement = query(sql).bind(owner.as_str()).bind(filter.goal_id).bind(page.status.clone());
        statement.bind(filter.assignee.clone()).bind(page.pattern())
    };
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    let items = filtered(LIST).bind(sort).bind(page.size).bind(page.offset()).all(db).await?;
    Ok(Listed { items, total: filtered(COUNT).one(db).await?.get("n")? })
}

/// # Errors
/// `TASK_EXISTS` when the goal has a task with one of the keys.
pub async fn insert_many(tx: &mut Tx, new: &[NewTask], now: Timestamp) -> Result<()> {
    let row = |t: &NewTask| {
        json!({
            "id": t.id.simple(), "owner": t.owner, "goal_id": t.goal_id.map(Uuid::simple), "parent_id": t.parent_id.map(Uuid::simple), "key": t.key,
            "title": t.title, "description": t.description, "status": t.status.as_str(), "priority": t.priority,
            "position": t.position, "assignee_kind": t.assignee.as_ref().map(Assignee::kind),
            "assignee_id": t.assignee.as_ref().map(Assignee::id), "requires_approval": t.requires_approval,
            "max_attempts": t.max_attempts,
        })
    };
    let rows: Vec<_> = new.iter().map(row).collect();
    let taken = |e: Error| match e.code {
        "DUPLICATE" => Error::exists("TASK_EXISTS", "the goal has a task with this key; give it another"),
        _ => e,
    };
    query(INSERT_MANY).bind_json(&rows)?.bind(now).execute(tx).await.map_err(taken)?;
    let pairs = new.iter().flat_map(|t| t.depends_on.iter().map(|on| (t.id, *on))).collect::<Vec<_>>();
    depend(tx, &pairs).await
}

/// The first of each pair depends on the second.
pub(super) async fn depend(tx: &mut Tx, pairs: &[(Uuid, Uuid)]) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let row = |(task, on): &(Uuid, Uuid)| json!({ "task_id": task.simple(), "depends_on": on.simple() });
    query(DEPEND).bind_json(&pairs.iter().map(row).collect::<Vec<_>>())?.execute(tx).await?;
    Ok(())
}

/// In place of what the task depended on before.
pub async fn set_dependencies(tx: &mut Tx, id: Uuid, depends_on: &[Uuid]) -> Result<()> {
    query(FORGET_DEPENDENCIES).bind(id).execute(&mut *tx).await?;
    depend(tx, &depends_on.iter().map(|on| (id, *on)).collect::<Vec<_>>()).await
}

/// What a plan or an owner may write: title, description, priority, assignee, `requires_approval`, `max_attempts`, parent and position.
/// `false`: it was changed since `task` was read.
pub async fn update(tx: &mut Tx, task: &Task, now: Timestamp) -> Result<bool> {
    let statement = query(UPDATE)
        .bind(task.id)
        .bind(task.version)
        .bind(&task.title)
        .bind(&task.description)
        .bind(task.priority)
        .bind(task.assignee.as_ref().map(|a| a.kind().to_owned()))
        .bind(task.assignee.as_ref().map(|a| a.id().to_owned()))
        .bind(task.requires_approval)
        .bind(task.max_attempts)
        .bind(task.parent_id)
        .bind(task.position)
        .bind(now);
    Ok(statement.optional(tx).await?.is_some())
}

/// `false`: it is gone already, or somebody is at it.
pub async fn delete(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(query(DELETE).bind(id).optional(tx).await?.is_some())
}
