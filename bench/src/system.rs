//! Whole installations of the release binary, each with a database and a Redis prefix of its own.
use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use runmill_shared::{
    config::{Config, Secret},
    domain::new_id,
    store::{db::Db, migrate::migrate},
};
use runmill_testkit::{
    process::Runmill,
    services::{PostgresServer, RedisServer},
};
use sqlx::{Connection as _, PgConnection, Row};
use tempfile::TempDir;

use crate::{
    http::{Connection, get, post},
    process::cpu,
};

pub const RUNS: &str = "/api/v1/agent/runs";

/// The servers that a distributed installation needs; they end with this.
pub struct Services {
    pub redis: RedisServer,
    pub postgres: PostgresServer,
    /// What decides how durable a commit is.
    pub durability: String,
}

impl Services {
    pub async fn start() -> Result<Self> {
        let postgres = PostgresServer::start().await?;
        let mut connection = PgConnection::connect(&postgres.url()).await?;
        let settings = "SELECT current_setting('server_version') || ', fsync ' || current_setting('fsync')
            || ', synchronous_commit ' || current_setting('synchronous_commit')";
        let described: String = sqlx::query(settings).fetch_one(&mut connection).await?.try_get(0)?;
        connection.close().await?;
        Ok(Self { redis: RedisServer::start().await?, postgres, durability: format!("Postgres {described}") })
    }

    /// The URL of a new database.
    pub async fn database(&self) -> Result<String> {
        self.postgres.database(&format!("bench_{}", new_id().simple())).await
    }
}

/// The API first; all are killed when this is dropped.
pub struct System {
    pub processes: Vec<Runmill>,
    pub address: SocketAddr,
    /// The URL of its Postgres, or the path of its SQLite file.
    pub database: String,
    // After the processes that use it.
    _dir: TempDir,
}

impl System {
    /// `runmill dev` on SQLite.
    pub async fn embedded(settings: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let process = start(&dir, "dev", "dev", settings).await?;
        let database = dir.path().join("data/runmill.db").to_string_lossy().into_owned();
        Ok(Self { address: process.platform, processes: vec![process], database, _dir: dir })
    }

    /// `runmill api`, and `runmill worker` so many times, on Postgres and Redis.
    pub async fn distributed(services: &Services, workers: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let (dir, database) = (tempfile::tempdir()?, services.database().await?);
        let mut config = Config::defaults()?;
        config.database.url = Secret::new(database.as_str());
        let db = Db::open(&config).await?;
        migrate(&db).await?;
        db.close().await;
        let (redis, prefix) = (services.redis.url(), format!("bench-{}", new_id().simple()));
        let named =
            [("RUNMILL_DATABASE_URL", database.as_str()), ("RUNMILL_REDIS_URL", &redis), ("RUNMILL_REDIS__PREFIX", &prefix)];
        let settings = [named.as_slice(), settings].concat();
        let mut processes = vec![start(&dir, "api", "api", &settings).await?];
        for n in 0..workers {
            processes.push(start(&dir, "worker", &format!("worker-{n}"), &settings).await?);
        }
        Ok(Self { address: processes[0].platform, processes, database, _dir: dir })
    }

    /// Seconds of processor time of all its processes.
    pub fn cpu(&self) -> Result<f64> {
        self.processes.iter().filter_map(Runmill::pid).map(cpu).sum()
    }

    pub fn api(&self) -> Result<u32> {
        self.processes[0].pid().context("the API has ended")
    }

    /// Starts a run; `message` and `props` (the JSON of forwardedProps) as in `start_run`.
    pub async fn accept(&self, thread: &str, run: &str, message: &str, props: &str) -> Result<()> {
        Connection::open(self.address).await?.send(&start_run(thread, run, message, props)).await?;
        Ok(())
    }

    /// Whether runs are in this state.
    pub async fn has(&self, connection: &mut Connection, state: &str) -> Result<bool> {
        let answer = connection.send(&get(&format!("{RUNS}?status={state}&limit=1"))).await?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        Ok(!answer["runs"].as_array().context("a list of runs")?.is_empty())
    }

    /// What a benchmark of speed must not hide.
    pub async fn none_failed(&self) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        ensure!(!self.has(&mut connection, "failed").await?, "runs have failed");
        Ok(())
    }
}

/// The request that starts a run. Its texts are put into JSON as they are.
pub fn start_run(thread: &str, run: &str, message: &str, props: &str) -> Vec<u8> {
    let messages = format!(r#"[{{"id":"{run}","role":"user","content":"{message}"}}]"#);
    post(RUNS, &format!(r#"{{"threadId":"{thread}","runId":"{run}","messages":{messages},"forwardedProps":{props}}}"#))
}

/// Where a thread's events are read from the first on.
pub fn events(thread: &str) -> String {
    format!("{RUNS}/{thread}/events?Last-Event-ID=0")
}

async fn start(dir: &TempDir, role: &str, name: &str, settings: &[(&str, &str)]) -> Result<Runmill> {
    let data = dir.path().join("data");
    let mut environment = vec![
        ("RUNMILL_DATA_DIR", data.to_string_lossy().into_owned()),
        // Counted as ever, and never reached.
        ("RUNMILL_HTTP__REQUESTS_PER_MINUTE", "100000000".to_owned()),
        ("RUST_LOG", "warn".to_owned()),
    ];
    environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let mut process = Runmill::spawn(beside("runmill")?, role, name, dir.path(), environment)?;
    process.ready().await?;
    Ok(process)
}

/// Another program of the same build.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
