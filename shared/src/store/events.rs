//! The event log: gapless in a thread, because the numbers come from the thread's head in the transaction that appends.
use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::db::{Class, Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::event::Event,
    error::{Error, Result},
};

impl FromRow for Event {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            seq: row.get("seq")?,
            run_id: row.get("run_id")?,
            run: row.get("run")?,
            kind: row.get("kind")?,
            data: row.json("data")?,
            at: row.time("created_at")?,
        })
    }
}

/// A numbered event on its way into the log.
#[derive(Serialize)]
pub struct Append<'a> {
    #[serde(serialize_with = "simple::serialize")]
    pub thread_id: Uuid,
    pub seq: i64,
    #[serde(serialize_with = "simple::serialize")]
    pub run_id: Uuid,
    pub fence: i64,
    pub kind: &'a str,
    /// JSON in a string: what the TEXT column holds.
    pub data: String,
    pub created_at: i64,
}

/// How far a thread's log goes, and whether more will come.
pub struct Extent {
    pub first_seq: i64,
    pub last_seq: i64,
    pub active: bool,
}

impl FromRow for Extent {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { first_seq: row.get("first_seq")?, last_seq: row.get("last_seq")?, active: row.get("active")? })
    }
}

pub struct LastSeq {
    pub thread_id: Uuid,
    pub last_seq: i64,
}

impl FromRow for LastSeq {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { thread_id: row.get("thread_id")?, last_seq: row.get("last_seq")? })
    }
}

pub const APPEND: Sql = Sql::each(
    "INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
     SELECT e.thread_id, e.seq, e.run_id, e.fence, e.kind, e.data, e.created_at
     FROM json_to_recordset($1::json) AS e (thread_id UUID, seq BIGINT, run_id UUID, fence BIGINT, kind TEXT, data TEXT, created_at BIGINT)",
    "INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
     SELECT unhex(e.value ->> 'thread_id'), e.value ->> 'seq', unhex(e.value ->> 'run_id'), e.value ->> 'fence',
         e.value ->> 'kind', e.value ->> 'data', e.value ->> 'created_at' FROM json_each($1) AS e",
);
pub const PAGE: Sql = Sql::both(
    "SELECT e.seq, e.run_id, COALESCE(r.external_id, '') AS run, e.kind, e.data, e.created_at
     FROM run_events e LEFT JOIN runs r ON r.id = e.run_id
     WHERE e.thread_id = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3",
);
pub const EXTENT: Sql = Sql::both(
    "SELECT first_seq, last_seq, EXISTS (SELECT 1 FROM runs WHERE thread_id = $1 AND state IN ('queued', 'running', 'waiting')) AS active
     FROM thread_heads WHERE thread_id = $1",
);
pub const FIRST_OF_ACTIVE: Sql = Sql::both(
    "SELECT MIN((SELECT MIN(e.seq) FROM run_events e WHERE e.run_id = r.id)) AS seq FROM runs r
     WHERE r.thread_id = $1 AND r.state IN ('queued', 'running', 'waiting')",
);
pub const FIRST_OF_LATEST: Sql = Sql::both("SELECT MAX(seq) AS seq FROM run_events WHERE thread_id = $1 AND kind = 'run.queued'");
pub const FIRST_OF_RUN: Sql = Sql::both("SELECT MIN(seq) AS seq FROM run_events WHERE run_id = $1");
/// The first event of the run that was executed last at a number, as far as the log tells.
pub const FIRST_OF_STARTED: Sql = Sql::both(
    "SELECT MIN(seq) AS seq FROM run_events WHERE run_id = (SELECT run_id FROM run_events
         WHERE thread_id = $1 AND seq <= $2 AND kind = 'run.started' ORDER BY seq DESC LIMIT 1)",
);
pub const LAST_SEQS: Sql = Sql::each(
    "SELECT thread_id, last_seq FROM thread_heads
     WHERE thread_id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "SELECT thread_id, last_seq FROM thread_heads WHERE thread_id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const AGED: Sql = Sql::both(
    "SELECT e.thread_id, MAX(e.seq) AS last_seq FROM
     (SELECT thread_id, seq FROM run_events WHERE created_at < $1 ORDER BY created_at LIMIT $2) AS e GROUP BY e.thread_id",
);
pub const RAISE_FIRST: Sql =
    Sql::both("UPDATE thread_heads SET first_seq = $2 WHERE thread_id = $1 AND first_seq < $2 RETURNING first_seq");
pub const DELETE_BEFORE: Sql = Sql::both("DELETE FROM run_events WHERE thread_id = $1 AND seq < $2");
pub const STORED: Sql =
    Sql::both("SELECT run_id AS id FROM run_events WHERE thread_id = $1 AND seq = $2 AND run_id = $3 AND fence = $4");
pub const CANCELLED: Sql =
    Sql::both("SELECT data FROM run_events WHERE run_id = $1 AND kind = 'run.cancelled' ORDER BY seq DESC LIMIT 1");
pub const STATEMENTS: &[Sql] = &[
    APPEND,
    STORED,
    PAGE,
    EXTENT,
    FIRST_OF_ACTIVE,
    FIRST_OF_LATEST,
    FIRST_OF_RUN,
    FIRST_OF_STARTED,
    LAST_SEQS,
    AGED,
    RAISE_FIRST,
    DELETE_BEFORE,
    CANCELLED,
];

pub async fn append(tx: &mut Tx, events: &[Append<'_>]) -> Result<()> {
    if !events.is_empty() {
        query(APPEND).bind_json(&events)?.execute(tx).await?;
        metrics::counter!("runmill_events_appended_total").increment(events.len() as u64);
    }
    Ok(())
}

/// Whether that execution's event is in the log under that number.
pub async fn is_stored(tx: &mut Tx, thread_id: Uuid, seq: i64, run_id: Uuid, fence: i64) -> Result<bool> {
    let statement = query(STORED).bind(thread_id).bind(seq).bind(run_id).bind(fence);
    Ok(statement.optional(tx).await?.is_some())
}

/// At most `limit` events after `after`, in order.
pub async fn page(db: &Db, thread_id: Uuid, after: i64, limit: i64) -> Result<Vec<Event>> {
    query(PAGE).bind(thread_id).bind(after).bind(limit).all(db).await
}

pub async fn extent(db: &Db, thread_id: Uuid) -> Result<Extent> {
    let extent = query(EXTENT).bind(thread_id).optional_as(db).await?;
    extent.ok_or_else(|| Error::internal(format!("thread {thread_id} has no head")))
}

/// The first event of the oldest run that has not ended, else of the latest run.
pub async fn natural_start(db: &Db, thread_id: Uuid) -> Result<i64> {
    if let Some(seq) = query(FIRST_OF_ACTIVE).bind(thread_id).one(db).await?.get::<Option<i64>>("seq")? {
        return Ok(seq);
    }
    Ok(query(FIRST_OF_LATEST).bind(thread_id).one(db).await?.get::<Option<i64>>("seq")?.unwrap_or(1))
}

/// The first event of a run; `None` when they are past retention.
pub async fn first_of_run(db: &Db, run_id: Uuid) -> Result<Option<i64>> {
    query(FIRST_OF_RUN).bind(run_id).one(db).await?.get("seq")
}

/// Where the run begins that was under way at `seq`; 1 when none was.
pub async fn first_of_started(db: &Db, thread_id: Uuid, seq: i64) -> Result<i64> {
    Ok(query(FIRST_OF_STARTED).bind(thread_id).bind(seq).one(db).await?.get::<Option<i64>>("seq")?.unwrap_or(1))
}

/// One statement for all the threads that a process follows.
pub async fn last_seqs(db: &Db, threads: &[Uuid]) -> Result<Vec<LastSeq>> {
    query(LAST_SEQS).bind_ids(threads).all(db).await
}

/// Forgets up to `batch` events from before `before`: a thread's `first_seq` moves first, then the rows go. Answers how many threads it touched.
pub async fn forget(db: &Db, before: Timestamp, batch: i64) -> Result<usize> {
    let aged = query(AGED).bind(before).bind(batch).all::<LastSeq>(db).await?;
    for thread in &aged {
        let mut tx = db.begin_as(Class::Background).await?;
        let first = thread.last_seq + 1;
        query(RAISE_FIRST).bind(thread.thread_id).bind(first).optional(&mut tx).await?;
        query(DELETE_BEFORE).bind(thread.thread_id).bind(first).execute(&mut tx).await?;
        tx.commit().await?;
    }
    Ok(aged.len())
}

/// Why a run was cancelled, as its log tells.
pub async fn cancelled(tx: &mut Tx, run_id: Uuid) -> Result<Option<String>> {
    let Some(row) = query(CANCELLED).bind(run_id).optional(tx).await? else { return Ok(None) };
    let data: serde_json::Value = row.json("data")?;
    Ok(data["reason"].as_str().map(str::to_owned))
}
