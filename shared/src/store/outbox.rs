//! What one run has to tell another. Parent and child are never locked together: the sender writes a row here in its own
//! transaction, and the row is applied in another.
use serde_json::json;
use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::new_id,
    error::{Error, Result},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// Something that the run may wait for has happened.
    Wake,
    Cancel,
    /// The run has ended, and somebody watches it.
    Ended,
}

impl NoticeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Cancel => "cancel",
            Self::Ended => "ended",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Notice {
    pub id: Uuid,
    /// Whom it is for.
    pub run_id: Uuid,
    pub kind: NoticeKind,
    pub reason: String,
}

impl Notice {
    pub fn new(run_id: Uuid, kind: NoticeKind, reason: &str) -> Self {
        Self { id: new_id(), run_id, kind, reason: reason.to_owned() }
    }
}

impl FromRow for Notice {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let kind = [NoticeKind::Wake, NoticeKind::Cancel, NoticeKind::Ended].into_iter().find(|k| k.as_str() == kind);
        Ok(Self {
            id: row.get("id")?,
            run_id: row.get("run_id")?,
            kind: kind.ok_or_else(|| Error::internal("a stored notice has an unknown kind"))?,
            reason: row.get("reason")?,
        })
    }
}

pub const SEND: Sql = Sql::each(
    "INSERT INTO outbox (id, run_id, kind, reason, created_at)
     SELECT n.id, n.run_id, n.kind, n.reason, $2 FROM json_to_recordset($1::json) AS n (id UUID, run_id UUID, kind TEXT, reason TEXT)",
    "INSERT INTO outbox (id, run_id, kind, reason, created_at)
     SELECT unhex(n.value ->> 'id'), unhex(n.value ->> 'run_id'), n.value ->> 'kind', n.value ->> 'reason', $2 FROM json_each($1) AS n",
);
pub const CHILDREN: Sql = Sql::each(
    "SELECT runs.id FROM json_array_elements_text($1::json) AS p, runs
     WHERE runs.parent_run_id = p.value::UUID AND runs.state IN ('queued', 'running', 'waiting') ORDER BY runs.id",
    "SELECT id FROM runs WHERE parent_run_id IN (SELECT unhex(value) FROM json_each($1))
         AND state IN ('queued', 'running', 'waiting') ORDER BY id",
);
pub const PENDING: Sql = Sql::both("SELECT id, run_id, kind, reason FROM outbox ORDER BY id LIMIT $1");
pub const TAKE: Sql = Sql::each(
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id = $1 FOR UPDATE SKIP LOCKED) RETURNING id",
    "DELETE FROM outbox WHERE id = $1 RETURNING id",
);
pub const STATEMENTS: &[Sql] = &[SEND, CHILDREN, PENDING, TAKE];

pub async fn send(tx: &mut Tx, notices: &[Notice], now: Timestamp) -> Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let row =
        |n: &Notice| json!({ "id": n.id.simple(), "run_id": n.run_id.simple(), "kind": n.kind.as_str(), "reason": n.reason });
    query(SEND).bind_json(&notices.iter().map(row).collect::<Vec<_>>())?.bind(now).execute(tx).await?;
    Ok(())
}

/// The children of any of these that have not ended.
pub async fn children(tx: &mut Tx, parents: &[Uuid]) -> Result<Vec<Uuid>> {
    query(CHILDREN).bind_ids(parents).all(tx).await
}

pub async fn pending(db: &Db, limit: i64) -> Result<Vec<Notice>> {
    query(PENDING).bind(limit).all(db).await
}

/// Whether this transaction is the one that applies it.
pub async fn take(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(query(TAKE).bind(id).optional(tx).await?.is_some())
}
