//! Many runs at once, each in a new thread of its own: what `at_once` does for one. One statement and one round trip on Postgres, whatever
//! their number; on SQLite a few.
use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::super::db::{Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::run::{RetryPolicy, Watcher},
    error::Result,
};

/// One whose name is taken, as a thread's or a run's, is left out.
pub const ACCEPT: Sql = Sql::each(
    "WITH wanted AS MATERIALIZED (
         SELECT * FROM json_to_recordset($1::JSON) AS j (id UUID, thread_id UUID, owner TEXT, name TEXT, kind TEXT, lane TEXT,
             agent_id TEXT, input TEXT, message_id TEXT, message TEXT)
     ), thread AS (
         INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
         SELECT w.thread_id, w.owner, w.name, FALSE, $2::BIGINT, $2::BIGINT FROM wanted w
         WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.owner = w.owner AND r.external_id = w.name)
         ON CONFLICT (owner, external_id) DO NOTHING RETURNING id
     ), run AS (
         INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score,
             hinted_at, fence, attempt, crashes, wake_seq, queue_deadline, run_left, policy, agent_id, input, input_hash, watcher,
             created_at)
         SELECT w.id, w.owner, w.thread_id, w.name, w.kind, w.lane, 'queued', TRUE, 1, 0, $2::BIGINT, $2::BIGINT, 0, 0, 0, 0,
             $3::BIGINT, $4::BIGINT, $5::TEXT, w.agent_id, w.input, w.name, $6::TEXT, $2::BIGINT
         FROM wanted w JOIN thread t ON t.id = w.thread_id RETURNING id
     ), head AS (
         INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
         SELECT w.thread_id, 1, 1, 1, 1, w.id FROM wanted w JOIN thread t ON t.id = w.thread_id
     ), said AS (
         INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
         SELECT w.thread_id, 1, w.message_id, w.id, 'user', w.message, $2::BIGINT FROM wanted w JOIN thread t ON t.id = w.thread_id
     ), told AS (
         INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
         SELECT w.thread_id, 1, w.id, 0, $7::TEXT, $8::TEXT, $2::BIGINT FROM wanted w JOIN thread t ON t.id = w.thread_id
     )
     SELECT id FROM run",
    "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
     SELECT unhex(w.value ->> 'thread_id'), w.value ->> 'owner', w.value ->> 'name', FALSE, $2, $2 FROM json_each($1) AS w
     WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.owner = w.value ->> 'owner' AND r.external_id = w.value ->> 'name')
     ON CONFLICT (owner, external_id) DO NOTHING;
     INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score, hinted_at,
         fence, attempt, crashes, wake_seq, queue_deadline, run_left, policy, agent_id, input, input_hash, watcher, created_at)
     SELECT unhex(w.value ->> 'id'), t.owner, t.id, t.external_id, w.value ->> 'kind', w.value ->> 'lane', 'queued', TRUE, 1, 0, $2, $2,
         0, 0, 0, 0, $3, $4, $5, w.value ->> 'agent_id', w.value ->> 'input', t.external_id, $6, $2
     FROM json_each($1) AS w JOIN threads t ON t.id = unhex(w.value ->> 'thread_id');
     INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
     SELECT t.id, 1, 1, 1, 1, unhex(w.value ->> 'id') FROM json_each($1) AS w JOIN threads t ON t.id = unhex(w.value ->> 'thread_id');
     INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at)
     SELECT t.id, 1, w.value ->> 'message_id', unhex(w.value ->> 'id'), 'user', w.value ->> 'message', $2
     FROM json_each($1) AS w JOIN threads t ON t.id = unhex(w.value ->> 'thread_id');
     INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
     SELECT t.id, 1, unhex(w.value ->> 'id'), 0, $7, $8, $2
     FROM json_each($1) AS w JOIN threads t ON t.id = unhex(w.value ->> 'thread_id');
     SELECT unhex(w.value ->> 'id') AS id FROM json_each($1) AS w JOIN threads t ON t.id = unhex(w.value ->> 'thread_id')",
);
pub const STATEMENTS: &[Sql] = &[ACCEPT];

/// A run with one message of a user, in a thread that nobody sees among theirs. `name` names both.
#[derive(Serialize)]
pub struct Alone {
    #[serde(serialize_with = "simple::serialize")]
    pub id: Uuid,
    #[serde(serialize_with = "simple::serialize")]
    pub thread_id: Uuid,
    pub owner: String,
    pub name: String,
    pub kind: &'static str,
    pub lane: &'static str,
    pub agent_id: Option<String>,
    /// JSON.
    pub input: String,
    pub message_id: String,
    /// JSON: a `MessageBody`.
    pub message: String,
}

/// What all of them have alike.
pub struct Terms<'a> {
    pub queue_deadline: Timestamp,
    /// µs of running that each may take.
    pub run_left: i64,
    pub policy: &'a RetryPolicy,
    pub watcher: Watcher,
    /// Kind and data (JSON) of each one's first event.
    pub event: (&'a str, String),
}

/// Answers which have been accepted: those whose name was free.
pub async fn accept(tx: &mut Tx, runs: &[Alone], terms: Terms<'_>, now: Timestamp) -> Result<Vec<Uuid>> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query(ACCEPT).bind_json(&runs)?.bind(now).bind(terms.queue_deadline).bind(terms.run_left);
    let statement = statement.bind(serde_json::to_string(terms.policy)?).bind(terms.watcher.as_str());
    statement.bind(terms.event.0).bind(terms.event.1).all(tx).await
}
