//! Branches: threads that begin with what others say up to a message. A branch's lineage is flat: one row for each ancestor, so that
//! reading a branch of a branch needs no recursion. Its own messages are numbered after all that it inherits.
use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        page::{Listed, PageRequest},
    },
    error::Result,
};

/// SQL: whether the message `$message` of `a.ancestor_id`, whose run is `r`, is inherited through `a`. A conversation's order is that of
/// its runs, then of its messages; a run that retention has removed leaves the order of the messages.
macro_rules! inherited {
    ($message:literal) => {
        concat!(
            "(r.id IS NULL AND ",
            $message,
            ".seq <= a.upto_seq OR r.thread_order < a.upto_order OR r.thread_order = a.upto_order AND ",
            $message,
            ".seq <= a.upto_seq)"
        )
    };
}
pub(super) use inherited;

/// A branch, with the names that its owner's client knows the threads by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub id: Uuid,
    pub thread_id: Uuid,
    /// The branch's own thread.
    pub session: String,
    /// The thread that it went out from.
    pub parent_session: String,
    /// The last message of the parent that it has.
    pub message_id: String,
    pub name: String,
    /// Who answers in it: the agent of the message's run.
    pub agent_id: Option<String>,
    pub created_at: Timestamp,
}

impl FromRow for Branch {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            thread_id: row.get("thread_id")?,
            session: row.get("session")?,
            parent_session: row.get("parent_session")?,
            message_id: row.get("message_id")?,
            name: row.get("name")?,
            agent_id: row.get("agent_id")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// Where a branch goes out: a message that its parent has, as its own or inherited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The thread that the message is stored in.
    pub thread_id: Uuid,
    /// How many ancestors that thread has.
    pub depth: i64,
    pub upto_order: i64,
    pub upto_seq: i64,
    /// The last number that the thread has given to a message.
    pub last_message_seq: i64,
    pub agent_id: Option<String>,
    /// What comes before the message is still being written.
    pub unfinished: bool,
}

impl FromRow for Fork {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            thread_id: row.get("thread_id")?,
            depth: row.get("depth")?,
            upto_order: row.get("upto_order")?,
            upto_seq: row.get("upto_seq")?,
            last_message_seq: row.get("last_message_seq")?,
            agent_id: row.get("agent_id")?,
            unfinished: row.get("unfinished")?,
        })
    }
}

pub const FORK: Sql = Sql::both(concat!(
    "SELECT f.thread_id, f.depth, f.upto_order, f.upto_seq, f.agent_id, h.last_message_seq,
         EXISTS (SELECT 1 FROM runs e WHERE e.thread_id = f.thread_id AND e.state IN ('queued', 'running', 'waiting')
             AND e.thread_order < f.upto_order) AS unfinished
     FROM (SELECT m.thread_id, (SELECT COUNT(*) FROM thread_ancestors a WHERE a.thread_id = $1) AS depth,
             COALESCE(r.thread_order, 0) AS upto_order, m.seq AS upto_seq, r.agent_id
         FROM messages m LEFT JOIN runs r ON r.id = m.run_id
         WHERE m.thread_id = $1 AND m.id = $2 AND (r.id IS NULL OR r.thread_order IS NOT NULL)
         UNION ALL
         SELECT m.thread_id, a.depth, COALESCE(r.thread_order, 0), m.seq, r.agent_id
         FROM thread_ancestors a JOIN messages m ON m.thread_id = a.ancestor_id LEFT JOIN runs r ON r.id = m.run_id
         WHERE a.thread_id = $1 AND m.id = $2 AND ",
    inherited!("m"),
    ") f JOIN thread_heads h ON h.thread_id = f.thread_id ORDER BY f.depth DESC LIMIT 1"
));
pub const INSERT_HEAD: Sql = Sql::both(
    "INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
     VALUES ($1, 0, 1, $2, 0, NULL)",
);
pub const INHERIT: Sql = Sql::both(
    "INSERT INTO thread_ancestors (thread_id, ancestor_id, depth, upto_order, upto_seq)
     SELECT $1, a.ancestor_id, a.depth, a.upto_order, a.upto_seq FROM thread_ancestors a WHERE a.thread_id = $2 AND a.depth < $3",
);
pub const ADD_ANCESTOR: Sql =
    Sql::both("INSERT INTO thread_ancestors (thread_id, ancestor_id, depth, upto_order, upto_seq) VALUES ($1, $2, $3, $4, $5)");
pub const INSERT: Sql = Sql::both(
    "INSERT INTO branches (id, owner, thread_id, parent_thread_id, message_id, name, agent_id, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);
pub const BY_ID: Sql = Sql::both(
    "SELECT b.id, b.thread_id, t.external_id AS session, p.external_id AS parent_session, b.message_id, b.name, b.agent_id, b.created_at
     FROM branches b JOIN threads t ON t.id = b.thread_id JOIN threads p ON p.id = b.parent_thread_id
     WHERE b.owner = $1 AND b.id = $2",
);
pub const COUNT: Sql = Sql::both(
    "SELECT COUNT(*) AS n FROM branches b JOIN threads p ON p.id = b.parent_thread_id
     WHERE b.owner = $1 AND p.external_id = COALESCE($2, p.external_id) AND lower(b.name) LIKE $3 ESCAPE '\\'",
);
pub const LIST: Sql = Sql::both(
    "SELECT b.id, b.thread_id, t.external_id AS session, p.external_id AS parent_session, b.message_id, b.name, b.agent_id, b.created_at
     FROM branches b JOIN threads t ON t.id = b.thread_id JOIN threads p ON p.id = b.parent_thread_id
     WHERE b.owner = $1 AND p.external_id = COALESCE($2, p.external_id) AND lower(b.name) LIKE $3 ESCAPE '\\'
     ORDER BY CASE WHEN $4 = 'name' THEN lower(b.name) END, CASE WHEN $4 = '-name' THEN lower(b.name) END DESC,
         CASE WHEN $4 = 'created_at' THEN b.created_at END, b.created_at DESC, b.id DESC
     LIMIT $5 OFFSET $6",
);
/// Nothing is accepted into the thread, and it is not deleted, until this transaction ends. On SQLite all writers take turns.
pub const LOCK: Sql = Sql::each("SELECT id FROM threads WHERE id = $1 FOR UPDATE", "SELECT id FROM threads WHERE id = $1");
/// Whether runs of the thread have not ended, and whether other threads inherit from it.
pub const TIED: Sql = Sql::both(
    "SELECT EXISTS (SELECT 1 FROM runs WHERE thread_id = $1 AND state IN ('queued', 'running', 'waiting')) AS busy,
         EXISTS (SELECT 1 FROM thread_ancestors WHERE ancestor_id = $1) AS inherited",
);
/// And with it all that is in it.
pub const DELETE_THREAD: Sql = Sql::both("DELETE FROM threads WHERE id = $1");
pub const STATEMENTS: &[Sql] = &[FORK, INSERT_HEAD, INHERIT, ADD_ANCESTOR, INSERT, BY_ID, COUNT, LIST, LOCK, TIED, DELETE_THREAD];

/// False when the thread is gone.
pub async fn lock(tx: &mut Tx, thread_id: Uuid) -> Result<bool> {
    Ok(query(LOCK).bind(thread_id).optional(tx).await?.is_some())
}

/// Where `message_id` is in the thread's conversation, its own or inherited.
pub async fn fork(tx: &mut Tx, thread_id: Uuid, message_id: &str) -> Result<Option<Fork>> {
    query(FORK).bind(thread_id).bind(message_id).optional_as(tx).await
}

/// Makes the new thread `thread_id` inherit what `parent` has up to the fork.
pub async fn inherit(tx: &mut Tx, thread_id: Uuid, parent: Uuid, fork: &Fork) -> Result<()> {
    query(INSERT_HEAD).bind(thread_id).bind(fork.last_message_seq).execute(tx).await?;
    query(INHERIT).bind(thread_id).bind(parent).bind(fork.depth).execute(tx).await?;
    let last = query(ADD_ANCESTOR).bind(thread_id).bind(fork.thread_id).bind(fork.depth);
    last.bind(fork.upto_order).bind(fork.upto_seq).execute(tx).await?;
    Ok(())
}

pub struct NewBranch<'a> {
    pub id: Uuid,
    pub thread_id: Uuid,
    pub parent_thread_id: Uuid,
    pub message_id: &'a str,
    pub name: &'a str,
    pub agent_id: Option<String>,
}

pub async fn insert(tx: &mut Tx, owner: &Owner, new: NewBranch<'_>, now: Timestamp) -> Result<()> {
    let statement = query(INSERT).bind(new.id).bind(owner.as_str()).bind(new.thread_id).bind(new.parent_thread_id);
    statement.bind(new.message_id).bind(new.name).bind(new.agent_id).bind(now).execute(tx).await?;
    Ok(())
}

pub async fn by_id(db: &Db, owner: &Owner, id: Uuid) -> Result<Option<Branch>> {
    query(BY_ID).bind(owner.as_str()).bind(id).optional_as(db).await
}

/// Newest first when no order is asked for; those of one parent when it is named.
pub async fn list(db: &Db, owner: &Owner, parent: Option<&str>, page: &PageRequest) -> Result<Listed<Branch>> {
    let of = |sql: Sql| query(sql).bind(owner.as_str()).bind(parent.map(str::to_owned)).bind(page.pattern());
    let total = of(COUNT).one(db).await?.get("n")?;
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    Ok(Listed { items: of(LIST).bind(sort).bind(page.size).bind(page.offset()).all(db).await?, total })
}

/// What keeps a thread from being deleted.
pub struct Tied {
    pub busy: bool,
    pub inherited: bool,
}

/// To be asked once the thread is locked.
pub async fn tied(tx: &mut Tx, thread_id: Uuid) -> Result<Tied> {
    let row = query(TIED).bind(thread_id).one(tx).await?;
    Ok(Tied { busy: row.get("busy")?, inherited: row.get("inherited")? })
}

pub async fn delete_thread(tx: &mut Tx, thread_id: Uuid) -> Result<()> {
    query(DELETE_THREAD).bind(thread_id).execute(tx).await?;
    Ok(())
}
