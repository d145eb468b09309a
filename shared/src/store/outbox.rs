//! What one run has to tell another. Parent and child are never locked together: the sender writes a row here in its own
//! transaction, and the row is applied in another.
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

pub const SEND: Sql = Sql::both("INSERT INTO outbox (id, run_id, kind, reason, created_at) VALUES ($1, $2, $3, $4, $5)");
pub const CHILDREN: Sql =
    Sql::both("SELECT id FROM runs WHERE parent_run_id = $1 AND state IN ('queued', 'running', 'waiting') ORDER BY id");
pub const PENDING: Sql = Sql::both("SELECT id, run_id, kind, reason FROM outbox ORDER BY id LIMIT $1");
pub const TAKE: Sql = Sql::each(
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id = $1 FOR UPDATE SKIP LOCKED) RETURNING id",
    "DELETE FROM outbox WHERE id = $1 RETURNING id",
);
pub const STATEMENTS: &[Sql] = &[SEND, CHILDREN, PENDING, TAKE];

pub async fn send(tx: &mut Tx, run_id: Uuid, kind: NoticeKind, reason: &str, now: Timestamp) -> Result<Notice> {
    let notice = Notice { id: new_id(), run_id, kind, reason: reason.to_owned() };
    query(SEND).bind(notice.id).bind(run_id).bind(kind.as_str()).bind(reason).bind(now).execute(tx).await?;
    Ok(notice)
}

/// Tells every child that has not ended to stop.
pub async fn cancel_children(tx: &mut Tx, parent: Uuid, now: Timestamp) -> Result<Vec<Notice>> {
    let mut notices = Vec::new();
    for child in query(CHILDREN).bind(parent).all::<Uuid>(&mut *tx).await? {
        notices.push(send(tx, child, NoticeKind::Cancel, "its parent has ended", now).await?);
    }
    Ok(notices)
}

pub async fn pending(db: &Db, limit: i64) -> Result<Vec<Notice>> {
    query(PENDING).bind(limit).all(db).await
}

/// Whether this transaction is the one that applies it.
pub async fn take(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(query(TAKE).bind(id).optional(tx).await?.is_some())
}
