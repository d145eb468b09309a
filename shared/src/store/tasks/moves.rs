//! The moves of tasks. The table of `domain::task` says from where each may be made: its states are bound, so that the database
//! itself refuses what the table does not have.
use serde_json::Value;
use uuid::Uuid;

use super::{
    super::db::{Db, FromRow, Query, Row, Sql, Tx, query},
    columns,
};
use crate::{
    clock::Timestamp,
    domain::{
        run::{RunError, RunUsage},
        task::{Task, TaskMove, TaskStatus},
    },
    error::Result,
};

/// The states that a move may come from, at most.
const MOST: usize = 5;

/// What a move writes beside the status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The move is made only while this is the task's run.
    pub of_run: Option<Uuid>,
    /// Becomes its run.
    pub run_id: Option<Uuid>,
    /// By whom it is claimed, and until when. Any move that does not say so ends a claim.
    pub claim: Option<(&'a str, Timestamp)>,
    /// A task that is tried again has none.
    pub result: Option<&'a Value>,
    /// Stays until the task is done, so that the next try sees it.
    pub error: Option<&'a RunError>,
    /// Failures to count.
    pub attempts: i64,
    /// What a run of it has used.
    pub usage: RunUsage,
}

/// $1..$5: from; $6: to; $7: now; $8: a new error; then whether an old error goes, an old result goes, the work begins, and it ends.
macro_rules! moved {
    () => {
        "UPDATE tasks SET status = $6, updated_at = $7, version = version + 1,
             error = CASE WHEN $9 THEN NULL ELSE COALESCE($8, error) END,
             started_at = CASE WHEN $11 THEN COALESCE(started_at, $7) WHEN $10 THEN NULL ELSE started_at END,
             finished_at = CASE WHEN $12 THEN $7 END"
    };
}
macro_rules! from {
    () => {
        " status IN ($1, $2, $3, $4, $5) "
    };
}
macro_rules! used {
    (postgres, $($n:literal),+) => {
        used!("json_build_object(", "usage::json ->> ", ")::text", $($n),+)
    };
    (sqlite, $($n:literal),+) => {
        used!("json_object(", "usage ->> ", ")", $($n),+)
    };
    ($open:literal, $get:literal, $close:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            $open,
            "'inputTokens', COALESCE(CAST(", $get, "'inputTokens' AS BIGINT), 0) + ", $a,
            ", 'outputTokens', COALESCE(CAST(", $get, "'outputTokens' AS BIGINT), 0) + ", $b,
            ", 'cachedInputTokens', COALESCE(CAST(", $get, "'cachedInputTokens' AS BIGINT), 0) + ", $c,
            ", 'costMicros', COALESCE(CAST(", $get, "'costMicros' AS BIGINT), 0) + ", $d,
            $close
        )
    };
}
macro_rules! make {
    ($db:ident) => {
        concat!(
            moved!(),
            ", result = CASE WHEN $10 THEN NULL ELSE COALESCE($13, result) END, run_id = COALESCE($14, run_id), claimed_by = $15,
               claim_expires_at = $16, attempt = attempt + $17, usage = ",
            used!($db, "$18", "$19", "$20", "$21"),
            " WHERE id = $22 AND (CAST($23 AS UUID) IS NULL OR run_id = $23) AND",
            from!(),
            "RETURNING ",
            columns!($db)
        )
    };
}
macro_rules! make_many {
    ($db:ident, $ids:literal) => {
        concat!(
            moved!(),
            ", result = CASE WHEN $10 THEN NULL ELSE result END, claimed_by = NULL, claim_expires_at = NULL WHERE id IN (",
            $ids,
            ") AND",
            from!(),
            "RETURNING ",
            columns!($db)
        )
    };
}
macro_rules! release_lapsed {
    ($db:ident) => {
        concat!(
            "UPDATE tasks SET status = 'ready', claimed_by = NULL, claim_expires_at = NULL, version = version + 1, updated_at = $2
             WHERE status = 'claimed' AND id IN (SELECT id FROM tasks WHERE claim_expires_at <= $2 AND goal_id IS NOT DISTINCT FROM $1
                 ORDER BY id LIMIT $3) RETURNING ",
            columns!($db)
        )
    };
}

pub const MAKE: Sql = Sql::each(make!(postgres), make!(sqlite));
pub const MAKE_MANY: Sql = Sql::each(
    make_many!(postgres, "SELECT j.id::UUID FROM json_array_elements_text($13::json) AS j (id)"),
    make_many!(sqlite, "SELECT unhex(j.value) FROM json_each($13) AS j"),
);
pub const ADD_USAGE: Sql = Sql::each(
    concat!("UPDATE tasks SET usage = ", used!(postgres, "$2", "$3", "$4", "$5"), " WHERE id = $1"),
    concat!("UPDATE tasks SET usage = ", used!(sqlite, "$2", "$3", "$4", "$5"), " WHERE id = $1"),
);
pub const LAPSED: Sql = Sql::both(
    "SELECT DISTINCT goal_id FROM (SELECT goal_id FROM tasks WHERE claim_expires_at <= $1 AND claim_expires_at IS NOT NULL
     ORDER BY claim_expires_at LIMIT $2) AS lapsed",
);
pub const RELEASE_LAPSED: Sql = Sql::each(release_lapsed!(postgres), release_lapsed!(sqlite));
pub(super) const STATEMENTS: &[Sql] = &[MAKE, MAKE_MANY, ADD_USAGE, LAPSED, RELEASE_LAPSED];

/// Binds what `moved` has.
fn moved(sql: Sql, by: TaskMove, error: Option<&RunError>, forgets: bool, now: Timestamp) -> Result<Query> {
    let (from, to) = by.table();
    let mut statement = query(sql);
    for i in 0..MOST {
        statement = statement.bind(from.get(i).unwrap_or(&from[0]).as_str());
    }
    let error = error.map(serde_json::to_string).transpose()?;
    let begins = matches!(to, TaskStatus::Claimed | TaskStatus::Running);
    let statement = statement.bind(to.as_str()).bind(now).bind(error).bind(forgets);
    Ok(statement.bind(by == TaskMove::Retry).bind(begins).bind(to.is_ended()))
}

fn bind_usage(statement: Query, usage: RunUsage) -> Query {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let statement = statement.bind(number(usage.input_tokens)).bind(number(usage.output_tokens));
    statement.bind(number(usage.cached_input_tokens)).bind(number(usage.cost_micros))
}

/// The task after the move; `None` where its state does not allow it, or another run has it.
pub async fn make(tx: &mut Tx, id: Uuid, by: TaskMove, change: &Change<'_>, now: Timestamp) -> Result<Option<Task>> {
    let is_done = matches!(by, TaskMove::Complete | TaskMove::Submit | TaskMove::Approve);
    let statement = moved(MAKE, by, change.error, is_done, now)?;
    let statement = statement.bind(change.result.map(Value::to_string)).bind(change.run_id);
    let statement = statement.bind(change.claim.map(|(by, _)| by.to_owned())).bind(change.claim.map(|(_, until)| until));
    let statement = bind_usage(statement.bind(change.attempts), change.usage);
    statement.bind(id).bind(change.of_run).optional_as(tx).await
}

/// As `make`, for all of them that are in a state that allows it. Those that are tried again begin anew: no error stays.
pub async fn make_many(tx: &mut Tx, ids: &[Uuid], by: TaskMove, error: Option<&RunError>, now: Timestamp) -> Result<Vec<Task>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let is_done = matches!(by, TaskMove::Complete | TaskMove::Approve | TaskMove::Retry);
    moved(MAKE_MANY, by, error, is_done, now)?.bind_ids(ids).all(tx).await
}

/// Of a run that the task has not waited for.
pub async fn add_usage(tx: &mut Tx, id: Uuid, usage: RunUsage) -> Result<()> {
    bind_usage(query(ADD_USAGE).bind(id), usage).execute(tx).await?;
    Ok(())
}

/// A goal with claims that have lapsed, or none: tasks without a goal have.
pub struct Lapsed(pub Option<Uuid>);

impl FromRow for Lapsed {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.get("goal_id")?))
    }
}

pub async fn lapsed(db: &Db, now: Timestamp, limit: i64) -> Result<Vec<Lapsed>> {
    query(LAPSED).bind(now).bind(limit).all(db).await
}

/// Makes those ready of a goal, or of none, whose claims have lapsed.
pub async fn release_lapsed(tx: &mut Tx, goal_id: Option<Uuid>, now: Timestamp, limit: i64) -> Result<Vec<Task>> {
    query(RELEASE_LAPSED).bind(goal_id).bind(now).bind(limit).all(tx).await
}
