//! What the database of a Runmill holds, read past the product: for tests that check what processes left behind.
use anyhow::Result;
use runmill_shared::{
    config::{Config, Secret},
    store::db::{Db, FromRow, Row, Sql, query},
};
use serde_json::Value;
use uuid::Uuid;

const RUNS: Sql = Sql::both(
    "SELECT r.id, r.external_id, r.thread_id, t.external_id AS thread, r.kind, r.state, r.fence, r.crashes,
         r.parent_run_id, r.retry_of, r.error, r.lease_owner,
         (SELECT s.name FROM worker_sessions s WHERE s.id = r.lease_owner) AS worker
     FROM runs r JOIN threads t ON t.id = r.thread_id ORDER BY r.id",
);
const EVENTS: Sql =
    Sql::both("SELECT thread_id, seq, run_id, fence, kind, data, created_at FROM run_events ORDER BY thread_id, seq");
const HEADS: Sql = Sql::both("SELECT thread_id, last_seq, head_run_id FROM thread_heads");
const STEPS: Sql = Sql::both("SELECT run_id, key, status, fence, result FROM run_steps ORDER BY run_id, ordinal");
const MESSAGES: Sql = Sql::both("SELECT run_id, id, role FROM messages ORDER BY thread_id, seq");
const OUTBOX: Sql = Sql::both("SELECT id FROM outbox");

#[derive(Clone, Debug)]
pub struct RunRow {
    pub id: Uuid,
    pub external_id: String,
    pub thread_id: Uuid,
    /// The client's name of it.
    pub thread: String,
    pub kind: String,
    pub state: String,
    pub fence: i64,
    pub crashes: i64,
    pub parent_run_id: Option<Uuid>,
    /// The run that this one tries again.
    pub retry_of: Option<Uuid>,
    /// JSON.
    pub error: Option<String>,
    pub lease_owner: Option<Uuid>,
    /// `PID@HOST` of the process that executes it.
    pub worker: Option<String>,
}

#[derive(Clone, Debug)]
pub struct EventRow {
    pub thread_id: Uuid,
    pub seq: i64,
    pub run_id: Uuid,
    pub fence: i64,
    pub kind: String,
    pub data: Value,
    /// µs since 1970.
    pub created_at: i64,
}

#[derive(Clone, Debug)]
pub struct HeadRow {
    pub thread_id: Uuid,
    pub last_seq: i64,
    pub head_run_id: Option<Uuid>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    pub run_id: Uuid,
    pub key: String,
    pub status: String,
    pub fence: i64,
    pub result: Option<String>,
}

#[derive(Clone, Debug)]
pub struct MessageRow {
    pub run_id: Uuid,
    pub id: String,
    pub role: String,
}

/// Everything, in order.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub runs: Vec<RunRow>,
    /// By thread, then by number.
    pub events: Vec<EventRow>,
    pub heads: Vec<HeadRow>,
    pub steps: Vec<StepRow>,
    /// By thread, then by number.
    pub messages: Vec<MessageRow>,
    /// Notices that nobody has applied.
    pub outbox: usize,
}

impl Ledger {
    /// Opens a database that another process has migrated: a Postgres URL, or the folder of a SQLite file.
    pub async fn open(postgres: Option<&str>, data_dir: &std::path::Path) -> Result<Db> {
        let mut config = Config::defaults()?;
        config.data_dir = data_dir.to_owned();
        config.database.url = Secret::new(postgres.unwrap_or_default());
        config.database.connections = 2;
        config.database.readers = 1;
        Ok(Db::open(&config).await?)
    }

    pub async fn read(db: &Db) -> Result<Self> {
        Ok(Self {
            runs: query(RUNS).all(db).await?,
            events: query(EVENTS).all(db).await?,
            heads: query(HEADS).all(db).await?,
            steps: query(STEPS).all(db).await?,
            messages: query(MESSAGES).all(db).await?,
            outbox: query(OUTBOX).all::<Uuid>(db).await?.len(),
        })
    }

    pub async fn runs(db: &Db) -> Result<Vec<RunRow>> {
        Ok(query(RUNS).all(db).await?)
    }

    /// The run of that name.
    pub fn run(&self, external_id: &str) -> Option<&RunRow> {
        self.runs.iter().find(|run| run.external_id == external_id)
    }

    /// A run's events, in order.
    pub fn events_of(&self, run: Uuid) -> impl Iterator<Item = &EventRow> {
        self.events.iter().filter(move |event| event.run_id == run)
    }

    /// A run's journal, in order.
    pub fn steps_of(&self, run: Uuid) -> impl Iterator<Item = &StepRow> {
        self.steps.iter().filter(move |step| step.run_id == run)
    }
}

impl FromRow for RunRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            external_id: row.get("external_id")?,
            thread_id: row.get("thread_id")?,
            thread: row.get("thread")?,
            kind: row.get("kind")?,
            state: row.get("state")?,
            fence: row.get("fence")?,
            crashes: row.get("crashes")?,
            parent_run_id: row.get("parent_run_id")?,
            retry_of: row.get("retry_of")?,
            error: row.get("error")?,
            lease_owner: row.get("lease_owner")?,
            worker: row.get("worker")?,
        })
    }
}

impl FromRow for EventRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self {
            thread_id: row.get("thread_id")?,
            seq: row.get("seq")?,
            run_id: row.get("run_id")?,
            fence: row.get("fence")?,
            kind: row.get("kind")?,
            data: row.json("data")?,
            created_at: row.get("created_at")?,
        })
    }
}

impl FromRow for HeadRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { thread_id: row.get("thread_id")?, last_seq: row.get("last_seq")?, head_run_id: row.get("head_run_id")? })
    }
}

impl FromRow for StepRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self {
            run_id: row.get("run_id")?,
            key: row.get("key")?,
            status: row.get("status")?,
            fence: row.get("fence")?,
            result: row.get("result")?,
        })
    }
}

impl FromRow for MessageRow {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self { run_id: row.get("run_id")?, id: row.get("id")?, role: row.get("role")? })
    }
}
