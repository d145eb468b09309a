//! Threads and their heads. The head row's lock orders everything that happens in a thread; it is always taken before any
//! run's, and heads by id.
use std::collections::HashMap;

use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::db::{Db, FromRow, Row, Sql, Tx, query};
use crate::{clock::Timestamp, domain::caller::Owner, error::Result};

pub struct Thread {
    pub id: Uuid,
    /// The client's name of it.
    pub external_id: String,
}

impl FromRow for Thread {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.get("id")?, external_id: row.get("external_id")? })
    }
}

/// The last numbers of a thread, after an `advance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub last_seq: i64,
    pub first_seq: i64,
    pub last_message_seq: i64,
    pub last_order: i64,
    pub run_id: Option<Uuid>,
}

impl FromRow for Head {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            last_seq: row.get("last_seq")?,
            first_seq: row.get("first_seq")?,
            last_message_seq: row.get("last_message_seq")?,
            last_order: row.get("last_order")?,
            run_id: row.get("head_run_id")?,
        })
    }
}

/// How many numbers to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Advance {
    pub events: i64,
    pub messages: i64,
    pub orders: i64,
    /// Becomes the head when the thread has none.
    pub candidate: Option<Uuid>,
}

pub const ENSURE: Sql = Sql::both(
    "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)
     ON CONFLICT (owner, external_id) DO UPDATE SET updated_at = $5 RETURNING id",
);
pub const BY_NAME: Sql = Sql::both("SELECT id, external_id FROM threads WHERE owner = $1 AND external_id = $2");
pub const LATEST: Sql =
    Sql::both("SELECT id, external_id FROM threads WHERE owner = $1 AND listed ORDER BY updated_at DESC, id DESC LIMIT 1");
pub const ADVANCE: Sql = Sql::both(
    "INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
     VALUES ($1, $2, 1, $3, $4, $5)
     ON CONFLICT (thread_id) DO UPDATE SET last_seq = thread_heads.last_seq + $2,
         last_message_seq = thread_heads.last_message_seq + $3, last_order = thread_heads.last_order + $4,
         head_run_id = COALESCE(thread_heads.head_run_id, $5)
     RETURNING last_seq, first_seq, last_message_seq, last_order, head_run_id",
);
/// As `ADVANCE`, for threads that exist; locked in the order of their ids.
pub const ADVANCE_MANY: Sql = Sql::each(
    "WITH take AS (SELECT * FROM json_to_recordset($1::json) AS j (thread_id UUID, events BIGINT, messages BIGINT)),
     locked AS (SELECT h.thread_id FROM thread_heads h WHERE h.thread_id IN (SELECT take.thread_id FROM take)
         ORDER BY h.thread_id FOR NO KEY UPDATE)
     UPDATE thread_heads h SET last_seq = h.last_seq + t.events, last_message_seq = h.last_message_seq + t.messages
     FROM take t, locked l WHERE h.thread_id = t.thread_id AND h.thread_id = l.thread_id
     RETURNING h.thread_id, h.last_seq, h.first_seq, h.last_message_seq, h.last_order, h.head_run_id",
    "UPDATE thread_heads SET last_seq = last_seq + t.events, last_message_seq = last_message_seq + t.messages
     FROM (SELECT unhex(j.value ->> 'thread_id') AS id, j.value ->> 'events' AS events, j.value ->> 'messages' AS messages
           FROM json_each($1) AS j) AS t WHERE thread_heads.thread_id = t.id
     RETURNING thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id",
);
pub const HEAD: Sql =
    Sql::both("SELECT last_seq, first_seq, last_message_seq, last_order, head_run_id FROM thread_heads WHERE thread_id = $1");
/// The second condition on the state is that of the index by thread; the first is written so that no other index has it.
macro_rules! hand_on {
    ($ended:literal) => {
        concat!(
            "UPDATE thread_heads SET head_run_id = (SELECT r.id FROM runs r WHERE r.thread_id = thread_heads.thread_id
                 AND COALESCE(r.state = 'queued', FALSE) AND r.state IN ('queued', 'running', 'waiting') AND r.thread_order IS NOT NULL
                 ORDER BY r.thread_order LIMIT 1)
             FROM ",
            $ended,
            " AS e WHERE thread_heads.thread_id = e.thread AND head_run_id = e.run RETURNING head_run_id"
        )
    };
}
pub const HAND_ON: Sql = Sql::each(
    hand_on!("(SELECT * FROM json_to_recordset($1::json) AS j (thread UUID, run UUID))"),
    hand_on!("(SELECT unhex(j.value ->> 'thread') AS thread, unhex(j.value ->> 'run') AS run FROM json_each($1) AS j)"),
);
pub const STATEMENTS: &[Sql] = &[ENSURE, BY_NAME, LATEST, ADVANCE, ADVANCE_MANY, HEAD, HAND_ON];

/// The thread of that name, made when new.
pub async fn ensure(tx: &mut Tx, id: Uuid, owner: &Owner, external_id: &str, listed: bool, now: Timestamp) -> Result<Uuid> {
    let row = query(ENSURE).bind(id).bind(owner.as_str()).bind(external_id).bind(listed).bind(now).one(tx).await?;
    row.get("id")
}

pub async fn by_name(db: &Db, owner: &Owner, external_id: &str) -> Result<Option<Thread>> {
    query(BY_NAME).bind(owner.as_str()).bind(external_id).optional_as(db).await
}

pub async fn latest(db: &Db, owner: &Owner) -> Result<Option<Thread>> {
    query(LATEST).bind(owner.as_str()).optional_as(db).await
}

/// Locks the head and takes numbers from it: those taken end at the ones answered.
pub async fn advance(tx: &mut Tx, thread_id: Uuid, take: Advance) -> Result<Head> {
    let statement = query(ADVANCE).bind(thread_id).bind(take.events).bind(take.messages).bind(take.orders).bind(take.candidate);
    Head::from_row(&statement.one(tx).await?)
}

#[derive(Serialize)]
struct Take {
    #[serde(serialize_with = "simple::serialize")]
    thread_id: Uuid,
    events: i64,
    messages: i64,
}

struct Numbered(Uuid, Head);

impl FromRow for Numbered {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.get("thread_id")?, Head::from_row(row)?))
    }
}

/// Locks the heads of many threads and takes events and messages from each.
pub async fn advance_many(tx: &mut Tx, take: &[(Uuid, Advance)]) -> Result<HashMap<Uuid, Head>> {
    let row = |&(thread_id, take): &(Uuid, Advance)| Take { thread_id, events: take.events, messages: take.messages };
    let list: Vec<_> = take.iter().map(row).collect();
    let heads = query(ADVANCE_MANY).bind_json(&list)?.all::<Numbered>(tx).await?;
    Ok(heads.into_iter().map(|n| (n.0, n.1)).collect())
}

pub async fn head(db: &Db, thread_id: Uuid) -> Result<Option<Head>> {
    query(HEAD).bind(thread_id).optional_as(db).await
}

#[derive(Serialize)]
struct Leaving {
    #[serde(serialize_with = "simple::serialize")]
    thread: Uuid,
    #[serde(serialize_with = "simple::serialize")]
    run: Uuid,
}

struct NextHead(Option<Uuid>);

impl FromRow for NextHead {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("head_run_id").map(Self)
    }
}

/// Hands threads from runs that have ended (thread and run) to the next in order; answers those. The heads must be locked already: the
/// choice has to be made by a statement that starts after the lock was got, else it misses what was accepted meanwhile.
pub async fn hand_on(tx: &mut Tx, ended: &[(Uuid, Uuid)]) -> Result<Vec<Uuid>> {
    let list: Vec<_> = ended.iter().map(|&(thread, run)| Leaving { thread, run }).collect();
    let heads = query(HAND_ON).bind_json(&list)?.all::<NextHead>(tx).await?;
    Ok(heads.into_iter().filter_map(|head| head.0).collect())
}
