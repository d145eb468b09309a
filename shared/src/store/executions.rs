//! What a run did, as its owner may see it.
use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, query};
use crate::{
    clock::Timestamp,
    domain::{caller::Owner, message::MessageBody, run::RunState, step::StepKind},
    error::{Error, Result},
};

pub struct Request {
    /// As the run's kind reads it.
    pub input: serde_json::Value,
    /// Whether its thread is a conversation.
    pub listed: bool,
    /// What its user said last in it.
    pub message: Option<MessageBody>,
}

impl FromRow for Request {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { input: row.json("input")?, listed: row.get("listed")?, message: row.opt_json("message")? })
    }
}

/// A row of the journal, with its times.
pub struct Step {
    pub key: String,
    pub kind: StepKind,
    pub name: String,
    pub intent: serde_json::Value,
    pub result: Option<serde_json::Value>,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

impl FromRow for Step {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        Ok(Self {
            key: row.get("key")?,
            kind: StepKind::parse(&kind).ok_or_else(|| Error::internal(format!("a stored step has the kind {kind}")))?,
            name: row.get("name")?,
            intent: row.json("intent")?,
            result: row.opt_json("result")?,
            started_at: row.time("started_at")?,
            finished_at: row.opt_time("finished_at")?,
        })
    }
}

pub struct Child {
    pub id: Uuid,
    pub state: RunState,
    pub agent_id: Option<String>,
}

impl FromRow for Child {
    fn from_row(row: &Row) -> Result<Self> {
        let state: String = row.get("state")?;
        Ok(Self {
            id: row.get("id")?,
            state: RunState::parse(&state).ok_or_else(|| Error::internal(format!("a stored run has the state {state}")))?,
            agent_id: row.get("agent_id")?,
        })
    }
}

pub const REQUEST: Sql = Sql::both(
    "SELECT r.input, t.listed, (SELECT m.body FROM messages m WHERE m.run_id = r.id AND m.role = 'user' ORDER BY m.seq DESC LIMIT 1) AS message
     FROM runs r JOIN threads t ON t.id = r.thread_id WHERE r.id = $1 AND r.owner = $2",
);
pub const STEPS: Sql = Sql::both(
    "SELECT s.key, s.kind, s.name, s.intent, s.result, s.started_at, s.finished_at FROM run_steps s JOIN runs r ON r.id = s.run_id
     WHERE s.run_id = $1 AND r.owner = $2 ORDER BY s.ordinal",
);
/// The journal names those that it started, and they are found by it: an ended run has no index by its parent.
pub const CHILDREN: Sql = Sql::each(
    "SELECT id, state, agent_id FROM runs WHERE owner = $2
       AND id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id)) ORDER BY id",
    "SELECT id, state, agent_id FROM runs WHERE owner = $2 AND id IN (SELECT unhex(j.value) FROM json_each($1) AS j) ORDER BY id",
);
pub const STATEMENTS: &[Sql] = &[REQUEST, STEPS, CHILDREN];

pub async fn request(db: &Db, owner: &Owner, id: Uuid) -> Result<Option<Request>> {
    query(REQUEST).bind(id).bind(owner.as_str()).optional_as(db).await
}

/// In the order in which they were started.
pub async fn steps(db: &Db, owner: &Owner, id: Uuid) -> Result<Vec<Step>> {
    query(STEPS).bind(id).bind(owner.as_str()).all(db).await
}

pub async fn children(db: &Db, owner: &Owner, ids: &[Uuid]) -> Result<Vec<Child>> {
    let ids: Vec<_> = ids.iter().map(|id| id.simple().to_string()).collect();
    query(CHILDREN).bind_json(&ids)?.bind(owner.as_str()).all(db).await
}
