//! A thread's attachments by name. Several may have one, since clients upload what they like: the newest counts.
use uuid::Uuid;

use super::{
    attachments::{Attachment, AttachmentState},
    db::{Db, FromRow, Row, Sql, Tx, query},
};
use crate::{clock::Timestamp, domain::caller::Owner, error::Result};

pub const LIST: Sql = Sql::both(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments AS a
     WHERE owner = $1 AND thread_id = $2 AND state = 'stored' AND NOT EXISTS (
         SELECT 1 FROM attachments AS b WHERE b.owner = a.owner AND b.thread_id = a.thread_id AND b.name = a.name AND b.state = 'stored'
             AND (b.created_at > a.created_at OR (b.created_at = a.created_at AND b.id > a.id)))
     ORDER BY name LIMIT $3",
);
pub const NAMED: Sql = Sql::both(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments
     WHERE owner = $1 AND thread_id = $2 AND name = $3 AND state = 'stored' ORDER BY created_at DESC, id DESC LIMIT 1",
);
/// Nothing when it is there already.
pub const INSERT: Sql = Sql::both(
    "INSERT INTO attachments (id, owner, thread_id, bucket, path, name, mime_type, size, sha256, state, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 'pending', $9) ON CONFLICT (id) DO NOTHING RETURNING id",
);
pub const STATE: Sql = Sql::both("SELECT state FROM attachments WHERE id = $1 AND owner = $2");
pub const SETTLE: Sql =
    Sql::both("UPDATE attachments SET state = 'stored', sha256 = $2 WHERE id = $1 AND state = 'pending' RETURNING id");
/// What the thread has under other names.
pub const OTHERS: Sql = Sql::both(
    "SELECT COUNT(*) AS files, CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes FROM attachments
     WHERE owner = $1 AND thread_id = $2 AND name <> $3 AND state = 'stored'",
);
pub const DISCARD: Sql = Sql::both(
    "UPDATE attachments SET state = 'gone' WHERE owner = $1 AND thread_id = $2 AND name = $3 AND state = 'stored' AND id <> $4
     RETURNING id, bucket, path, name, mime_type, size",
);
pub const STATEMENTS: &[Sql] = &[LIST, NAMED, INSERT, STATE, SETTLE, OTHERS, DISCARD];

/// The newest of each name, by name.
pub async fn list(db: &Db, owner: &Owner, thread_id: Uuid, most: i64) -> Result<Vec<Attachment>> {
    query(LIST).bind(owner.as_str()).bind(thread_id).bind(most).all(db).await
}

pub async fn named(db: &Db, owner: &Owner, thread_id: Uuid, name: &str) -> Result<Option<Attachment>> {
    query(NAMED).bind(owner.as_str()).bind(thread_id).bind(name).optional_as(db).await
}

/// `false` when a row with this id is there already.
pub async fn insert(tx: &mut Tx, owner: &Owner, thread_id: Uuid, new: &Attachment, now: Timestamp) -> Result<bool> {
    let statement = query(INSERT).bind(new.id).bind(owner.as_str()).bind(thread_id).bind(&new.bucket).bind(&new.path);
    Ok(statement.bind(&new.name).bind(&new.mime_type).bind(new.size).bind(now).optional(tx).await?.is_some())
}

/// As `AttachmentState::as_str` has it.
struct State(String);

impl FromRow for State {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("state").map(Self)
    }
}

/// Whether the object of this row has been there: it is stored, or was replaced since.
pub async fn was_stored(db: &Db, owner: &Owner, id: Uuid) -> Result<bool> {
    let found: Option<State> = query(STATE).bind(id).bind(owner.as_str()).optional_as(db).await?;
    Ok(found.is_some_and(|s| [AttachmentState::Stored, AttachmentState::Gone].iter().any(|state| s.0 == state.as_str())))
}

/// `false` when it is no longer pending.
pub async fn settle(tx: &mut Tx, id: Uuid, sha256: &str) -> Result<bool> {
    Ok(query(SETTLE).bind(id).bind(sha256).optional(tx).await?.is_some())
}

pub struct Usage {
    pub files: i64,
    pub bytes: i64,
}

impl FromRow for Usage {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { files: row.get("files")?, bytes: row.get("bytes")? })
    }
}

pub async fn others(tx: &mut Tx, owner: &Owner, thread_id: Uuid, name: &str) -> Result<Usage> {
    Usage::from_row(&query(OTHERS).bind(owner.as_str()).bind(thread_id).bind(name).one(tx).await?)
}

/// Takes all of a name out of the thread, except `keep`; their objects are still to be deleted.
pub async fn discard(tx: &mut Tx, owner: &Owner, thread_id: Uuid, name: &str, keep: Uuid) -> Result<Vec<Attachment>> {
    query(DISCARD).bind(owner.as_str()).bind(thread_id).bind(name).bind(keep).all(tx).await
}
