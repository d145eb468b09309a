//! Goals. Whoever changes one holds the head of its thread: see `services::goals::hold`.
use uuid::Uuid;

use super::db::{Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        goal::{Autonomy, Goal, GoalStatus, Progress},
        page::{Listed, PageRequest},
        run::RunError,
    },
    error::{Error, Result},
};

/// A goal and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub goal: Goal,
    pub progress: Progress,
}

fn status(text: &str) -> Result<GoalStatus> {
    GoalStatus::parse(text).ok_or_else(|| Error::internal(format!("a stored goal is {text}")))
}

impl FromRow for Goal {
    fn from_row(row: &Row) -> Result<Self> {
        let autonomy: String = row.get("autonomy")?;
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            thread_id: row.get("thread_id")?,
            title: row.get("title")?,
            description: row.get("description")?,
            status: status(&row.get::<String>("status")?)?,
            before: row.get::<Option<String>>("status_before")?.as_deref().map(status).transpose()?,
            agent_id: row.get("agent_id")?,
            autonomy: Autonomy::parse(&autonomy).ok_or_else(|| Error::internal(format!("a stored goal goes {autonomy}")))?,
            deadline: row.opt_time("deadline")?,
            settings: row.json("settings")?,
            plan_version: row.get("plan_version")?,
            plan_run_id: row.get("plan_run_id")?,
            run_id: row.get("run_id")?,
            error: row.opt_json("error")?,
            version: row.get("version")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
            started_at: row.opt_time("started_at")?,
            finished_at: row.opt_time("finished_at")?,
        })
    }
}

impl FromRow for Progress {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { done: row.get("done")?, total: row.get("total")? })
    }
}

impl FromRow for Standing {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { goal: Goal::from_row(row)?, progress: Progress::from_row(row)? })
    }
}

macro_rules! columns {
    () => {
        "id, owner, thread_id, title, description, status, status_before, agent_id, autonomy, deadline, settings, plan_version,
         plan_run_id, run_id, error, version, created_at, updated_at, started_at, finished_at"
    };
}
macro_rules! standing {
    () => {
        concat!(
            "SELECT ",
            columns!(),
            ", (SELECT COUNT(*) FROM tasks t WHERE t.goal_id = goals.id AND t.status = 'completed') AS done,
               (SELECT COUNT(*) FROM tasks t WHERE t.goal_id = goals.id AND t.status <> 'cancelled') AS total FROM goals "
        )
    };
}
macro_rules! listed {
    () => {
        "WHERE owner = $1 AND status = COALESCE($2, status)
         AND (LOWER(title) LIKE $3 ESCAPE '\\' OR LOWER(description) LIKE $3 ESCAPE '\\')"
    };
}

pub const INSERT: Sql = Sql::both(
    "INSERT INTO goals (id, owner, thread_id, title, description, status, agent_id, autonomy, deadline, settings, plan_version, version,
         created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, 'draft', $6, $7, $8, $9, 0, 1, $10, $10)",
);
pub const BY_ID: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM goals WHERE id = $1 AND owner = $2"));
/// For the engine's own moves, which have established whose it is.
pub const ANY_BY_ID: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM goals WHERE id = $1"));
pub const STANDING: Sql = Sql::both(concat!(standing!(), "WHERE id = $1 AND owner = $2"));
pub const PROGRESS: Sql = Sql::both(
    "SELECT COUNT(CASE WHEN status = 'completed' THEN 1 END) AS done, COUNT(CASE WHEN status <> 'cancelled' THEN 1 END) AS total
     FROM tasks WHERE goal_id = $1",
);
pub const COUNT: Sql = Sql::both(concat!("SELECT COUNT(*) AS n FROM goals ", listed!()));
pub const LIST: Sql = Sql::both(concat!(
    standing!(),
    listed!(),
    " ORDER BY CASE WHEN $4 = 'title' THEN LOWER(title) END, CASE WHEN $4 = '-title' THEN LOWER(title) END DESC,
         CASE $4 WHEN 'created_at' THEN created_at WHEN 'updated_at' THEN updated_at WHEN 'deadline' THEN deadline END,
         CASE $4 WHEN '-created_at' THEN created_at WHEN '-updated_at' THEN updated_at WHEN '-deadline' THEN deadline END DESC, id DESC
      LIMIT $5 OFFSET $6"
));
/// A compare-and-set on the version that was read.
pub const UPDATE: Sql = Sql::both(
    "UPDATE goals SET title = $4, description = $5, agent_id = $6, autonomy = $7, deadline = $8, settings = $9, version = version + 1,
         updated_at = $10 WHERE id = $1 AND owner = $2 AND version = $3 RETURNING id",
);
/// What it was is kept while it is planned.
pub const SET_STATUS: Sql = Sql::each(
    concat!(
        "UPDATE goals SET status = $3, error = $4, updated_at = $5,
             status_before = CASE WHEN $3 <> 'planning' THEN NULL WHEN status = 'planning' THEN status_before ELSE status END,
             started_at = CASE WHEN $3 = 'active' THEN COALESCE(started_at, $5) ELSE started_at END,
             finished_at = CASE WHEN $3 IN ('completed', 'failed', 'cancelled') THEN CAST($5 AS BIGINT) END
         WHERE id = $1 AND status IN (SELECT j.status FROM json_array_elements_text($2::json) AS j (status)) RETURNING ",
        columns!()
    ),
    concat!(
        "UPDATE goals SET status = $3, error = $4, updated_at = $5,
             status_before = CASE WHEN $3 <> 'planning' THEN NULL WHEN status = 'planning' THEN status_before ELSE status END,
             started_at = CASE WHEN $3 = 'active' THEN COALESCE(started_at, $5) ELSE started_at END,
             finished_at = CASE WHEN $3 IN ('completed', 'failed', 'cancelled') THEN $5 END
         WHERE id = $1 AND status IN (SELECT j.value FROM json_each($2) AS j) RETURNING ",
        columns!()
    ),
);
pub const SET_RUN: Sql = Sql::both("UPDATE goals SET run_id = $2 WHERE id = $1");
pub const SET_PLANNER: Sql = Sql::both("UPDATE goals SET plan_run_id = $2 WHERE id = $1");
/// A compare-and-set on the plan that the new one is made from.
pub const SET_PLAN: Sql = Sql::both(concat!(
    "UPDATE goals SET plan_version = plan_version + 1, plan_run_id = $3, updated_at = $4 WHERE id = $1 AND plan_version = $2 RETURNING ",
    columns!()
));
/// Not while somebody is at one of its tasks.
pub const DELETE: Sql = Sql::both(
    "DELETE FROM goals WHERE id = $1 AND owner = $2
         AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.goal_id = $1 AND t.status IN ('claimed', 'running')) RETURNING id",
);
pub const STATEMENTS: &[Sql] =
    &[INSERT, BY_ID, ANY_BY_ID, STANDING, PROGRESS, COUNT, LIST, UPDATE, SET_STATUS, SET_RUN, SET_PLANNER, SET_PLAN, DELETE];

/// Stores a draft: of its state and its plan, what a new goal has.
pub async fn insert(tx: &mut Tx, goal: &Goal) -> Result<()> {
    let statement = query(INSERT).bind(goal.id).bind(&goal.owner).bind(goal.thread_id).bind(&goal.title).bind(&goal.description);
    let statement = statement.bind(goal.agent_id.clone()).bind(goal.autonomy.as_str()).bind(goal.deadline);
    statement.bind_json(&goal.settings)?.bind(goal.created_at).execute(tx).await?;
    Ok(())
}

pub async fn by_id<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid) -> Result<Option<Goal>> {
    query(BY_ID).bind(id).bind(owner.as_str()).optional_as(on).await
}

pub async fn any_by_id<'a>(on: impl Into<On<'a>>, id: Uuid) -> Result<Option<Goal>> {
    query(ANY_BY_ID).bind(id).optional_as(on).await
}

pub async fn standing<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid) -> Result<Option<Standing>> {
    query(STANDING).bind(id).bind(owner.as_str()).optional_as(on).await
}

pub async fn progress<'a>(on: impl Into<On<'a>>, id: Uuid) -> Result<Progress> {
    Progress::from_row(&query(PROGRESS).bind(id).one(on).await?)
}

/// Newest first when no order is asked for.
pub async fn list(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<Standing>> {
    let of = |sql: Sql| query(sql).bind(owner.as_str()).bind(page.status.clone()).bind(page.pattern());
    let total = of(COUNT).one(db).await?.get("n")?;
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    Ok(Listed { items: of(LIST).bind(sort).bind(page.size).bind(page.offset()).all(db).await?, total })
}

/// What its owner may change; `goal.version` is the one that was read. `false`: it was changed or deleted meanwhile.
pub async fn update(tx: &mut Tx, goal: &Goal, now: Timestamp) -> Result<bool> {
    let statement = query(UPDATE).bind(goal.id).bind(&goal.owner).bind(goal.version).bind(&goal.title).bind(&goal.description);
    let statement = statement.bind(goal.agent_id.clone()).bind(goal.autonomy.as_str()).bind(goal.deadline);
    Ok(statement.bind_json(&goal.settings)?.bind(now).optional(tx).await?.is_some())
}

/// A compare-and-set: `None` when it is in none of the states `from`.
pub async fn set_status(
    tx: &mut Tx,
    id: Uuid,
    from: &[GoalStatus],
    to: GoalStatus,
    error: Option<&RunError>,
    now: Timestamp,
) -> Result<Option<Goal>> {
    let from: Vec<_> = from.iter().map(|s| s.as_str()).collect();
    let error = error.map(serde_json::to_string).transpose()?;
    query(SET_STATUS).bind(id).bind_json(&from)?.bind(to.as_str()).bind(error).bind(now).optional_as(tx).await
}

/// The run that executes it.
pub async fn set_run(tx: &mut Tx, id: Uuid, run: Option<Uuid>) -> Result<()> {
    query(SET_RUN).bind(id).bind(run).execute(tx).await?;
    Ok(())
}

/// The run that is about to plan it.
pub async fn set_planner(tx: &mut Tx, id: Uuid, run: Uuid) -> Result<()> {
    query(SET_PLANNER).bind(id).bind(run).execute(tx).await?;
    Ok(())
}

/// Counts a plan that `run` has made; `None` when there is a newer one than `version` already.
pub async fn set_plan(tx: &mut Tx, id: Uuid, version: i64, run: Uuid, now: Timestamp) -> Result<Option<Goal>> {
    query(SET_PLAN).bind(id).bind(version).bind(run).bind(now).optional_as(tx).await
}

/// With its tasks. `false`: it is gone already, or somebody is at one of them.
pub async fn delete(tx: &mut Tx, owner: &Owner, id: Uuid) -> Result<bool> {
    Ok(query(DELETE).bind(id).bind(owner.as_str()).optional(tx).await?.is_some())
}
