//! The run engine on real databases: each statement, each service, and what they promise when many use them at once. Every test
//! runs on SQLite, and on Postgres too when the environment names a server.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
mod accept;
mod branches;
mod cancel;
mod ends;
mod holding;
mod layers;
mod log;
mod models;
mod notifications;
mod plans;
mod processes;
mod races;
mod recovery;
mod schedules;
mod statements;
mod store;
mod stress;
mod table;
mod tasks;
mod transitions;
mod waiting;

use std::{future::Future, time::Duration};

use runmill_shared::{
    app::App,
    clock::{Clock, Timestamp},
    config::Config,
    domain::{
        caller::{Caller, Owner},
        event::{Event, NewEvent},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Claimed, Multitask, Priority, Run, RunKind, RunState, RunUsage},
        step::{StepKind, StepWrite},
    },
    services::runs::{
        accept::{Accepted, Work, accept},
        control,
        execution::{self, Claim, Doubt, End, Unit, Writes},
    },
    store::{
        db::{FromRow, Row, Sql, Tx, query},
        events,
        runs::moves,
        sessions,
    },
};
use runmill_testkit::database::{TestDatabase, databases};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

const START: Timestamp = Timestamp(1_700_000_000_000_000);
/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);

/// An `App` on a database of its own, with a clock that stands still.
struct World {
    app: App,
    name: &'static str,
    database: TestDatabase,
}

async fn worlds() -> Vec<World> {
    worlds_with(|_| {}).await
}

async fn worlds_with(change: impl Fn(&mut Config)) -> Vec<World> {
    let mut all = Vec::new();
    for database in databases().await {
        all.push(World::open(database, &change).await);
    }
    all
}

impl World {
    async fn open(database: TestDatabase, change: &impl Fn(&mut Config)) -> Self {
        let mut config = database.config();
        change(&mut config);
        let mut app = App::open(config).await.unwrap();
        app.clock = Clock::manual(START);
        Self { app, name: database.name(), database }
    }

    fn later(&self, d: Duration) {
        self.app.clock.advance(d);
    }

    async fn tx(&self) -> Tx {
        self.app.db.begin().await.unwrap()
    }

    async fn accept(&self, thread: &str, run: &str) -> Accepted {
        accept(&self.app, &owner(), &work(thread, run)).await.unwrap()
    }

    /// By a session of its own.
    async fn claim(&self, id: Uuid) -> Claimed {
        self.try_claim(id, self.session().await).await.expect("it is ready")
    }

    async fn try_claim(&self, id: Uuid, session: Uuid) -> Option<Claimed> {
        claimed_by(&self.app, id, session).await
    }

    /// A worker session that stays live.
    async fn session(&self) -> Uuid {
        let id = new_id();
        sessions::open(&self.app.db, id, "worker", self.app.clock.now(), Timestamp(i64::MAX)).await.unwrap();
        id
    }

    async fn started(&self, thread: &str, run: &str) -> Claimed {
        let id = self.accept(thread, run).await.id;
        self.claim(id).await
    }

    async fn finish(&self, run: &Claimed) {
        finish(&self.app, run).await.unwrap();
    }

    async fn run(&self, id: Uuid) -> Run {
        control::get(&self.app, &Caller::local(), id).await.unwrap()
    }

    async fn state(&self, id: Uuid) -> RunState {
        self.run(id).await.state
    }

    /// A number of a run's row.
    async fn column(&self, id: Uuid, column: &str) -> Option<i64> {
        let text = format!("SELECT {column} AS n FROM runs WHERE id = $1");
        query(sql(text)).bind(id).one(&self.app.db).await.unwrap().get("n").unwrap()
    }

    async fn is_ready(&self, id: Uuid) -> bool {
        self.column(id, "CASE WHEN ready THEN CAST(1 AS BIGINT) ELSE 0 END").await == Some(1)
    }

    async fn execute(&self, text: &str) {
        let mut tx = self.tx().await;
        query(sql(text.to_owned())).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn count(&self, from: &str) -> i64 {
        query(sql(format!("SELECT COUNT(*) AS n FROM {from}"))).one(&self.app.db).await.unwrap().get("n").unwrap()
    }

    async fn live_sessions(&self, now: Timestamp) -> i64 {
        self.count(&format!("worker_sessions WHERE expires_at > {}", now.0)).await
    }

    async fn thread_of(&self, id: Uuid) -> Uuid {
        self.run(id).await.thread_id
    }

    async fn log(&self, thread_id: Uuid) -> Vec<Event> {
        events::page(&self.app.db, thread_id, 0, 100_000).await.unwrap()
    }

    async fn kinds(&self, run: Uuid) -> Vec<String> {
        let log = self.log(self.thread_of(run).await).await;
        log.into_iter().filter(|e| e.run_id == run).map(|e| e.kind).collect()
    }

    /// What holds at every moment: gapless logs, one active run a thread, heads that name the first live run, and only heads ready.
    async fn check(&self) {
        let holes = "(SELECT thread_id FROM run_events GROUP BY thread_id
             HAVING COUNT(*) <> MAX(seq) - MIN(seq) + 1) AS holes";
        assert_eq!(self.count(holes).await, 0, "{}: a log has a hole", self.name);
        let ends = "thread_heads h WHERE last_seq <> COALESCE((SELECT MAX(seq) FROM run_events e WHERE e.thread_id = h.thread_id), first_seq - 1)";
        assert_eq!(self.count(ends).await, 0, "{}: a head and its log disagree", self.name);
        let heads = "thread_heads h WHERE EXISTS (SELECT 1 FROM runs r WHERE r.thread_id = h.thread_id AND r.thread_order IS NOT NULL
             AND r.state IN ('queued', 'running', 'waiting')) AND (h.head_run_id IS NULL OR h.head_run_id <> (SELECT r.id FROM runs r
             WHERE r.thread_id = h.thread_id AND r.thread_order IS NOT NULL AND r.state IN ('queued', 'running', 'waiting')
             ORDER BY r.thread_order LIMIT 1))";
        assert_eq!(self.count(heads).await, 0, "{}: a head is not the first live run of its thread", self.name);
        let strays = "runs r JOIN thread_heads h ON h.thread_id = r.thread_id
             WHERE (r.ready OR r.state IN ('running', 'waiting')) AND (h.head_run_id IS NULL OR h.head_run_id <> r.id)";
        assert_eq!(self.count(strays).await, 0, "{}: a run is active and not the head", self.name);
        let claims =
            "runs WHERE (state = 'running') <> (lease_owner IS NOT NULL) OR (state = 'running') <> (run_deadline IS NOT NULL)
             OR (ready AND state <> 'queued') OR (wake_at IS NOT NULL AND state <> 'waiting')
             OR (state IN ('succeeded', 'failed', 'cancelled')) <> (finished_at IS NOT NULL)";
        assert_eq!(self.count(claims).await, 0, "{}: a row contradicts itself", self.name);
        for (table, column, of) in
            [("run_events", "thread_id", "threads"), ("messages", "thread_id", "threads"), ("run_steps", "run_id", "runs")]
        {
            let left = self.count(&format!("{table} WHERE {column} NOT IN (SELECT id FROM {of})")).await;
            assert_eq!(left, 0, "{}: {table} that outlived what they are of", self.name);
        }
    }
}

fn sql(text: String) -> Sql {
    Sql::both(Box::leak(text.into_boxed_str()))
}

fn owner() -> Owner {
    Caller::local().can(runmill_shared::domain::caller::Scope::Write).unwrap().clone()
}

fn work(thread: &str, run: &str) -> Work {
    Work {
        kind: RunKind::Agent,
        thread: thread.to_owned(),
        listed: true,
        run: run.to_owned(),
        input: "{}".to_owned(),
        hash: format!("hash of {run}"),
        idempotency_key: None,
        messages: vec![message(&format!("m-{run}"), "hello")],
        priority: Priority::Normal,
        run_at: None,
        multitask: Multitask::Enqueue,
        agent_id: None,
        model: None,
        retry_of: None,
        watcher: None,
        trace: None,
    }
}

fn message(id: &str, text: &str) -> NewMessage {
    NewMessage { id: id.to_owned(), role: MessageRole::User, body: MessageBody::text(text) }
}

/// A run's part of a flush that has only events.
fn unit(run: &Claimed, events: Vec<NewEvent>) -> Unit<'_> {
    Unit { run, writes: Writes { events, ..Writes::default() } }
}

/// Writes a step that the run has begun.
async fn step(app: &App, run: &Claimed) {
    let step = StepWrite::Start { key: "1".into(), ordinal: 1, kind: StepKind::Child, name: "c".into(), intent: json!({}) };
    let unit = Unit { run, writes: Writes { steps: vec![step], ..Writes::default() } };
    assert!(execution::flush(app, vec![unit], &mut Doubt::default()).await.unwrap().is_empty());
}

/// What a worker's process does with a hint.
async fn claimed_by(app: &App, id: Uuid, session: Uuid) -> Option<Claimed> {
    moves::claim(&app.db, &[Claim { run: id, session }], app.clock.now()).await.unwrap().pop()
}

fn delta(text: &str) -> NewEvent {
    NewEvent::new("text.delta", json!({ "messageId": "m", "delta": text }))
}

async fn finish(app: &App, run: &Claimed) -> runmill_shared::Result<()> {
    let (result, usage) = (json!("done"), RunUsage { input_tokens: 1, output_tokens: 2, ..RunUsage::default() });
    let end = End::succeeded(result.clone()).using(usage);
    let writes = Writes { events: vec![NewEvent::finished(&result, usage, &[])], ..Writes::default() };
    execution::end(app, run, end, writes).await
}

/// Waits until `condition` answers true.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
