//! Rows of stored objects. The row is written before its object and removed after it, so that an orphan of either kind can be told.
use serde_json::json;
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, Tx, query};
use crate::{clock::Timestamp, domain::caller::Owner, error::Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachmentState {
    /// The object may not be there yet.
    Pending,
    Stored,
    /// Kept only as long as the work on it may take.
    Temporary,
    /// Replaced or deleted; the object goes next, then the row.
    Gone,
}

impl AttachmentState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Stored => "stored",
            Self::Temporary => "temporary",
            Self::Gone => "gone",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Attachment {
    pub id: Uuid,
    pub bucket: String,
    pub path: String,
    pub name: String,
    pub mime_type: String,
    pub size: i64,
}

impl FromRow for Attachment {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            bucket: row.get("bucket")?,
            path: row.get("path")?,
            name: row.get("name")?,
            mime_type: row.get("mime_type")?,
            size: row.get("size")?,
        })
    }
}

pub const INSERT: Sql = Sql::both(
    "INSERT INTO attachments (id, owner, thread_id, bucket, path, name, mime_type, size, sha256, state, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '', 'pending', $8)",
);
pub const SETTLE: Sql =
    Sql::both("UPDATE attachments SET state = $2, size = $3, sha256 = $4 WHERE id = $1 AND state = 'pending' RETURNING id");
pub const OWNED: Sql = Sql::both(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments WHERE owner = $1 AND bucket = $2 AND path = $3 AND state IN ('stored', 'temporary')",
);
pub const OWNED_AMONG: Sql = Sql::each(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments WHERE owner = $1 AND state = 'stored' AND (bucket, path) IN
         (SELECT j.bucket, j.path FROM json_to_recordset($2::json) AS j (bucket TEXT, path TEXT))",
    "SELECT id, bucket, path, name, mime_type, size FROM attachments WHERE owner = $1 AND state = 'stored' AND (bucket, path) IN
         (SELECT j.value ->> 'bucket', j.value ->> 'path' FROM json_each($2) AS j)",
);
pub const BY_PATH: Sql = Sql::both(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments WHERE bucket = $1 AND path = $2 AND state IN ('stored', 'temporary')",
);
pub const UNSETTLED: Sql = Sql::both(
    "SELECT id, bucket, path, name, mime_type, size FROM attachments
     WHERE state <> 'stored' AND (state = 'gone' OR (state = 'pending' AND created_at < $1) OR (state = 'temporary' AND created_at < $2))
     ORDER BY created_at LIMIT $3",
);
pub const KNOWN: Sql = Sql::each(
    "SELECT path FROM attachments WHERE bucket = $1 AND path IN (SELECT j.path FROM json_array_elements_text($2::json) AS j (path))",
    "SELECT path FROM attachments WHERE bucket = $1 AND path IN (SELECT j.value FROM json_each($2) AS j)",
);
pub const GIVE_UP: Sql = Sql::both("UPDATE attachments SET state = 'gone' WHERE id = $1 RETURNING id");
pub const DELETE: Sql = Sql::both("DELETE FROM attachments WHERE id = $1 RETURNING id");
pub const STATEMENTS: &[Sql] = &[INSERT, SETTLE, OWNED, OWNED_AMONG, BY_PATH, UNSETTLED, KNOWN, GIVE_UP, DELETE];

/// Before the object is written.
pub async fn insert(tx: &mut Tx, owner: &Owner, thread_id: Uuid, new: &Attachment, now: Timestamp) -> Result<()> {
    let statement = query(INSERT).bind(new.id).bind(owner.as_str()).bind(thread_id).bind(&new.bucket).bind(&new.path);
    statement.bind(&new.name).bind(&new.mime_type).bind(now).execute(tx).await?;
    Ok(())
}

/// After the object was written; `false` when the sweeper was faster.
pub async fn settle(db: &Db, id: Uuid, state: AttachmentState, size: i64, sha256: &str) -> Result<bool> {
    let statement = query(SETTLE).bind(id).bind(state.as_str()).bind(size).bind(sha256);
    Ok(!statement.write::<Uuid>(db, Class::Request).await?.is_empty())
}

pub async fn owned(db: &Db, owner: &Owner, bucket: &str, path: &str) -> Result<Option<Attachment>> {
    query(OWNED).bind(owner.as_str()).bind(bucket).bind(path).optional_as(db).await
}

/// Those of these (bucket, path) that are stored and the owner's.
pub async fn owned_among(db: &Db, owner: &Owner, named: &[(&str, &str)]) -> Result<Vec<Attachment>> {
    let named: Vec<_> = named.iter().map(|(bucket, path)| json!({ "bucket": bucket, "path": path })).collect();
    query(OWNED_AMONG).bind(owner.as_str()).bind_json(&named)?.all(db).await
}

/// For a request whose signature has been checked.
pub async fn by_path(db: &Db, bucket: &str, path: &str) -> Result<Option<Attachment>> {
    query(BY_PATH).bind(bucket).bind(path).optional_as(db).await
}

/// Rows whose object never came, or is no longer needed.
pub async fn unsettled(db: &Db, pending_before: Timestamp, temporary_before: Timestamp, batch: i64) -> Result<Vec<Attachment>> {
    query(UNSETTLED).bind(pending_before).bind(temporary_before).bind(batch).all(db).await
}

struct Path(String);

impl FromRow for Path {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("path").map(Self)
    }
}

/// Which of these paths have a row.
pub async fn known(db: &Db, bucket: &str, paths: &[String]) -> Result<Vec<String>> {
    Ok(query(KNOWN).bind(bucket).bind_json(&paths)?.all::<Path>(db).await?.into_iter().map(|p| p.0).collect())
}

/// The object is no longer needed: the sweeper takes what is not removed from now on.
pub async fn give_up(db: &Db, id: Uuid) -> Result<()> {
    query(GIVE_UP).bind(id).write::<Uuid>(db, Class::Background).await?;
    Ok(())
}

pub async fn delete(db: &Db, id: Uuid) -> Result<()> {
    query(DELETE).bind(id).write::<Uuid>(db, Class::Background).await?;
    Ok(())
}
