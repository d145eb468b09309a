//! Reading runs. Everything that serves a caller names the owner.
use uuid::Uuid;

use super::super::db::{Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        run::{Run, RunState, RunUsage},
    },
    error::Result,
};

/// What a `Run` is read from: of `runs r` and `threads t`.
macro_rules! run_columns {
    () => {
        "r.id, r.owner, r.thread_id, t.external_id AS thread, r.external_id, r.kind, r.lane, r.state, r.attempt, r.crashes,
             r.priority, r.parent_run_id, r.root_run_id, r.retry_of, r.watcher, r.paused, r.agent_id, r.model, r.waiting_for, r.due_at,
             r.result, r.error, r.usage, r.created_at, r.started_at, r.finished_at"
    };
}
pub(crate) use run_columns;

macro_rules! columns {
    () => {
        concat!("SELECT ", run_columns!(), " FROM runs r JOIN threads t ON t.id = r.thread_id ")
    };
}

pub const BY_ID: Sql = Sql::both(concat!(columns!(), "WHERE r.id = $1 AND r.owner = $2"));
/// For the engine's own moves, which have established whose it is.
pub const ANY_BY_ID: Sql = Sql::both(concat!(columns!(), "WHERE r.id = $1"));
/// Newest first; each filter is skipped when it is NULL.
pub const LIST: Sql = Sql::both(concat!(
    columns!(),
    "WHERE r.owner = $1 AND (CAST($2 AS TEXT) IS NULL OR t.external_id = $2) AND (CAST($3 AS TEXT) IS NULL OR r.state = $3)
       AND (CAST($4 AS UUID) IS NULL OR r.id < $4)
     ORDER BY r.id DESC LIMIT $5"
));
pub const BY_EXTERNAL_ID: Sql = Sql::both(
    "SELECT r.id, t.external_id AS thread, r.external_id, r.input_hash, r.created_at FROM runs r JOIN threads t ON t.id = r.thread_id
     WHERE r.owner = $1 AND r.external_id = $2",
);
pub const BY_KEY: Sql = Sql::both(
    "SELECT r.id, t.external_id AS thread, r.external_id, k.body_hash AS input_hash, r.created_at
     FROM idempotency_keys k JOIN runs r ON r.id = k.run_id JOIN threads t ON t.id = r.thread_id
     WHERE k.owner = $1 AND k.key = $2 AND k.created_at > $3",
);
pub const KEEP_KEY: Sql = Sql::both(
    "INSERT INTO idempotency_keys (owner, key, body_hash, run_id, created_at) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (owner, key) DO UPDATE SET body_hash = $3, run_id = $4, created_at = $5
     WHERE idempotency_keys.created_at <= $6 RETURNING run_id AS id",
);
pub const INPUT: Sql = Sql::both("SELECT input, input_hash FROM runs WHERE id = $1 AND owner = $2");
pub const STATES: Sql = Sql::each(
    "SELECT id, state, result, error, usage FROM runs WHERE id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "SELECT id, state, result, error, usage FROM runs WHERE id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const STATEMENTS: &[Sql] = &[BY_ID, ANY_BY_ID, LIST, BY_EXTERNAL_ID, BY_KEY, KEEP_KEY, INPUT, STATES];

pub async fn by_id<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid) -> Result<Option<Run>> {
    query(BY_ID).bind(id).bind(owner.as_str()).optional_as(on).await
}

pub async fn any_by_id<'a>(on: impl Into<On<'a>>, id: Uuid) -> Result<Option<Run>> {
    query(ANY_BY_ID).bind(id).optional_as(on).await
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The client's name of a thread.
    pub thread: Option<String>,
    pub state: Option<RunState>,
    /// Only those older than this run.
    pub before: Option<Uuid>,
    pub limit: i64,
}

pub async fn list(db: &Db, owner: &Owner, filter: Filter) -> Result<Vec<Run>> {
    let state = filter.state.map(|s| s.as_str().to_owned());
    query(LIST).bind(owner.as_str()).bind(filter.thread).bind(state).bind(filter.before).bind(filter.limit).all(db).await
}

/// A run that an idempotent request may mean.
pub struct Earlier {
    pub id: Uuid,
    pub thread: String,
    pub external_id: String,
    pub input_hash: String,
    pub created_at: Timestamp,
}

impl FromRow for Earlier {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            thread: row.get("thread")?,
            external_id: row.get("external_id")?,
            input_hash: row.get("input_hash")?,
            created_at: row.time("created_at")?,
        })
    }
}

pub async fn by_external_id<'a>(on: impl Into<On<'a>>, owner: &Owner, external_id: &str) -> Result<Option<Earlier>> {
    query(BY_EXTERNAL_ID).bind(owner.as_str()).bind(external_id).optional_as(on).await
}

pub async fn by_key<'a>(on: impl Into<On<'a>>, owner: &Owner, key: &str, not_before: Timestamp) -> Result<Option<Earlier>> {
    query(BY_KEY).bind(owner.as_str()).bind(key).bind(not_before).optional_as(on).await
}

/// Keeps a key for a run, in place of one from before `not_before`; `false` when another request has taken it meanwhile.
pub async fn keep_key(
    tx: &mut Tx,
    owner: &Owner,
    key: &str,
    hash: &str,
    run: Uuid,
    now: Timestamp,
    not_before: Timestamp,
) -> Result<bool> {
    let statement = query(KEEP_KEY).bind(owner.as_str()).bind(key).bind(hash).bind(run).bind(now).bind(not_before);
    Ok(statement.optional(tx).await?.is_some())
}

pub struct Input {
    /// JSON.
    pub input: String,
    pub input_hash: String,
}

pub async fn input<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid) -> Result<Option<Input>> {
    let row = query(INPUT).bind(id).bind(owner.as_str()).optional(on).await?;
    row.map(|r| Ok(Input { input: r.get("input")?, input_hash: r.get("input_hash")? })).transpose()
}

/// How a child run stands.
pub struct Outcome {
    pub id: Uuid,
    pub state: RunState,
    pub result: Option<serde_json::Value>,
    pub error: Option<crate::domain::run::RunError>,
    pub usage: Option<RunUsage>,
}

impl FromRow for Outcome {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            state: super::state(row)?,
            result: row.opt_json("result")?,
            error: row.opt_json("error")?,
            usage: row.opt_json("usage")?,
        })
    }
}

pub async fn outcomes(db: &Db, ids: &[Uuid]) -> Result<Vec<Outcome>> {
    query(STATES).bind_ids(ids).all(db).await
}
