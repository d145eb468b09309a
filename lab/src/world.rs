//! Everything that runs: Postgres, Redis, an S3 server, a model, the tools' server, APIs and workers, each reaching its servers through
//! proxies of its own.
use std::{
    collections::HashMap,
    ffi::OsString,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use runmill_shared::store::db::Db;
use runmill_testkit::{
    http_server::{HttpServer, Response},
    ledger::Ledger,
    process::Runmill,
    s3_server::S3Server,
    services::{PostgresServer, RedisServer},
    whisper_model::{Script, write_scripted_model},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    clock::WallClock,
    model::Model,
    moves,
    plan::{Process, Server, Shape},
    proxy::{Condition, Proxy},
};

/// One process, and its ways to the servers.
pub struct Node {
    pub process: Runmill,
    postgres: Proxy,
    redis: Proxy,
    clock: Option<WallClock>,
}

/// Dropped from the top: first the processes, then what they use.
pub struct World {
    pub apis: Vec<Node>,
    pub workers: Vec<Node>,
    pub db: Db,
    pub postgres: PostgresServer,
    pub redis: RedisServer,
    pub s3: S3Server,
    pub model: Model,
    calls: Calls,
    pub logs: TempDir,
}

/// How often each tool call came, by its idempotency key.
type Calls = Arc<Mutex<HashMap<String, usize>>>;

impl World {
    pub async fn start(shape: &Shape) -> Result<Self> {
        let logs = tempfile::Builder::new().prefix("runmill-lab.").tempdir()?;
        let (postgres, redis, s3) = (PostgresServer::start().await?, RedisServer::start().await?, S3Server::start());
        let database = postgres.database("runmill").await?;
        let (tools, calls) = counting();
        let model = Model::start(tools.url.clone()).await?;
        let whisper = logs.path().join("scripted.bin");
        write_scripted_model(&whisper, &Script { language: "en", segments: vec![(0.0, 1.0, "as it is scripted")] })?;
        let host = tools.url.trim_start_matches("http://").to_owned();
        let settings = [
            ("RUNMILL_DATABASE_URL", database.clone()),
            ("RUNMILL_REDIS_URL", redis.url()),
            ("RUNMILL_AUTH", "open".to_owned()),
            ("RUNMILL_MODEL", "openai:scripted".to_owned()),
            ("OPENAI_BASE_URL", model.server.base_url()),
            ("OPENAI_API_KEY", "a-key-of-the-lab".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("RUNMILL_DATA_DIR", logs.path().join("data").display().to_string()),
            ("RUNMILL_DATABASE__CONNECTIONS", "8".to_owned()),
            ("RUNMILL_HTTP__REQUESTS_PER_MINUTE", "0".to_owned()),
            ("RUNMILL_TOOLS__CALLS_PER_MINUTE", "0".to_owned()),
            ("RUNMILL_TRANSCRIBE__PER_MINUTE", "100000".to_owned()),
            ("RUNMILL_BLOBS__ORPHAN_AGE", "20s".to_owned()),
            ("RUNMILL_APPROVALS__EXPIRES", "10s".to_owned()),
            ("RUNMILL_AGENTS__DEMO__TOOLS", r#"["http_request", "ask_human"]"#.to_owned()),
            ("RUNMILL_WHISPER_MODEL", whisper.display().to_string()),
            ("RUNMILL_SECURITY__ALLOW_PRIVATE_HOSTS", format!("[\"{host}\"]")),
        ];
        let settings: Vec<_> =
            settings.into_iter().chain(s3.environment()).map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
        let mut migrate = Runmill::spawn(binary()?, "migrate", "migrate", logs.path(), settings.iter().cloned())?;
        ensure!(migrate.exited().await?.success(), "{}", migrate.log_tail());
        let db = Ledger::open(Some(&database), logs.path()).await?;
        moves::install(&db).await?;
        let (apis, workers) = (Vec::new(), Vec::new());
        let mut world = Self { apis, workers, db, postgres, redis, s3, model, calls, logs };
        for n in 0..shape.apis {
            let api = world.node("api", n, &database, &settings).await?;
            world.apis.push(api);
        }
        for n in 0..shape.workers {
            let mut settings = settings.clone();
            let clock = if n < shape.skewed { WallClock::new(&world.logs.path().join(format!("clock-{n}")))? } else { None };
            settings.extend(clock.iter().flat_map(WallClock::environment));
            let worker = Node { clock, ..world.node("worker", n, &database, &settings).await? };
            world.workers.push(worker);
        }
        for node in world.apis.iter_mut().chain(&mut world.workers) {
            node.process.ready().await?;
        }
        Ok(world)
    }

    async fn node(&self, command: &str, n: usize, database: &str, settings: &[(OsString, OsString)]) -> Result<Node> {
        let (postgres, redis) = (through(database).await?, through(&self.redis.url()).await?);
        let own = [("RUNMILL_DATABASE_URL", postgres.1), ("RUNMILL_REDIS_URL", redis.1)];
        let own = own.map(|(k, v)| (OsString::from(k), OsString::from(v)));
        let mut environment: std::collections::BTreeMap<_, _> = settings.iter().cloned().collect();
        environment.extend(own);
        let name = format!("{command}-{n}");
        let process = Runmill::spawn(binary()?, command, &name, self.logs.path(), environment)?;
        Ok(Node { process, postgres: postgres.0, redis: redis.0, clock: None })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.apis.iter().map(|api| api.process.platform).collect()
    }

    pub fn node_mut(&mut self, process: Process) -> &mut Node {
        match process {
            Process::Api(n) => &mut self.apis[n],
            Process::Worker(n) => &mut self.workers[n],
        }
    }

    /// How often each tool call reached the tools' server.
    pub fn tool_calls(&self) -> HashMap<String, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the processes' logs say of panics.
    pub fn panics(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for file in std::fs::read_dir(self.logs.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read(&path)?;
                let panicked = String::from_utf8_lossy(&log);
                all.extend(
                    panicked
                        .lines()
                        .filter(|line| line.contains("panicked at"))
                        .map(|line| format!("{}: {line}", path.display())),
                );
            }
        }
        Ok(all)
    }

    /// Ids that are in the queue now.
    pub async fn hints(&self) -> Result<Vec<Uuid>> {
        let mut connection = self.redis.connection().await?;
        let mut all = Vec::new();
        for lane in ["runs", "plans", "media", "bulk"] {
            let mut command = redis::cmd("ZRANGE");
            let members: Vec<String> =
                command.arg(format!("runmill:lane:{lane}")).arg(0).arg(-1).query_async(&mut connection).await?;
            all.extend(members.iter().filter_map(|member| member.parse::<Uuid>().ok()));
        }
        Ok(all)
    }
}

impl Node {
    pub fn link(&self, server: Server) -> Option<&Proxy> {
        match server {
            Server::Postgres => Some(&self.postgres),
            Server::Redis => Some(&self.redis),
            Server::Storage => None,
        }
    }

    /// Sets the clock of its machine by so many seconds from the true time.
    pub fn set_clock(&self, by: i64) -> Result<()> {
        self.clock.as_ref().map_or(Ok(()), |clock| clock.set(by))
    }

    /// Up, with whole connections, whatever happened to it.
    pub async fn heal(&mut self) -> Result<()> {
        self.postgres.set(Condition::default());
        self.redis.set(Condition::default());
        self.set_clock(0)?;
        if !self.process.is_running() {
            self.process.start()?;
        }
        self.process.ready().await
    }
}

/// A proxy to the server of a URL, and the URL through it.
async fn through(url: &str) -> Result<(Proxy, String)> {
    let host = url.rsplit('@').next().and_then(|rest| rest.trim_start_matches("redis://").split('/').next());
    let host = host.context("a URL without a host")?;
    let proxy = Proxy::start(host.parse()?).await?;
    let through = url.replace(host, &proxy.address.to_string());
    Ok((proxy, through))
}

/// The binary that was built beside this one.
fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("runmill");
    ensure!(path.is_file(), "{} is not there: build it with `cargo build -p runmill`", path.display());
    Ok(path)
}

fn counting() -> (HttpServer, Calls) {
    let calls = Calls::default();
    let counted = calls.clone();
    let server = HttpServer::start(move |request| {
        let key = request.header("idempotency-key").unwrap_or_default().to_owned();
        *counted.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        Response::new(200, "counted")
    });
    (server, calls)
}
