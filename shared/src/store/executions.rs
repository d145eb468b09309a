//! Runs as their owner sees them: with what they were asked, what they are part of, and what they did.
use uuid::Uuid;

use super::{
    db::{Db, FromRow, Row, Sql, query},
    runs::view::run_columns,
};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        message::MessageBody,
        run::{Run, RunKind, RunState},
        step::StepKind,
    },
    error::{Error, Result},
};

pub struct Record {
    pub run: Run,
    /// As the run's kind reads it; of an agent's run nothing.
    pub input: serde_json::Value,
    /// Whether its thread is a conversation.
    pub listed: bool,
    /// What its user said last in it.
    pub message: Option<MessageBody>,
    /// The goal that it plans or executes, or whose task it executes.
    pub goal_id: Option<Uuid>,
}

impl FromRow for Record {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            run: Run::from_row(row)?,
            input: row.json("input")?,
            listed: row.get("listed")?,
            message: row.opt_json("message")?,
            goal_id: row.get("goal_id")?,
        })
    }
}

/// A row of the journal, with its times.
pub struct Step {
    pub key: String,
    pub kind: StepKind,
    pub name: String,
    pub intent: serde_json::Value,
    pub result: Option<serde_json::Value>,
    /// Of the run that this one is a retry of.
    pub inherited: bool,
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
            inherited: row.get::<i64>("fence")? == 0,
            started_at: row.time("started_at")?,
            finished_at: row.opt_time("finished_at")?,
        })
    }
}

pub struct Child {
    pub id: Uuid,
    pub kind: RunKind,
    pub state: RunState,
    pub agent_id: Option<String>,
}

impl FromRow for Child {
    fn from_row(row: &Row) -> Result<Self> {
        let (kind, state): (String, String) = (row.get("kind")?, row.get("state")?);
        let unknown = || Error::internal(format!("a stored run is a {state} {kind}"));
        Ok(Self {
            id: row.get("id")?,
            kind: RunKind::parse(&kind).ok_or_else(unknown)?,
            state: RunState::parse(&state).ok_or_else(unknown)?,
            agent_id: row.get("agent_id")?,
        })
    }
}

/// The tools and the state that a client sent with its message are its own business, and large.
macro_rules! record {
    ($goal:literal, $task:literal) => {
        concat!(
            "SELECT ",
            run_columns!(),
            ", t.listed, CASE WHEN r.kind = 'agent' THEN '{}' ELSE r.input END AS input,
             CASE WHEN r.kind IN ('agent', 'task') THEN (SELECT m.body FROM messages m WHERE m.run_id = r.id AND m.role = 'user'
                 ORDER BY m.seq DESC LIMIT 1) END AS message,
             CASE WHEN r.kind IN ('goal', 'goal_plan') THEN ",
            $goal,
            " WHEN r.kind = 'task' THEN (SELECT k.goal_id FROM tasks k WHERE k.id = ",
            $task,
            ") END AS goal_id FROM runs r JOIN threads t ON t.id = r.thread_id "
        )
    };
}

/// Each is skipped when it is NULL; those of a list and of its count are numbered alike.
macro_rules! filters {
    () => {
        "WHERE r.owner = $1 AND (CAST($2 AS TEXT) IS NULL OR r.state = $2) AND (CAST($3 AS TEXT) IS NULL OR r.kind = $3)
           AND (CAST($4 AS TEXT) IS NULL OR r.agent_id = $4) AND (CAST($5 AS UUID) IS NULL OR r.thread_id = $5)
           AND (CAST($6 AS BIGINT) IS NULL OR r.created_at >= $6) AND (CAST($7 AS BIGINT) IS NULL OR r.created_at < $7) "
    };
}

/// Few runs are of goals: they have an index of their own, which the condition on the kind names.
macro_rules! of_goal {
    ($goal:literal, $task:literal) => {
        concat!(
            "AND r.kind IN ('goal', 'goal_plan', 'task') AND $8 = CASE WHEN r.kind = 'task' THEN (SELECT k.goal_id FROM tasks k WHERE k.id = ",
            $task,
            ") WHEN r.kind IN ('goal', 'goal_plan') THEN ",
            $goal,
            " END "
        )
    };
}

macro_rules! postgres {
    ($macro:ident) => {
        $macro!("(r.input::json ->> 'goal_id')::UUID", "(r.input::json ->> 'task_id')::UUID")
    };
}

macro_rules! sqlite {
    ($macro:ident) => {
        $macro!("unhex(r.input ->> 'goal_id', '-')", "unhex(r.input ->> 'task_id', '-')")
    };
}

pub const ONE: Sql = Sql::each(
    concat!(postgres!(record), "WHERE r.id = $1 AND r.owner = $2"),
    concat!(sqlite!(record), "WHERE r.id = $1 AND r.owner = $2"),
);
/// Newest first.
pub const LIST: Sql = Sql::each(
    concat!(postgres!(record), filters!(), "AND (CAST($8 AS UUID) IS NULL OR r.id < $8) ORDER BY r.id DESC LIMIT $9 OFFSET $10"),
    concat!(sqlite!(record), filters!(), "AND ($8 IS NULL OR r.id < $8) ORDER BY r.id DESC LIMIT $9 OFFSET $10"),
);
pub const LIST_OF_GOAL: Sql = Sql::each(
    concat!(
        postgres!(record),
        filters!(),
        postgres!(of_goal),
        "AND (CAST($9 AS UUID) IS NULL OR r.id < $9) ORDER BY r.id DESC LIMIT $10 OFFSET $11"
    ),
    concat!(
        sqlite!(record),
        filters!(),
        sqlite!(of_goal),
        "AND ($9 IS NULL OR r.id < $9) ORDER BY r.id DESC LIMIT $10 OFFSET $11"
    ),
);
pub const TOTAL: Sql = Sql::both(concat!("SELECT COUNT(*) AS n FROM runs r ", filters!()));
pub const TOTAL_OF_GOAL: Sql = Sql::each(
    concat!("SELECT COUNT(*) AS n FROM runs r ", filters!(), postgres!(of_goal)),
    concat!("SELECT COUNT(*) AS n FROM runs r ", filters!(), sqlite!(of_goal)),
);
pub const STEPS: Sql = Sql::both(
    "SELECT s.key, s.kind, s.name, s.intent, s.result, s.fence, s.started_at, s.finished_at
     FROM run_steps s JOIN runs r ON r.id = s.run_id WHERE s.run_id = $1 AND r.owner = $2 ORDER BY s.ordinal",
);
/// The journal names those that it started, and they are found by it: an ended run has no index by its parent.
pub const CHILDREN: Sql = Sql::each(
    "SELECT id, kind, state, agent_id FROM runs WHERE owner = $2
       AND id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id)) ORDER BY id",
    "SELECT id, kind, state, agent_id FROM runs WHERE owner = $2
       AND id IN (SELECT unhex(j.value) FROM json_each($1) AS j) ORDER BY id",
);
pub const STATEMENTS: &[Sql] = &[ONE, LIST, LIST_OF_GOAL, TOTAL, TOTAL_OF_GOAL, STEPS, CHILDREN];

/// Which runs of an owner's.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<RunState>,
    pub kind: Option<RunKind>,
    pub agent_id: Option<String>,
    pub goal_id: Option<Uuid>,
    pub thread_id: Option<Uuid>,
    /// Accepted from here on …
    pub from: Option<Timestamp>,
    /// … and before this.
    pub to: Option<Timestamp>,
}

impl Filter {
    fn bind(&self, owner: &Owner, all: Sql, of_goal: Sql) -> super::db::Query {
        let sql = if self.goal_id.is_some() { of_goal } else { all };
        let statement = query(sql)
            .bind(owner.as_str())
            .bind(self.state.map(RunState::as_str))
            .bind(self.kind.map(RunKind::as_str))
            .bind(self.agent_id.clone())
            .bind(self.thread_id)
            .bind(self.from)
            .bind(self.to);
        if self.goal_id.is_some() { statement.bind(self.goal_id) } else { statement }
    }
}

pub async fn one(db: &Db, owner: &Owner, id: Uuid) -> Result<Option<Record>> {
    query(ONE).bind(id).bind(owner.as_str()).optional_as(db).await
}

/// Newest first; with `before` only those older than that run.
pub async fn list(db: &Db, owner: &Owner, filter: &Filter, before: Option<Uuid>, limit: i64, offset: i64) -> Result<Vec<Record>> {
    filter.bind(owner, LIST, LIST_OF_GOAL).bind(before).bind(limit).bind(offset).all(db).await
}

pub async fn total(db: &Db, owner: &Owner, filter: &Filter) -> Result<i64> {
    filter.bind(owner, TOTAL, TOTAL_OF_GOAL).one(db).await?.get("n")
}

/// In the order in which they were started.
pub async fn steps(db: &Db, owner: &Owner, id: Uuid) -> Result<Vec<Step>> {
    query(STEPS).bind(id).bind(owner.as_str()).all(db).await
}

pub async fn children(db: &Db, owner: &Owner, ids: &[Uuid]) -> Result<Vec<Child>> {
    query(CHILDREN).bind_ids(ids).bind(owner.as_str()).all(db).await
}
