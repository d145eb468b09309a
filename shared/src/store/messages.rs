//! The messages of threads.
use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::{
    branches::inherited,
    db::{Db, FromRow, Row, Sql, Tx, query},
};
use crate::{
    clock::Timestamp,
    domain::{
        message::{Message, MessageRole, NewMessage},
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
};

impl FromRow for Message {
    fn from_row(row: &Row) -> Result<Self> {
        let role: String = row.get("role")?;
        Ok(Self {
            id: row.get("id")?,
            seq: row.get("seq")?,
            run_id: row.get("run_id")?,
            role: MessageRole::parse(&role).ok_or_else(|| Error::internal(format!("a stored message has the role {role}")))?,
            body: row.json("body")?,
            at: row.time("created_at")?,
        })
    }
}

#[derive(Serialize)]
struct Insert<'a> {
    #[serde(serialize_with = "simple::serialize")]
    thread_id: Uuid,
    #[serde(serialize_with = "simple::serialize")]
    run_id: Uuid,
    seq: i64,
    id: &'a str,
    role: &'a str,
    /// JSON in a string: what the TEXT column holds.
    body: String,
}

/// Not those whose id the thread has, nor those that a branch inherits. `OFFSET 0` has Postgres begin with the ancestors, of which most
/// threads have none: else it looks for the id in the messages of all threads.
pub const INSERT: Sql = Sql::each(
    concat!(
        "INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
         SELECT m.thread_id, m.seq, m.id, m.run_id, m.role, m.body, $2 FROM json_to_recordset($1::json)
             AS m (thread_id UUID, seq BIGINT, id TEXT, run_id UUID, role TEXT, body TEXT)
         WHERE NOT EXISTS (SELECT 1 FROM thread_ancestors a
             CROSS JOIN LATERAL (SELECT * FROM messages WHERE thread_id = a.ancestor_id AND id = m.id OFFSET 0) p
             LEFT JOIN runs r ON r.id = p.run_id WHERE a.thread_id = m.thread_id AND ",
        inherited!("p"),
        ") ON CONFLICT (thread_id, id) DO NOTHING"
    ),
    concat!(
        "INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
         SELECT unhex(m.value ->> 'thread_id'), m.value ->> 'seq', m.value ->> 'id', unhex(m.value ->> 'run_id'),
             m.value ->> 'role', m.value ->> 'body', $2 FROM json_each($1) AS m
         WHERE NOT EXISTS (SELECT 1 FROM thread_ancestors a JOIN messages p ON p.thread_id = a.ancestor_id
             AND p.id = m.value ->> 'id' LEFT JOIN runs r ON r.id = p.run_id
             WHERE a.thread_id = unhex(m.value ->> 'thread_id') AND ",
        inherited!("p"),
        ") ON CONFLICT (thread_id, id) DO NOTHING"
    ),
);
/// What a run may see: what its thread inherits, its own messages and those of the runs before it, in the order of the runs.
/// (Messages of a run that waits behind it are stored already.)
pub const CONTEXT: Sql = Sql::both(concat!(
    "SELECT m.id, m.seq, m.run_id, m.role, m.body, m.created_at, a.depth AS generation, COALESCE(r.thread_order, 0) AS turn
     FROM thread_ancestors a JOIN messages m ON m.thread_id = a.ancestor_id LEFT JOIN runs r ON r.id = m.run_id
     WHERE a.thread_id = $1 AND ",
    inherited!("m"),
    " UNION ALL
     SELECT m.id, m.seq, m.run_id, m.role, m.body, m.created_at, 9223372036854775807, COALESCE(r.thread_order, 0)
     FROM messages m LEFT JOIN runs r ON r.id = m.run_id
     WHERE m.thread_id = $1 AND (r.id IS NULL OR r.thread_order <= (SELECT thread_order FROM runs WHERE id = $2))
     ORDER BY generation, turn, seq",
));
/// Each part has its answer from an index; a thread that inherits nothing has one part.
pub const NEWEST: Sql = Sql::both(concat!(
    "SELECT MAX(newest.at) AS at FROM (
         SELECT MAX(created_at) AS at FROM messages WHERE thread_id = $1 AND created_at < $2
         UNION ALL
         SELECT MAX(m.created_at) FROM thread_ancestors a JOIN messages m ON m.thread_id = a.ancestor_id
             LEFT JOIN runs r ON r.id = m.run_id WHERE a.thread_id = $1 AND m.created_at < $2 AND ",
    inherited!("m"),
    ") AS newest",
));
pub const BETWEEN: Sql = Sql::both(concat!(
    "SELECT m.id, m.seq, m.run_id, m.role, m.body, m.created_at, a.depth AS generation
     FROM thread_ancestors a JOIN messages m ON m.thread_id = a.ancestor_id LEFT JOIN runs r ON r.id = m.run_id
     WHERE a.thread_id = $1 AND m.created_at >= $2 AND m.created_at < $3 AND ",
    inherited!("m"),
    " UNION ALL
     SELECT id, seq, run_id, role, body, created_at, 9223372036854775807 FROM messages
     WHERE thread_id = $1 AND created_at >= $2 AND created_at < $3
     ORDER BY generation, seq",
));
pub const COUNT: Sql = Sql::both("SELECT COUNT(*) AS n FROM messages WHERE thread_id = $1");
pub const PAGE: Sql = Sql::both(
    "SELECT id, seq, run_id, role, body, created_at FROM messages WHERE thread_id = $1 ORDER BY seq LIMIT $2 OFFSET $3",
);
pub const OF_RUN: Sql = Sql::both("SELECT id, seq, run_id, role, body, created_at FROM messages WHERE run_id = $1 ORDER BY seq");
pub const DROP_OF_RUN: Sql = Sql::both("DELETE FROM messages WHERE run_id = $1 RETURNING id");
pub const TAKE_OVER: Sql = Sql::both(
    "UPDATE messages SET run_id = $1 WHERE run_id = $2 AND EXISTS (SELECT 1 FROM runs WHERE id = $2 AND thread_order IS NULL)",
);
pub const STATEMENTS: &[Sql] = &[INSERT, CONTEXT, NEWEST, BETWEEN, COUNT, PAGE, OF_RUN, DROP_OF_RUN, TAKE_OVER];

/// What a run adds to its thread, numbered so that the last one is `last_seq`.
pub struct Added<'a> {
    pub thread_id: Uuid,
    pub run_id: Uuid,
    pub messages: &'a [NewMessage],
    pub last_seq: i64,
}

/// Stores those whose id their thread does not have yet, as its own or inherited.
pub async fn insert(tx: &mut Tx, added: &[Added<'_>], now: Timestamp) -> Result<()> {
    let mut rows = Vec::new();
    for Added { thread_id, run_id, messages, last_seq } in added {
        let first_seq = last_seq + 1 - i64::try_from(messages.len()).map_err(Error::internal)?;
        for (message, seq) in messages.iter().zip(first_seq..) {
            rows.push(Insert {
                thread_id: *thread_id,
                run_id: *run_id,
                seq,
                id: &message.id,
                role: message.role.as_str(),
                body: serde_json::to_string(&message.body)?,
            });
        }
    }
    if !rows.is_empty() {
        query(INSERT).bind_json(&rows)?.bind(now).execute(tx).await?;
    }
    Ok(())
}

pub async fn context(db: &Db, thread_id: Uuid, run_id: Uuid) -> Result<Vec<Message>> {
    query(CONTEXT).bind(thread_id).bind(run_id).all(db).await
}

/// When the newest message before `before` was written.
pub async fn newest(db: &Db, thread_id: Uuid, before: Timestamp) -> Result<Option<Timestamp>> {
    query(NEWEST).bind(thread_id).bind(before).one(db).await?.opt_time("at")
}

pub async fn between(db: &Db, thread_id: Uuid, from: Timestamp, until: Timestamp) -> Result<Vec<Message>> {
    query(BETWEEN).bind(thread_id).bind(from).bind(until).all(db).await
}

/// A thread's own messages, as they came.
pub async fn page(db: &Db, thread_id: Uuid, page: &PageRequest) -> Result<Listed<Message>> {
    let total = query(COUNT).bind(thread_id).one(db).await?.get("n")?;
    let items = query(PAGE).bind(thread_id).bind(page.size).bind(page.offset()).all(db).await?;
    Ok(Listed { items, total })
}

/// What a run brought and said, in order.
pub async fn of_run(db: &Db, run_id: Uuid) -> Result<Vec<Message>> {
    query(OF_RUN).bind(run_id).all(db).await
}

struct Id(String);

impl FromRow for Id {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("id").map(Self)
    }
}

/// Removes what a run brought and said; answers the ids.
pub async fn drop_of_run(tx: &mut Tx, run_id: Uuid) -> Result<Vec<String>> {
    Ok(query(DROP_OF_RUN).bind(run_id).all::<Id>(tx).await?.into_iter().map(|id| id.0).collect())
}

/// Gives the messages of a run that ended before it had a place in its thread to the run that tries it again: they would never
/// be seen with it.
pub async fn take_over(tx: &mut Tx, by: Uuid, from: Uuid) -> Result<()> {
    query(TAKE_OVER).bind(by).bind(from).execute(tx).await?;
    Ok(())
}
