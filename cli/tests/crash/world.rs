//! All processes of one scenario: Postgres, Redis, S3, a scripted model, APIs and workers.
use std::{ffi::OsString, time::Duration};

use runmill_shared::store::db::{Db, Sql, query};
use runmill_testkit::{
    database::TestDatabase,
    ledger::Ledger,
    model_server::Reply,
    process::Runmill,
    s3_server::S3Server,
    services::{PostgresServer, RedisServer},
};
use tempfile::TempDir;
use tokio::{sync::MutexGuard, time::Instant};
use uuid::Uuid;

use crate::{
    TURN,
    client::{Client, Reader},
    eventually,
    model::{Call, Model},
};

const BINARY: &str = env!("CARGO_BIN_EXE_runmill");
/// Of a worker here: a dead one's runs are given back after this, and a look of the reconciler.
pub const LEASE: Duration = Duration::from_millis(2000);

/// How many processes, and what is special about them.
pub struct Setup {
    pub apis: usize,
    pub workers: usize,
    /// A cluster that the scenario may crash.
    pub own_postgres: bool,
    pub settings: Vec<(&'static str, String)>,
    /// What is done to the database before any process sees it.
    pub prepare: &'static [Sql],
}

impl Default for Setup {
    fn default() -> Self {
        Self { apis: 1, workers: 1, own_postgres: false, settings: Vec::new(), prepare: &[] }
    }
}

enum Postgres {
    Shared(Box<TestDatabase>),
    Own(PostgresServer),
}

/// Dropped from the top: first the processes, then what they use.
pub struct World {
    pub client: Client,
    pub apis: Vec<Runmill>,
    pub workers: Vec<Runmill>,
    pub db: Db,
    pub model: Model,
    pub redis: RedisServer,
    postgres: Postgres,
    _s3: S3Server,
    pub logs: TempDir,
    environment: Vec<(OsString, OsString)>,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// Everything started and ready.
    pub async fn start(setup: Setup, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let turn = TURN.lock().await;
        let (logs, s3, redis) = (tempfile::tempdir().unwrap(), S3Server::start(), RedisServer::start().await.unwrap());
        let model = Model::start(script).await;
        let (postgres, url) = postgres(setup.own_postgres).await;
        let own = [("RUNMILL_DATABASE_URL", url.clone()), ("RUNMILL_REDIS_URL", redis.url())];
        let settings = own.into_iter().chain(s3.environment()).chain(settings(&model, &logs)).chain(setup.settings);
        let mut world = Self {
            client: Client::new(Vec::new()),
            apis: Vec::new(),
            workers: Vec::new(),
            db: Ledger::open(Some(&url), logs.path()).await.unwrap(),
            model,
            redis,
            postgres,
            _s3: s3,
            environment: settings.map(|(name, value)| (name.into(), value.into())).collect(),
            logs,
            _turn: turn,
        };
        for statement in setup.prepare {
            query(*statement).all::<()>(&world.db).await.unwrap();
        }
        let mut migrate = world.process("migrate", "migrate");
        assert!(migrate.exited().await.unwrap().success(), "{}", migrate.log_tail());
        for i in 0..setup.apis {
            world.apis.push(world.process("api", &format!("api-{i}")));
        }
        world.client = Client::new(world.apis.iter().map(|api| api.platform).collect());
        for _ in 0..setup.workers {
            world.add_worker();
        }
        for process in world.apis.iter_mut().chain(&mut world.workers) {
            process.ready().await.unwrap();
        }
        world
    }

    fn process(&self, command: &str, name: &str) -> Runmill {
        Runmill::spawn(BINARY, command, name, self.logs.path(), self.environment.iter().cloned()).unwrap()
    }

    /// Starts one more worker; it may not be ready yet.
    pub fn add_worker(&mut self) -> &mut Runmill {
        let worker = self.process("worker", &format!("worker-{}", self.workers.len()));
        self.workers.push(worker);
        self.workers.last_mut().unwrap()
    }

    /// The cluster that the scenario asked for as its own.
    pub fn postgres(&mut self) -> &mut PostgresServer {
        match &mut self.postgres {
            Postgres::Own(server) => server,
            Postgres::Shared(database) => panic!("{} is not this scenario's own", database.name()),
        }
    }

    /// Starts `n` runs, each in a thread of its own with a reader: `prefix-0`, `prefix-1` …
    pub async fn submit(&self, prefix: &str, n: usize) -> Vec<Reader> {
        let one = |i: usize| async move {
            let name = format!("{prefix}-{i}");
            self.client.accept(&name, &name).await;
            self.client.read(&name)
        };
        futures::future::join_all((0..n).map(one)).await
    }

    /// Which worker executes the run now.
    pub async fn holder(&self, run: &str) -> usize {
        eventually(&format!("a worker has {run}"), || async {
            let runs = Ledger::runs(&self.db).await.ok()?;
            let row = runs.into_iter().find(|row| row.external_id == run)?;
            let name = row.worker?;
            let pid: u32 = name.split('@').next()?.parse().ok()?;
            self.workers.iter().position(|worker| worker.pid() == Some(pid))
        })
        .await
    }

    /// Waits until so many runs are being executed.
    pub async fn held(&self, n: usize) {
        eventually(&format!("{n} runs are executed"), || async {
            let runs = Ledger::runs(&self.db).await.ok()?;
            (runs.iter().filter(|run| run.lease_owner.is_some()).count() == n).then_some(())
        })
        .await;
    }

    /// Ids that are in the queue now; none while it is away.
    pub async fn hints(&self) -> Option<Vec<Uuid>> {
        let mut connection = self.redis.connection().await.ok()?;
        let mut all = Vec::new();
        for lane in ["runs", "plans", "media", "bulk"] {
            let mut command = redis::cmd("ZRANGE");
            let members: Vec<String> =
                command.arg(format!("runmill:lane:{lane}")).arg(0).arg(-1).query_async(&mut connection).await.ok()?;
            all.extend(members.iter().filter_map(|member| member.parse::<Uuid>().ok()));
        }
        Some(all)
    }
}

async fn postgres(own: bool) -> (Postgres, String) {
    let shared = if own { None } else { TestDatabase::postgres_from_env().await };
    if let Some(database) = shared {
        let url = database.config().database.url.expose().to_owned();
        return (Postgres::Shared(Box::new(database)), url);
    }
    let server = PostgresServer::start().await.unwrap();
    let url = server.database("runmill").await.unwrap();
    (Postgres::Own(server), url)
}

fn settings(model: &Model, logs: &TempDir) -> Vec<(&'static str, String)> {
    let mut all = model_settings(model);
    all.extend([
        ("RUNMILL_DATA_DIR", logs.path().join("data").display().to_string()),
        ("RUNMILL_DATABASE__CONNECTIONS", "8".to_owned()),
        ("RUNMILL_WORKER__HEARTBEAT", "500ms".to_owned()),
        ("RUNMILL_WORKER__LEASE", format!("{}ms", LEASE.as_millis())),
        ("RUNMILL_WORKER__DRAIN", "200ms".to_owned()),
        ("RUNMILL_HTTP__SHUTDOWN_GRACE", "2s".to_owned()),
        ("RUNMILL_HTTP__REQUESTS_PER_MINUTE", "0".to_owned()),
    ]);
    all
}

/// What every process needs, whatever it stores its data in.
pub fn model_settings(model: &Model) -> Vec<(&'static str, String)> {
    vec![
        ("RUNMILL_AUTH", "open".to_owned()),
        ("RUNMILL_MODEL", "openai:scripted".to_owned()),
        ("OPENAI_BASE_URL", model.server.base_url()),
        ("OPENAI_API_KEY", "a-key-of-the-test".to_owned()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
    ]
}

/// One row of the table that `--nocapture` shows.
pub fn report(scenario: &str, first: Duration, all: Duration) {
    println!(
        "recovery | {scenario:<52} | first new event {:>8.3} s | all ended {:>8.3} s",
        first.as_secs_f64(),
        all.as_secs_f64()
    );
}

/// From `since` to the first event of each reader after it: the earliest of them.
pub fn first_after(since: Instant, all: &[crate::client::Seen]) -> Duration {
    let after = all.iter().flat_map(|seen| seen.frames.iter().map(|frame| frame.at).find(|at| *at > since));
    after.min().map_or(Duration::MAX, |at| at - since)
}

/// From `since` to the first time that one of the runs was taken up again: for runs that were writing until the last moment.
pub fn restarted_after(since: Instant, all: &[crate::client::Seen]) -> Duration {
    let started = |seen: &crate::client::Seen| {
        seen.frames.iter().filter(|frame| frame.event == "run.started").map(|frame| frame.at).find(|at| *at > since)
    };
    all.iter().filter_map(started).min().map_or(Duration::MAX, |at| at - since)
}

/// From `since` to the last event of all readers.
pub fn last_of(since: Instant, all: &[crate::client::Seen]) -> Duration {
    let last = all.iter().filter_map(|seen| seen.frames.last()).map(|frame| frame.at).max();
    last.map_or(Duration::MAX, |at| at.saturating_duration_since(since))
}
