//! What the older messages of long threads come to.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, query};
use crate::{clock::Timestamp, error::Result};

/// Of the messages up to and with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The id of its last message.
    pub upto: String,
    pub text: String,
}

impl FromRow for Summary {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { upto: row.get("upto")?, text: row.get("summary")? })
    }
}

/// Nothing, when the thread has no such message.
pub const KEEP: Sql = Sql::both(
    "INSERT INTO thread_summaries (thread_id, upto_seq, summary, created_at)
     SELECT thread_id, seq, $3, $4 FROM messages WHERE thread_id = $1 AND id = $2
     ON CONFLICT (thread_id, upto_seq) DO UPDATE SET summary = excluded.summary, created_at = excluded.created_at
     RETURNING thread_id AS id",
);
pub const OF_THREAD: Sql = Sql::both(
    "SELECT m.id AS upto, s.summary FROM thread_summaries s JOIN messages m ON m.thread_id = s.thread_id AND m.seq = s.upto_seq
     WHERE s.thread_id = $1 ORDER BY s.created_at DESC, s.upto_seq DESC LIMIT 20",
);
pub const STATEMENTS: &[Sql] = &[KEEP, OF_THREAD];

pub async fn keep(db: &Db, thread_id: Uuid, upto: &str, summary: &str, now: Timestamp) -> Result<()> {
    query(KEEP).bind(thread_id).bind(upto).bind(summary).bind(now).write::<Uuid>(db, Class::Request).await?;
    Ok(())
}

/// The latest first.
pub async fn of_thread(db: &Db, thread_id: Uuid) -> Result<Vec<Summary>> {
    query(OF_THREAD).bind(thread_id).all(db).await
}
