//! The transitions of one run. Each names the state it leaves; a worker's also name its fence, so that one that was replaced
//! writes nothing. The caller holds the lock of the thread's head where the thread may be handed on.
//!
//! A run is found by its id and by nothing else: `COALESCE(state = …, FALSE)` keeps Postgres from a partial index of that state, which
//! is the cheaper plan while few runs are in it, and is kept when there are a hundred thousand.
use std::time::Duration;

use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::{
    super::db::{Class, Db, Sql, Tx, query},
    Fenced, Ready,
};
use crate::{
    clock::Timestamp,
    domain::{
        Lane,
        run::{Claimed, End, RetryPolicy, RunError, RunKind, RunState, Waiting, Watcher},
    },
    error::{Error, Result},
};

/// What an accepted run's row is made of.
pub struct NewRun {
    pub id: Uuid,
    pub owner: String,
    pub thread_id: Uuid,
    pub external_id: String,
    pub kind: RunKind,
    pub lane: Lane,
    pub ready: bool,
    /// `None`: it joins its thread's order when it is due.
    pub thread_order: Option<i64>,
    pub priority: i64,
    pub dispatch_score: i64,
    pub due_at: Option<Timestamp>,
    pub queue_deadline: Timestamp,
    /// µs of running that it may take.
    pub run_left: i64,
    pub policy: RetryPolicy,
    pub parent_run_id: Option<Uuid>,
    pub root_run_id: Option<Uuid>,
    pub retry_of: Option<Uuid>,
    pub watcher: Option<Watcher>,
    pub agent_id: Option<String>,
    pub model: Option<String>,
    /// JSON.
    pub input: String,
    pub input_hash: String,
    pub trace: Option<String>,
    pub created_at: Timestamp,
}

pub const INSERT: Sql = Sql::both(
    "INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score, due_at,
         hinted_at, fence, attempt, crashes, wake_seq, queue_deadline, run_left, policy, parent_run_id, root_run_id, retry_of,
         agent_id, model, input, input_hash, trace, watcher, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9, $10, $11, $12, 0, 0, 0, 0, $13, $14, $15, $16, $17, $18, $19, $20, $21,
         $22, $23, $24, $12)",
);
macro_rules! claim {
    ($claims:literal) => {
        concat!(
            "UPDATE runs SET state = 'running', ready = FALSE, fence = fence + 1, lease_owner = c.session, queue_deadline = NULL,
                 waiting_for = NULL, started_at = COALESCE(started_at, $2), run_deadline = $2 + run_left
             FROM ",
            $claims,
            " AS c WHERE runs.id = c.run AND COALESCE(runs.state = 'queued', FALSE) AND runs.ready
                 AND EXISTS (SELECT 1 FROM worker_sessions s WHERE s.id = c.session AND s.expires_at > $2)
             RETURNING id, owner, thread_id, (SELECT t.external_id FROM threads t WHERE t.id = runs.thread_id) AS thread, external_id,
                 kind, lane, fence, attempt, wake_seq, run_deadline, policy, parent_run_id, root_run_id, retry_of, watcher, paused,
                 agent_id, model, input, trace, dispatch_score + priority * 300000000 AS ready_at"
        )
    };
}
pub const CLAIM: Sql = Sql::each(
    claim!("(SELECT run, session FROM json_to_recordset($1::json) AS j (run UUID, session UUID))"),
    claim!("(SELECT unhex(j.value ->> 'run') AS run, unhex(j.value ->> 'session') AS session FROM json_each($1) AS j)"),
);
/// The fence check: the row stays locked until the transaction ends.
pub const HOLD: Sql = Sql::each(
    "SELECT id FROM runs WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE) FOR NO KEY UPDATE",
    "SELECT id FROM runs WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE)",
);
/// As `HOLD`, for many at once; locked in the order of their ids.
pub const HOLD_MANY: Sql = Sql::each(
    "SELECT r.id, r.fence FROM runs r JOIN json_to_recordset($1::json) AS h (id UUID, fence BIGINT) ON r.id = h.id AND r.fence = h.fence
     WHERE COALESCE(r.state = 'running', FALSE) ORDER BY r.id FOR NO KEY UPDATE OF r",
    "SELECT r.id, r.fence FROM json_each($1) AS h JOIN runs r ON r.id = unhex(h.value ->> 'id') AND r.fence = h.value ->> 'fence'
     WHERE COALESCE(r.state = 'running', FALSE)",
);
macro_rules! end {
    ($ended:literal) => {
        concat!(
            "UPDATE runs SET state = e.state, result = e.result, error = e.error, usage = e.usage, finished_at = $2,
                 fence = runs.fence + 1, lease_owner = NULL, run_deadline = NULL
             FROM ",
            $ended,
            " AS e WHERE runs.id = e.id AND runs.fence = e.fence AND COALESCE(runs.state = 'running', FALSE) RETURNING runs.id"
        )
    };
}
pub const END: Sql = Sql::each(
    end!(
        "(SELECT * FROM json_to_recordset($1::json)
             AS j (id UUID, fence BIGINT, state TEXT, result TEXT, error TEXT, usage TEXT))"
    ),
    end!(
        "(SELECT unhex(j.value ->> 'id') AS id, j.value ->> 'fence' AS fence, j.value ->> 'state' AS state,
             j.value ->> 'result' AS result, j.value ->> 'error' AS error, j.value ->> 'usage' AS usage FROM json_each($1) AS j)"
    ),
);
/// Ends a run from outside its execution, in whatever state it is; the fence shuts its worker out.
pub const END_FROM_OUTSIDE: Sql = Sql::both(
    "UPDATE runs SET state = $2, error = $3, finished_at = $4, usage = $5, fence = fence + 1, ready = FALSE, lease_owner = NULL,
         run_deadline = NULL, queue_deadline = NULL, wake_at = NULL, due_at = NULL, waiting_for = NULL
     WHERE id = $1 AND COALESCE(state IN ('queued', 'running', 'waiting'), FALSE) RETURNING id",
);
pub const PARK: Sql = Sql::both(
    "UPDATE runs SET state = 'waiting', fence = fence + 1, lease_owner = NULL, waiting_for = $4, wake_at = $5,
         run_left = run_deadline - $6, run_deadline = NULL
     WHERE id = $1 AND fence = $2 AND wake_seq = $3 AND COALESCE(state = 'running', FALSE) RETURNING id",
);
pub const WAKE_SEQ: Sql =
    Sql::both("SELECT wake_seq FROM runs WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE)");
pub const WAKE: Sql = Sql::both(
    "UPDATE runs SET wake_seq = wake_seq + 1, wake_at = NULL,
         ready = (ready OR state = 'waiting'), hinted_at = $2,
         dispatch_score = CASE WHEN state = 'waiting' THEN $2 - priority * 300000000 ELSE dispatch_score END,
         state = CASE WHEN state = 'waiting' THEN 'queued' ELSE state END
     WHERE id = $1 AND COALESCE(state IN ('queued', 'running', 'waiting'), FALSE)
     RETURNING id, lane, dispatch_score, (state = 'queued' AND ready) AS woken",
);
/// A ready run waits at once; one that is not ready (behind another, or not due), is executed, or waits already, gets the mark. What is
/// held is not queued for too long.
pub const PAUSE: Sql = Sql::both(
    "UPDATE runs SET paused = TRUE, queue_deadline = NULL, ready = FALSE,
         waiting_for = CASE WHEN state = 'queued' AND ready THEN $2 ELSE waiting_for END,
         state = CASE WHEN state = 'queued' AND ready THEN 'waiting' ELSE state END
     WHERE id = $1 AND NOT paused AND COALESCE(state IN ('queued', 'running', 'waiting'), FALSE)
     RETURNING id, state, waiting_for",
);
/// Counts as a wake, so that a worker that is about to park it as paused goes on; one that waits for something else keeps waiting.
pub const RESUME: Sql = Sql::both(
    "UPDATE runs SET paused = FALSE, wake_seq = wake_seq + 1, hinted_at = $2,
         queue_deadline = CASE WHEN started_at IS NULL THEN COALESCE(due_at, $2) + $3 ELSE queue_deadline END,
         ready = (ready OR state = 'waiting' AND waiting_for LIKE '%\"reason\":\"paused\"%'),
         wake_at = CASE WHEN state = 'waiting' AND waiting_for LIKE '%\"reason\":\"paused\"%' THEN NULL ELSE wake_at END,
         dispatch_score = CASE WHEN state = 'waiting' THEN $2 - priority * 300000000 ELSE dispatch_score END,
         state = CASE WHEN state = 'waiting' AND waiting_for LIKE '%\"reason\":\"paused\"%' THEN 'queued' ELSE state END
     WHERE id = $1 AND paused AND COALESCE(state IN ('queued', 'running', 'waiting'), FALSE)
     RETURNING id, lane, dispatch_score, (state = 'queued' AND ready) AS woken",
);
/// What a worker looks at between two steps: the mark, and the wake count to park by.
pub const HOLDING: Sql =
    Sql::both("SELECT wake_seq, paused FROM runs WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE)");
pub const BACK_OFF: Sql = Sql::both(
    "UPDATE runs SET state = 'queued', ready = FALSE, attempt = attempt + 1, fence = fence + 1, lease_owner = NULL, due_at = $3,
         run_left = run_deadline - $4, run_deadline = NULL, error = $5
     WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE) RETURNING id",
);
/// Back to the queue, with its old place in it.
pub const RELEASE: Sql = Sql::both(
    "UPDATE runs SET state = 'queued', ready = TRUE, fence = fence + 1, lease_owner = NULL, hinted_at = $3,
         run_left = run_deadline - $3, run_deadline = NULL
     WHERE id = $1 AND fence = $2 AND COALESCE(state = 'running', FALSE) RETURNING id, lane, dispatch_score",
);
pub const MAKE_READY: Sql = Sql::each(
    "UPDATE runs SET ready = TRUE, due_at = NULL, dispatch_score = $2 - priority * 300000000, hinted_at = $2
     FROM json_array_elements_text($1::json) AS j WHERE runs.id = j.value::UUID AND COALESCE(runs.state = 'queued', FALSE)
     RETURNING runs.id, lane, dispatch_score",
    "UPDATE runs SET ready = TRUE, due_at = NULL, dispatch_score = $2 - priority * 300000000, hinted_at = $2
     WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND COALESCE(state = 'queued', FALSE) RETURNING id, lane, dispatch_score",
);
/// A delayed run that is due takes its place in its thread.
pub const JOIN_ORDER: Sql = Sql::both(
    "UPDATE runs SET thread_order = $2, due_at = NULL WHERE id = $1 AND COALESCE(state = 'queued', FALSE) AND thread_order IS NULL RETURNING id",
);
pub const STATEMENTS: &[Sql] = &[
    INSERT,
    CLAIM,
    HOLD,
    HOLD_MANY,
    END,
    END_FROM_OUTSIDE,
    PARK,
    WAKE_SEQ,
    WAKE,
    PAUSE,
    RESUME,
    HOLDING,
    BACK_OFF,
    RELEASE,
    MAKE_READY,
    JOIN_ORDER,
];

pub async fn insert(tx: &mut Tx, run: NewRun) -> Result<()> {
    let policy = serde_json::to_string(&run.policy)?;
    query(INSERT)
        .bind(run.id)
        .bind(run.owner)
        .bind(run.thread_id)
        .bind(run.external_id)
        .bind(run.kind.as_str())
        .bind(run.lane.as_str())
        .bind(run.ready)
        .bind(run.thread_order)
        .bind(run.priority)
        .bind(run.dispatch_score)
        .bind(run.due_at)
        .bind(run.created_at)
        .bind(run.queue_deadline)
        .bind(run.run_left)
        .bind(policy)
        .bind(run.parent_run_id)
        .bind(run.root_run_id)
        .bind(run.retry_of)
        .bind(run.agent_id)
        .bind(run.model)
        .bind(run.input)
        .bind(run.input_hash)
        .bind(run.trace)
        .bind(run.watcher.map(Watcher::as_str))
        .execute(tx)
        .await?;
    Ok(())
}

/// A run that a worker session wants.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Claim {
    #[serde(serialize_with = "simple::serialize")]
    pub run: Uuid,
    #[serde(serialize_with = "simple::serialize")]
    pub session: Uuid,
}

/// Takes ready runs for worker sessions. Those that have ended, wait, or are somebody else's are not among the answers.
pub async fn claim(db: &Db, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>> {
    let mut claims = claims.to_vec();
    // Two workers that want the same runs lock them in one order.
    claims.sort_unstable_by_key(|c| c.run);
    query(CLAIM).bind_json(&claims)?.bind(now).write(db, Class::Request).await
}

/// Whether the run is still this execution's.
pub async fn hold(tx: &mut Tx, id: Uuid, fence: i64) -> Result<bool> {
    Ok(query(HOLD).bind(id).bind(fence).optional(tx).await?.is_some())
}

/// Which of these are still their executions'.
pub async fn hold_many(tx: &mut Tx, held: &[Fenced]) -> Result<Vec<Fenced>> {
    query(HOLD_MANY).bind_json(&held)?.all(tx).await
}

#[derive(Serialize)]
struct EndRow {
    #[serde(serialize_with = "simple::serialize")]
    id: Uuid,
    fence: i64,
    state: &'static str,
    /// JSON in a string, as are the next two: what the TEXT columns hold.
    result: Option<String>,
    error: Option<String>,
    usage: Option<String>,
}

/// Answers which have ended: a run that is no longer that execution's has not.
pub async fn end(tx: &mut Tx, ended: &[(Fenced, &End)], now: Timestamp) -> Result<Vec<Uuid>> {
    let row = |(held, end): &(Fenced, &End)| {
        Ok(EndRow {
            id: held.id,
            fence: held.fence,
            state: end.state.as_str(),
            result: end.result.as_ref().map(serde_json::to_string).transpose()?,
            error: end.error.as_ref().map(serde_json::to_string).transpose()?,
            usage: end.usage.as_ref().map(serde_json::to_string).transpose()?,
        })
    };
    let rows = ended.iter().map(row).collect::<Result<Vec<_>>>()?;
    query(END).bind_json(&rows)?.bind(now).all(tx).await
}

/// `false`: it had ended already.
pub async fn end_from_outside(tx: &mut Tx, id: Uuid, end: &End, now: Timestamp) -> Result<bool> {
    let error = end.error.as_ref().map(serde_json::to_string).transpose()?;
    let usage = end.usage.as_ref().map(serde_json::to_string).transpose()?;
    let statement = query(END_FROM_OUTSIDE).bind(id).bind(end.state.as_str()).bind(error).bind(now).bind(usage);
    Ok(statement.optional(tx).await?.is_some())
}

/// `false`: a wake came since `wake_seq` was seen, or the run is no longer this execution's (`wake_seq` tells which).
pub async fn park(tx: &mut Tx, run: &Claimed, wake_seq: i64, waiting: &Waiting, now: Timestamp) -> Result<bool> {
    let statement = query(PARK).bind(run.id).bind(run.fence).bind(wake_seq).bind_json(waiting)?.bind(waiting.wake_at()).bind(now);
    Ok(statement.optional(tx).await?.is_some())
}

/// The run's current wake count; `None` when it is no longer this execution's.
pub async fn wake_seq(db: &Db, id: Uuid, fence: i64) -> Result<Option<i64>> {
    query(WAKE_SEQ).bind(id).bind(fence).optional(db).await?.map(|row| row.get("wake_seq")).transpose()
}

/// Counts a wake, and makes a waiting run ready. Answers what became ready.
pub async fn wake(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<Option<Ready>> {
    let Some(row) = query(WAKE).bind(id).bind(now).optional(tx).await? else { return Ok(None) };
    let woken: bool = row.get("woken")?;
    Ok(if woken { Some(super::super::db::FromRow::from_row(&row)?) } else { None })
}

/// What became of a wish to hold a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It waits, and for nothing else.
    Parked,
    /// It has the mark.
    Marked,
}

/// `None`: it had the mark already, or has ended.
pub async fn pause(tx: &mut Tx, id: Uuid) -> Result<Option<Paused>> {
    let waiting = Waiting::Paused { until: None };
    let Some(row) = query(PAUSE).bind(id).bind_json(&waiting)?.optional(tx).await? else { return Ok(None) };
    let parked = super::state(&row)? == RunState::Waiting && row.opt_json("waiting_for")? == Some(waiting);
    Ok(Some(if parked { Paused::Parked } else { Paused::Marked }))
}

/// `None`: it has no mark. Else what became ready; a run that was never executed may be queued for `queue_timeout` from now on.
pub async fn resume(tx: &mut Tx, id: Uuid, queue_timeout: Duration, now: Timestamp) -> Result<Option<Option<Ready>>> {
    let timeout = i64::try_from(queue_timeout.as_micros()).map_err(Error::internal)?;
    let Some(row) = query(RESUME).bind(id).bind(now).bind(timeout).optional(tx).await? else { return Ok(None) };
    let woken: bool = row.get("woken")?;
    Ok(Some(if woken { Some(super::super::db::FromRow::from_row(&row)?) } else { None }))
}

/// The run's wake count, and whether it is to be held; `None` when it is no longer this execution's.
pub async fn holding(db: &Db, id: Uuid, fence: i64) -> Result<Option<(i64, bool)>> {
    let row = query(HOLDING).bind(id).bind(fence).optional(db).await?;
    row.map(|row| Ok((row.get("wake_seq")?, row.get("paused")?))).transpose()
}

pub async fn back_off(tx: &mut Tx, run: &Claimed, due: Timestamp, error: &RunError, now: Timestamp) -> Result<bool> {
    let statement = query(BACK_OFF).bind(run.id).bind(run.fence).bind(due).bind(now).bind_json(error)?;
    Ok(statement.optional(tx).await?.is_some())
}

pub async fn release(db: &Db, id: Uuid, fence: i64, now: Timestamp) -> Result<Option<Ready>> {
    Ok(query(RELEASE).bind(id).bind(fence).bind(now).write(db, Class::Request).await?.into_iter().next())
}

pub async fn make_ready(tx: &mut Tx, ids: &[Uuid], now: Timestamp) -> Result<Vec<Ready>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    query(MAKE_READY).bind_ids(ids).bind(now).all(tx).await
}

pub async fn join_order(tx: &mut Tx, id: Uuid, order: i64) -> Result<bool> {
    Ok(query(JOIN_ORDER).bind(id).bind(order).optional(tx).await?.is_some())
}
