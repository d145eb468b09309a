//! The reconciler's statements: each is idempotent, touches at most a batch, and reads an index that holds only its candidates,
//! so that its cost does not grow with the backlog.
use uuid::Uuid;

use super::{
    super::db::{Class, Db, FromRow, On, Row, Sql, query},
    Fenced, Ready,
};
use crate::{clock::Timestamp, domain::Lane, error::Result};

pub const LOST_HINTS: Sql = Sql::each(
    "UPDATE runs SET hinted_at = $3 WHERE id IN (SELECT id FROM runs WHERE lane = $1 AND state = 'queued' AND ready
         AND dispatch_score < $2 AND hinted_at < $4 ORDER BY dispatch_score LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING id, lane, dispatch_score",
    "UPDATE runs SET hinted_at = $3 WHERE id IN (SELECT id FROM runs WHERE lane = $1 AND state = 'queued' AND ready
         AND dispatch_score < $2 AND hinted_at < $4 ORDER BY dispatch_score LIMIT $5)
     RETURNING id, lane, dispatch_score",
);
pub const READY: Sql = Sql::both(
    "SELECT id, lane, dispatch_score FROM runs WHERE lane = $1 AND state = 'queued' AND ready ORDER BY dispatch_score LIMIT $2",
);
pub const BACKED_OFF: Sql = Sql::each(
    "UPDATE runs SET ready = TRUE, due_at = NULL, dispatch_score = $1 - priority * 300000000, hinted_at = $1
     WHERE id IN (SELECT id FROM runs WHERE due_at <= $1 AND thread_order IS NOT NULL AND state = 'queued'
         ORDER BY due_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING id, lane, dispatch_score",
    "UPDATE runs SET ready = TRUE, due_at = NULL, dispatch_score = $1 - priority * 300000000, hinted_at = $1
     WHERE id IN (SELECT id FROM runs WHERE due_at <= $1 AND thread_order IS NOT NULL AND state = 'queued' ORDER BY due_at LIMIT $2)
     RETURNING id, lane, dispatch_score",
);
pub const DELAYED: Sql = Sql::both(
    "SELECT id, thread_id FROM runs WHERE due_at <= $1 AND thread_order IS NULL AND state = 'queued' ORDER BY due_at LIMIT $2",
);
pub const TIMERS: Sql = Sql::each(
    "UPDATE runs SET state = 'queued', ready = TRUE, wake_seq = wake_seq + 1, wake_at = NULL, hinted_at = $1,
         dispatch_score = $1 - priority * 300000000
     WHERE id IN (SELECT id FROM runs WHERE wake_at <= $1 AND state = 'waiting' ORDER BY wake_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING id, lane, dispatch_score",
    "UPDATE runs SET state = 'queued', ready = TRUE, wake_seq = wake_seq + 1, wake_at = NULL, hinted_at = $1,
         dispatch_score = $1 - priority * 300000000
     WHERE id IN (SELECT id FROM runs WHERE wake_at <= $1 AND state = 'waiting' ORDER BY wake_at LIMIT $2)
     RETURNING id, lane, dispatch_score",
);
/// What a dead worker held goes back with its old place. `crashes` counts; the caller fails those past their limit.
pub const ORPHANED: Sql = Sql::each(
    "UPDATE runs SET state = 'queued', ready = TRUE, fence = fence + 1, crashes = crashes + 1, lease_owner = NULL, hinted_at = $2,
         run_left = run_deadline - $2, run_deadline = NULL
     WHERE id IN (SELECT id FROM runs WHERE lease_owner = $1 AND state = 'running' ORDER BY id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING id, lane, dispatch_score, crashes, policy",
    "UPDATE runs SET state = 'queued', ready = TRUE, fence = fence + 1, crashes = crashes + 1, lease_owner = NULL, hinted_at = $2,
         run_left = run_deadline - $2, run_deadline = NULL
     WHERE id IN (SELECT id FROM runs WHERE lease_owner = $1 AND state = 'running' ORDER BY id LIMIT $3)
     RETURNING id, lane, dispatch_score, crashes, policy",
);
pub const QUEUED_TOO_LONG: Sql = Sql::both(
    "SELECT id FROM runs WHERE state = 'queued' AND queue_deadline IS NOT NULL AND queue_deadline < $1 ORDER BY queue_deadline LIMIT $2",
);
pub const RUN_TOO_LONG: Sql =
    Sql::both("SELECT id FROM runs WHERE run_deadline IS NOT NULL AND run_deadline < $1 ORDER BY run_deadline LIMIT $2");
/// Children whose parent has ended without telling them: belt and braces for the notices.
pub const STRAYS: Sql = Sql::both(
    "SELECT c.id FROM runs c JOIN runs p ON p.id = c.parent_run_id
     WHERE c.parent_run_id IS NOT NULL AND c.state IN ('queued', 'running', 'waiting')
       AND p.state IN ('succeeded', 'failed', 'cancelled') LIMIT $1",
);
/// Which of a worker's executions are its own still, and which of those are to be held.
pub const STILL_MINE: Sql = Sql::both("SELECT id, fence, paused FROM runs WHERE lease_owner = $1 AND state = 'running'");
pub const DEPTH: Sql =
    Sql::both("SELECT COUNT(*) AS n FROM (SELECT 1 FROM runs WHERE lane = $1 AND state = 'queued' LIMIT $2) AS q");
pub const OLDEST: Sql = Sql::both(
    "SELECT MIN(dispatch_score + priority * 300000000) AS at FROM (SELECT dispatch_score, priority FROM runs
     WHERE lane = $1 AND state = 'queued' AND ready ORDER BY dispatch_score LIMIT 100) AS q",
);
pub const FORGET_RUNS: Sql = Sql::both(
    "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE finished_at < $1 ORDER BY finished_at LIMIT $2) RETURNING id",
);
pub const FORGET_KEYS: Sql = Sql::both(
    "DELETE FROM idempotency_keys WHERE run_id IN (SELECT run_id FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)
     AND created_at < $1 RETURNING run_id AS id",
);
pub const STATEMENTS: &[Sql] = &[
    LOST_HINTS,
    READY,
    BACKED_OFF,
    DELAYED,
    TIMERS,
    ORPHANED,
    QUEUED_TOO_LONG,
    RUN_TOO_LONG,
    STRAYS,
    STILL_MINE,
    DEPTH,
    OLDEST,
    FORGET_RUNS,
    FORGET_KEYS,
];

/// Ready rows that stand before the queue's first hint (`below`; all of them for an empty lane) and were hinted before `hinted_before`.
pub async fn lost_hints(
    db: &Db,
    lane: Lane,
    below: i64,
    now: Timestamp,
    hinted_before: Timestamp,
    batch: i64,
) -> Result<Vec<Ready>> {
    let statement = query(LOST_HINTS).bind(lane.as_str()).bind(below).bind(now).bind(hinted_before).bind(batch);
    statement.write(db, Class::Background).await
}

pub async fn ready(db: &Db, lane: Lane, limit: i64) -> Result<Vec<Ready>> {
    query(READY).bind(lane.as_str()).bind(limit).all(db).await
}

/// Runs whose backoff is over.
pub async fn backed_off(db: &Db, now: Timestamp, batch: i64) -> Result<Vec<Ready>> {
    query(BACKED_OFF).bind(now).bind(batch).write(db, Class::Background).await
}

pub struct Delayed {
    pub id: Uuid,
    pub thread_id: Uuid,
}

impl FromRow for Delayed {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.get("id")?, thread_id: row.get("thread_id")? })
    }
}

/// Delayed runs that are due and have no place in their thread yet.
pub async fn delayed(db: &Db, now: Timestamp, batch: i64) -> Result<Vec<Delayed>> {
    query(DELAYED).bind(now).bind(batch).all(db).await
}

/// Parked runs whose timer has gone off.
pub async fn timers(db: &Db, now: Timestamp, batch: i64) -> Result<Vec<Ready>> {
    query(TIMERS).bind(now).bind(batch).write(db, Class::Background).await
}

pub struct Orphan {
    pub ready: Ready,
    /// Its worker has died under it more often than its policy allows.
    pub is_poison: bool,
}

impl FromRow for Orphan {
    fn from_row(row: &Row) -> Result<Self> {
        let policy: crate::domain::run::RetryPolicy = row.json("policy")?;
        Ok(Self { ready: Ready::from_row(row)?, is_poison: row.get::<i64>("crashes")? > policy.max_crashes })
    }
}

/// Takes back what a dead session held.
pub async fn orphaned(db: &Db, session: Uuid, now: Timestamp, batch: i64) -> Result<Vec<Orphan>> {
    query(ORPHANED).bind(session).bind(now).bind(batch).write(db, Class::Background).await
}

pub async fn queued_too_long(db: &Db, now: Timestamp, batch: i64) -> Result<Vec<Uuid>> {
    query(QUEUED_TOO_LONG).bind(now).bind(batch).all(db).await
}

pub async fn run_too_long(db: &Db, now: Timestamp, batch: i64) -> Result<Vec<Uuid>> {
    query(RUN_TOO_LONG).bind(now).bind(batch).all(db).await
}

pub async fn strays(db: &Db, batch: i64) -> Result<Vec<Uuid>> {
    query(STRAYS).bind(batch).all(db).await
}

/// What a worker executes, as the database sees it.
pub struct Mine {
    pub held: Fenced,
    /// It is to be held at its next checkpoint.
    pub paused: bool,
}

impl FromRow for Mine {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { held: Fenced::from_row(row)?, paused: row.get("paused")? })
    }
}

pub async fn still_mine(db: &Db, session: Uuid) -> Result<Vec<Mine>> {
    query(STILL_MINE).bind(session).all(db).await
}

/// How many runs wait in a lane, counted up to `most`.
pub async fn depth<'a>(on: impl Into<On<'a>>, lane: Lane, most: i64) -> Result<i64> {
    query(DEPTH).bind(lane.as_str()).bind(most).one(on).await?.get("n")
}

/// When the oldest of the first runs of a lane became ready.
pub async fn oldest(db: &Db, lane: Lane) -> Result<Option<Timestamp>> {
    query(OLDEST).bind(lane.as_str()).one(db).await?.opt_time("at")
}

pub async fn forget_runs(db: &Db, ended_before: Timestamp, batch: i64) -> Result<usize> {
    Ok(query(FORGET_RUNS).bind(ended_before).bind(batch).write::<Uuid>(db, Class::Background).await?.len())
}

pub async fn forget_keys(db: &Db, before: Timestamp, batch: i64) -> Result<usize> {
    Ok(query(FORGET_KEYS).bind(before).bind(batch).write::<Uuid>(db, Class::Background).await?.len())
}
