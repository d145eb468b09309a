//! A whole accept in one go: what `services::runs::accept` does in eight statements. Only for a run that asks nothing of its thread
//! but a place at its end. On Postgres it is one statement and one round trip, for any number of runs, each of another thread; on
//! SQLite six statements a run, sent to the connection's thread together.
use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

use super::{
    super::{
        branches::inherited,
        db::{Class, Db, FromRow, Row, Sql, query},
        threads::Head,
    },
    moves::NewRun,
};
use crate::{
    clock::Timestamp,
    domain::{message::NewMessage, run::Watcher},
    error::{Error, Result},
};

/// Every part reads what the one before it left: threads, heads (each in one order everywhere), then the rest.
pub const ACCEPT: Sql = Sql::each(
    concat!(
        "WITH work AS MATERIALIZED (
         SELECT * FROM json_to_recordset($1::JSON) AS w (thread UUID, owner TEXT, name TEXT, listed BOOLEAN, now BIGINT,
             run UUID, external_id TEXT, kind TEXT, lane TEXT, priority BIGINT, score BIGINT, queue_deadline BIGINT, run_left BIGINT,
             policy TEXT, agent_id TEXT, model TEXT, input TEXT, input_hash TEXT, trace TEXT, watcher TEXT, said JSON,
             event TEXT, data TEXT)
     ), thread AS (
         INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
         SELECT thread, owner, name, listed, now, now FROM work ORDER BY owner, name
         ON CONFLICT (owner, external_id) DO UPDATE SET updated_at = EXCLUDED.updated_at RETURNING id, owner, external_id
     ), named AS (
         SELECT t.id AS thread_id, w.* FROM work w JOIN thread t ON t.owner = w.owner AND t.external_id = w.name
     ), head AS (
         INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
         SELECT thread_id, 1, 1, json_array_length(said), 1, run FROM named ORDER BY thread_id
         ON CONFLICT (thread_id) DO UPDATE SET last_seq = thread_heads.last_seq + 1,
             last_message_seq = thread_heads.last_message_seq + EXCLUDED.last_message_seq,
             last_order = thread_heads.last_order + 1, head_run_id = COALESCE(thread_heads.head_run_id, EXCLUDED.head_run_id)
         RETURNING thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id
     ), placed AS (
         SELECT n.*, h.last_seq, h.first_seq, h.last_message_seq, h.last_order, h.head_run_id
         FROM named n JOIN head h ON h.thread_id = n.thread_id
     ), accepted AS (
         INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score,
             hinted_at, fence, attempt, crashes, wake_seq, queue_deadline, run_left, policy, agent_id, model, input, input_hash,
             trace, watcher, created_at)
         SELECT run, owner, thread_id, external_id, kind, lane, 'queued', head_run_id = run, last_order, priority, score,
             now, 0, 0, 0, 0, queue_deadline, run_left, policy, agent_id, model, input, input_hash, trace, watcher, now FROM placed
     ), said AS (
         INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
         SELECT w.thread_id, w.last_message_seq - m.later, m.id, w.run, m.role, m.body, w.now
         FROM placed w, json_to_recordset(w.said) AS m (later BIGINT, id TEXT, role TEXT, body TEXT)
         WHERE NOT EXISTS (SELECT 1 FROM thread_ancestors a
             CROSS JOIN LATERAL (SELECT * FROM messages WHERE thread_id = a.ancestor_id AND id = m.id OFFSET 0) p
             LEFT JOIN runs r ON r.id = p.run_id WHERE a.thread_id = w.thread_id AND ",
        inherited!("p"),
        ") ON CONFLICT (thread_id, id) DO NOTHING
     ), told AS (
         INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
         SELECT thread_id, last_seq, run, 0, event, data, now FROM placed
     )
     SELECT run, thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id FROM placed"
    ),
    concat!(
        "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)
     ON CONFLICT (owner, external_id) DO UPDATE SET updated_at = $5;
     INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
     SELECT id, 1, 1, $6, 1, $7 FROM threads WHERE owner = $2 AND external_id = $3
     ON CONFLICT (thread_id) DO UPDATE SET last_seq = last_seq + 1, last_message_seq = last_message_seq + $6,
         last_order = last_order + 1, head_run_id = COALESCE(head_run_id, $7);
     INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score,
         hinted_at, fence, attempt, crashes, wake_seq, queue_deadline, run_left, policy, agent_id, model, input, input_hash,
         trace, watcher, created_at)
     SELECT $7, $2, h.thread_id, $8, $9, $10, 'queued', h.head_run_id = $7, h.last_order, $11, $12, $5, 0, 0, 0, 0, $13, $14, $15,
         $16, $17, $18, $19, $20, $24, $5
     FROM threads t JOIN thread_heads h ON h.thread_id = t.id WHERE t.owner = $2 AND t.external_id = $3;
     INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
     SELECT h.thread_id, h.last_message_seq - (m.value ->> 'later'), m.value ->> 'id', $7, m.value ->> 'role', m.value ->> 'body', $5
     FROM threads t JOIN thread_heads h ON h.thread_id = t.id, json_each($21) AS m WHERE t.owner = $2 AND t.external_id = $3
       AND NOT EXISTS (SELECT 1 FROM thread_ancestors a JOIN messages p ON p.thread_id = a.ancestor_id AND p.id = m.value ->> 'id'
           LEFT JOIN runs r ON r.id = p.run_id WHERE a.thread_id = t.id AND ",
        inherited!("p"),
        ")
     ON CONFLICT (thread_id, id) DO NOTHING;
     INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
     SELECT h.thread_id, h.last_seq, $7, 0, $22, $23, $5
     FROM threads t JOIN thread_heads h ON h.thread_id = t.id WHERE t.owner = $2 AND t.external_id = $3;
     SELECT h.thread_id, h.last_seq, h.first_seq, h.last_message_seq, h.last_order, h.head_run_id
     FROM threads t JOIN thread_heads h ON h.thread_id = t.id WHERE t.owner = $2 AND t.external_id = $3"
    ),
);
pub const STATEMENTS: &[Sql] = &[ACCEPT];

/// A run, with what its thread gets with it. The run's `thread_id` is the thread's if that is new; `ready` and `thread_order` are
/// for the thread to say.
pub struct Plain<'a> {
    pub run: NewRun,
    /// The client's name of the thread.
    pub thread: &'a str,
    pub listed: bool,
    pub messages: &'a [NewMessage],
    /// Kind and data (JSON) of the run's first event.
    pub event: (&'a str, String),
}

#[derive(Serialize)]
struct Said<'a> {
    /// How many come after it.
    later: usize,
    id: &'a str,
    role: &'a str,
    /// JSON in a string: what the TEXT column holds.
    body: String,
}

/// The thread, and its head after this run has taken its place.
pub struct Placed {
    pub thread_id: Uuid,
    pub head: Head,
}

impl FromRow for Placed {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { thread_id: row.get("thread_id")?, head: Head::from_row(row)? })
    }
}

fn said<'a>(messages: &'a [NewMessage]) -> Result<Vec<Said<'a>>> {
    let said = |(later, m): (usize, &'a NewMessage)| {
        Ok(Said { later, id: &m.id, role: m.role.as_str(), body: serde_json::to_string(&m.body)? })
    };
    messages.iter().rev().enumerate().map(said).collect()
}

/// On SQLite. `DUPLICATE` when the owner has a run of that name: then nothing was written.
pub async fn accept(db: &Db, plain: Plain<'_>) -> Result<Placed> {
    let Plain { run, thread, listed, messages, event } = plain;
    let statement = query(ACCEPT)
        .bind(run.thread_id)
        .bind(run.owner)
        .bind(thread)
        .bind(listed)
        .bind(run.created_at)
        .bind(i64::try_from(messages.len()).map_err(Error::internal)?)
        .bind(run.id)
        .bind(run.external_id)
        .bind(run.kind.as_str())
        .bind(run.lane.as_str())
        .bind(run.priority)
        .bind(run.dispatch_score)
        .bind(run.queue_deadline)
        .bind(run.run_left)
        .bind(serde_json::to_string(&run.policy)?)
        .bind(run.agent_id)
        .bind(run.model)
        .bind(run.input)
        .bind(run.input_hash)
        .bind(run.trace)
        .bind_json(&said(messages)?)?
        .bind(event.0)
        .bind(event.1)
        .bind(run.watcher.map(Watcher::as_str));
    let placed = statement.write(db, Class::Request).await?.into_iter().next();
    placed.ok_or_else(|| Error::internal("an accept answered nothing"))
}

/// A run as Postgres is given it: one object of the statement's list.
pub struct Line {
    pub run: Uuid,
    /// The owner, and their name of the thread.
    pub thread: (String, String),
    json: String,
}

#[derive(Serialize)]
struct LineRow<'a> {
    thread: Uuid,
    owner: &'a str,
    name: &'a str,
    listed: bool,
    now: Timestamp,
    run: Uuid,
    external_id: &'a str,
    kind: &'a str,
    lane: &'a str,
    priority: i64,
    score: i64,
    queue_deadline: Timestamp,
    run_left: i64,
    /// JSON in a string: what the TEXT column holds.
    policy: String,
    agent_id: Option<&'a str>,
    model: Option<&'a str>,
    input: &'a str,
    input_hash: &'a str,
    trace: Option<&'a str>,
    watcher: Option<&'a str>,
    said: Vec<Said<'a>>,
    event: &'a str,
    data: &'a str,
}

impl Line {
    pub fn new(plain: &Plain<'_>) -> Result<Self> {
        let run = &plain.run;
        let json = serde_json::to_string(&LineRow {
            thread: run.thread_id,
            owner: &run.owner,
            name: plain.thread,
            listed: plain.listed,
            now: run.created_at,
            run: run.id,
            external_id: &run.external_id,
            kind: run.kind.as_str(),
            lane: run.lane.as_str(),
            priority: run.priority,
            score: run.dispatch_score,
            queue_deadline: run.queue_deadline,
            run_left: run.run_left,
            policy: serde_json::to_string(&run.policy)?,
            agent_id: run.agent_id.as_deref(),
            model: run.model.as_deref(),
            input: &run.input,
            input_hash: &run.input_hash,
            trace: run.trace.as_deref(),
            watcher: run.watcher.map(Watcher::as_str),
            said: said(plain.messages)?,
            event: plain.event.0,
            data: &plain.event.1,
        })?;
        Ok(Self { run: run.id, thread: (run.owner.clone(), plain.thread.to_owned()), json })
    }
}

struct PlacedRun(Uuid, Placed);

impl FromRow for PlacedRun {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.get("run")?, Placed::from_row(row)?))
    }
}

/// On Postgres: all of them or, when it fails, none. No two may be of one thread. `DUPLICATE` when there is a run of one's name.
pub async fn accept_all(db: &Db, lines: &[Line]) -> Result<HashMap<Uuid, Placed>> {
    let list: Vec<_> = lines.iter().map(|line| line.json.as_str()).collect();
    let placed = query(ACCEPT).bind(format!("[{}]", list.join(","))).write::<PlacedRun>(db, Class::Request).await?;
    Ok(placed.into_iter().map(|PlacedRun(run, placed)| (run, placed)).collect())
}
