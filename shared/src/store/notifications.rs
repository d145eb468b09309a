//! What owners are told.
use serde_json::json;
use uuid::Uuid;

use super::db::{Class, Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        new_id,
        notification::{NewNotification, Notification, NotificationKind},
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
};

impl FromRow for Notification {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let unknown = || Error::internal(format!("a stored notification has the kind {kind}"));
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            kind: NotificationKind::parse(&kind).ok_or_else(unknown)?,
            title: row.get("title")?,
            body: row.get("body")?,
            subject: row.json("subject")?,
            read_at: row.opt_time("read_at")?,
            created_at: row.time("created_at")?,
        })
    }
}

macro_rules! columns {
    () => {
        "id, owner, kind, title, body, subject, read_at, created_at"
    };
}

/// Each filter is skipped when it is NULL.
macro_rules! filtered {
    () => {
        " FROM notifications WHERE owner = $1 AND (CAST($2 AS TEXT) IS NULL OR (CASE WHEN read_at IS NULL THEN 'unread' ELSE 'read' END) = $2)
          AND (CAST($3 AS TEXT) IS NULL OR kind = $3) AND LOWER(title) LIKE $4 ESCAPE '\\' "
    };
}

/// What has been told already is not told again. It has to be sent where its owner has a channel.
pub const INSERT: Sql = Sql::each(
    "INSERT INTO notifications (id, owner, kind, title, body, subject, dedupe_key, read_at, sent, created_at)
     SELECT n.id, n.owner, n.kind, n.title, n.body, n.subject, n.dedupe_key, NULL,
         NOT EXISTS (SELECT 1 FROM notification_channels c WHERE c.owner = n.owner AND c.enabled), $2
     FROM json_to_recordset($1::json)
         AS n (id UUID, owner TEXT, kind TEXT, title TEXT, body TEXT, subject TEXT, dedupe_key TEXT)
     ON CONFLICT (owner, dedupe_key) DO NOTHING",
    "INSERT INTO notifications (id, owner, kind, title, body, subject, dedupe_key, read_at, sent, created_at)
     SELECT unhex(n.value ->> 'id'), n.value ->> 'owner', n.value ->> 'kind', n.value ->> 'title', n.value ->> 'body',
         n.value ->> 'subject', n.value ->> 'dedupe_key', NULL,
         NOT EXISTS (SELECT 1 FROM notification_channels c WHERE c.owner = n.value ->> 'owner' AND c.enabled), $2
     FROM json_each($1) AS n WHERE TRUE ON CONFLICT (owner, dedupe_key) DO NOTHING",
);
/// One that goes through a channel that was chosen for it, and that its owner has seen.
pub const INSERT_SENT: Sql = Sql::both(
    "INSERT INTO notifications (id, owner, kind, title, body, subject, dedupe_key, read_at, sent, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, TRUE, $8)",
);
/// Newest first, from the one before `$5`.
pub const LIST: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    filtered!(),
    "AND (CAST($5 AS UUID) IS NULL OR id < $5) ORDER BY id DESC LIMIT $6 OFFSET $7"
));
pub const TOTAL: Sql = Sql::both(concat!("SELECT COUNT(*) AS n", filtered!()));
pub const UNREAD: Sql = Sql::both("SELECT COUNT(*) AS n FROM notifications WHERE owner = $1 AND read_at IS NULL");
/// One that was read before stays read since then.
pub const READ: Sql = Sql::both(concat!(
    "UPDATE notifications SET read_at = COALESCE(read_at, $3) WHERE id = $1 AND owner = $2 RETURNING ",
    columns!()
));
pub const READ_ALL: Sql = Sql::both("UPDATE notifications SET read_at = $2 WHERE owner = $1 AND read_at IS NULL RETURNING id");
pub const DELETE: Sql = Sql::both("DELETE FROM notifications WHERE id = $1 AND owner = $2 RETURNING id");
pub const BY_ID: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM notifications WHERE id = $1 AND owner = $2"));
pub const ANY_UNSENT: Sql = Sql::both("SELECT id FROM notifications WHERE NOT sent LIMIT 1");
/// Those that somebody else is sending are left to them.
pub const UNSENT: Sql = Sql::each(
    concat!("SELECT ", columns!(), " FROM notifications WHERE NOT sent ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED"),
    concat!("SELECT ", columns!(), " FROM notifications WHERE NOT sent ORDER BY id LIMIT $1"),
);
pub const SENT: Sql = Sql::each(
    "UPDATE notifications SET sent = TRUE WHERE id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "UPDATE notifications SET sent = TRUE WHERE id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const FORGET: Sql = Sql::both(
    "DELETE FROM notifications WHERE id IN (SELECT id FROM notifications WHERE created_at < $1 ORDER BY created_at LIMIT $2) RETURNING id",
);
pub const STATEMENTS: &[Sql] =
    &[INSERT, INSERT_SENT, LIST, TOTAL, UNREAD, READ, READ_ALL, DELETE, BY_ID, ANY_UNSENT, UNSENT, SENT, FORGET];

/// Titles are one line, whoever writes them; longer texts are cut.
const MAX_TITLE: usize = 200;
const MAX_BODY: usize = 8000;

fn title(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TITLE).collect()
}

fn body(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_BODY).collect()
}

pub async fn insert(tx: &mut Tx, new: &NewNotification, now: Timestamp) -> Result<()> {
    insert_many(tx, std::slice::from_ref(new), now).await
}

/// As `insert`, in one statement.
pub async fn insert_many(tx: &mut Tx, new: &[NewNotification], now: Timestamp) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let row = |n: &NewNotification| {
        json!({
            "id": new_id().simple(), "owner": n.owner, "kind": n.kind.as_str(), "title": title(&n.title),
            "body": body(&n.body), "subject": n.subject.to_string(), "dedupe_key": n.dedupe_key,
        })
    };
    query(INSERT).bind_json(&new.iter().map(row).collect::<Vec<_>>())?.bind(now).execute(tx).await?;
    Ok(())
}

/// One that its owner knows of, and that is sent by who inserts it; answers its id.
pub async fn insert_sent(tx: &mut Tx, new: &NewNotification, now: Timestamp) -> Result<Uuid> {
    let id = new_id();
    let statement = query(INSERT_SENT).bind(id).bind(&new.owner).bind(new.kind.as_str()).bind(title(&new.title));
    let statement = statement.bind(body(&new.body)).bind(new.subject.to_string()).bind(&new.dedupe_key).bind(now);
    statement.execute(tx).await?;
    Ok(id)
}

/// Newest first, and one more than was asked for when there is. Those before `before` when it is given, else the page.
pub async fn list(
    db: &Db,
    owner: &Owner,
    page: &PageRequest,
    kind: Option<NotificationKind>,
    before: Option<Uuid>,
) -> Result<Listed<Notification>> {
    let filters = |sql: Sql| {
        let statement = query(sql).bind(owner.as_str()).bind(page.status.clone());
        statement.bind(kind.map(NotificationKind::as_str)).bind(page.pattern())
    };
    let offset = if before.is_some() { 0 } else { page.offset() };
    let items = filters(LIST).bind(before).bind(page.size + 1).bind(offset).all(db).await?;
    Ok(Listed { items, total: filters(TOTAL).one(db).await?.get("n")? })
}

pub async fn unread(db: &Db, owner: &Owner) -> Result<i64> {
    query(UNREAD).bind(owner.as_str()).one(db).await?.get("n")
}

pub async fn read(db: &Db, id: Uuid, owner: &Owner, now: Timestamp) -> Result<Option<Notification>> {
    let read = query(READ).bind(id).bind(owner.as_str()).bind(now).write(db, Class::Request).await?;
    Ok(read.into_iter().next())
}

/// How many had not been read.
pub async fn read_all(db: &Db, owner: &Owner, now: Timestamp) -> Result<usize> {
    let read: Vec<Uuid> = query(READ_ALL).bind(owner.as_str()).bind(now).write(db, Class::Request).await?;
    Ok(read.len())
}

/// Whether there was one.
pub async fn delete(db: &Db, id: Uuid, owner: &Owner) -> Result<bool> {
    let deleted: Vec<Uuid> = query(DELETE).bind(id).bind(owner.as_str()).write(db, Class::Request).await?;
    Ok(!deleted.is_empty())
}

pub async fn by_id<'a>(on: impl Into<On<'a>>, id: Uuid, owner: &Owner) -> Result<Option<Notification>> {
    query(BY_ID).bind(id).bind(owner.as_str()).optional_as(on).await
}

pub async fn any_unsent(db: &Db) -> Result<bool> {
    Ok(query(ANY_UNSENT).optional(db).await?.is_some())
}

/// The oldest that have to be sent, locked; those of another transaction are left out.
pub async fn unsent(tx: &mut Tx, limit: i64) -> Result<Vec<Notification>> {
    query(UNSENT).bind(limit).all(tx).await
}

pub async fn sent(tx: &mut Tx, ids: &[Uuid]) -> Result<()> {
    query(SENT).bind_ids(ids).execute(tx).await?;
    Ok(())
}

/// Forgets those told before `before`; answers how many.
pub async fn forget(db: &Db, before: Timestamp, limit: i64) -> Result<usize> {
    let gone: Vec<Uuid> = query(FORGET).bind(before).bind(limit).write(db, Class::Background).await?;
    Ok(gone.len())
}
