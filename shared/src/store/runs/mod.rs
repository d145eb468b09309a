//! The runs: `moves` makes the transitions of `domain::run`, each a compare-and-set; `sweep` makes them in batches for the
//! reconciler; `view` reads; `at_once` and `batch` accept.
pub mod at_once;
pub mod batch;
pub mod moves;
pub mod sweep;
pub mod view;

use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::db::{FromRow, Row, Sql};
use crate::{
    domain::{
        Lane,
        run::{Claimed, Run, RunKind, RunState, Watcher},
    },
    error::{Error, Result},
};

/// Registered statements of the files.
pub fn statements() -> Vec<Sql> {
    [at_once::STATEMENTS, batch::STATEMENTS, moves::STATEMENTS, sweep::STATEMENTS, view::STATEMENTS].concat()
}

/// What the queue needs to know of a run that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub id: Uuid,
    pub lane: Lane,
    pub score: i64,
}

/// One execution of a run: the fence of its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fenced {
    #[serde(serialize_with = "simple::serialize")]
    pub id: Uuid,
    pub fence: i64,
}

impl FromRow for Fenced {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.get("id")?, fence: row.get("fence")? })
    }
}

fn lane(row: &Row) -> Result<Lane> {
    let lane: String = row.get("lane")?;
    Lane::parse(&lane).ok_or_else(|| Error::internal(format!("a stored run has the lane {lane}")))
}

fn kind(row: &Row) -> Result<RunKind> {
    let kind: String = row.get("kind")?;
    RunKind::parse(&kind).ok_or_else(|| Error::internal(format!("a stored run has the kind {kind}")))
}

fn state(row: &Row) -> Result<RunState> {
    let state: String = row.get("state")?;
    RunState::parse(&state).ok_or_else(|| Error::internal(format!("a stored run has the state {state}")))
}

fn watcher(row: &Row) -> Result<Option<Watcher>> {
    let watcher: Option<String> = row.get("watcher")?;
    let parse = |w: String| Watcher::parse(&w).ok_or_else(|| Error::internal(format!("a stored run has the watcher {w}")));
    watcher.map(parse).transpose()
}

impl FromRow for Ready {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.get("id")?, lane: lane(row)?, score: row.get("dispatch_score")? })
    }
}

impl FromRow for Run {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            thread_id: row.get("thread_id")?,
            thread: row.get("thread")?,
            external_id: row.get("external_id")?,
            kind: kind(row)?,
            lane: lane(row)?,
            state: state(row)?,
            attempt: row.get("attempt")?,
            crashes: row.get("crashes")?,
            priority: row.get("priority")?,
            parent_run_id: row.get("parent_run_id")?,
            root_run_id: row.get("root_run_id")?,
            retry_of: row.get("retry_of")?,
            watcher: watcher(row)?,
            paused: row.get("paused")?,
            agent_id: row.get("agent_id")?,
            model: row.get("model")?,
            waiting: row.opt_json("waiting_for")?,
            due_at: row.opt_time("due_at")?,
            result: row.opt_json("result")?,
            error: row.opt_json("error")?,
            usage: row.opt_json("usage")?,
            created_at: row.time("created_at")?,
            started_at: row.opt_time("started_at")?,
            finished_at: row.opt_time("finished_at")?,
        })
    }
}

impl FromRow for Claimed {
    fn from_row(row: &Row) -> Result<Self> {
        let id = row.get("id")?;
        Ok(Self {
            id,
            owner: row.get("owner")?,
            thread_id: row.get("thread_id")?,
            thread: row.get("thread")?,
            external_id: row.get("external_id")?,
            kind: kind(row)?,
            lane: lane(row)?,
            fence: row.get("fence")?,
            attempt: row.get("attempt")?,
            wake_seq: row.get("wake_seq")?,
            run_deadline: row.time("run_deadline")?,
            policy: row.json("policy")?,
            parent_run_id: row.get("parent_run_id")?,
            root_run_id: row.get::<Option<Uuid>>("root_run_id")?.unwrap_or(id),
            retry_of: row.get("retry_of")?,
            watcher: watcher(row)?,
            paused: row.get("paused")?,
            agent_id: row.get("agent_id")?,
            model: row.get("model")?,
            input: row.json("input")?,
            trace: row.get("trace")?,
            ready_at: row.time("ready_at")?,
        })
    }
}
