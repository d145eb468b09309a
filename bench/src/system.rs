//! Whole installations of the release binary, each with a database and a Redis prefix of its own.
use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use runmill_shared::domain::new_id;
use runmill_testkit::database::{SERVER, TestDatabase};
use sqlx::{Connection as _, PgConnection, Row};
use tempfile::TempDir;

use crate::{
    http::{Connection, get, post},
    process::{Process, free_address},
};

pub const RUNS: &str = "/api/v1/agent/runs";

/// The servers that a distributed installation needs.
pub struct Services {
    pub redis: String,
    /// What decides how durable a commit on this Postgres is.
    pub postgres: String,
}

impl Services {
    pub async fn from_env() -> Result<Self> {
        let need = |name| variable(name).with_context(|| format!("{name} is not set: `make bench` starts servers and sets it"));
        let mut postgres = PgConnection::connect(&need(SERVER)?).await?;
        let settings = "SELECT current_setting('server_version') || ', fsync ' || current_setting('fsync')
            || ', synchronous_commit ' || current_setting('synchronous_commit')";
        let described: String = sqlx::query(settings).fetch_one(&mut postgres).await?.try_get(0)?;
        Ok(Self { redis: need("RUNMILL_TEST_REDIS_URL")?, postgres: format!("Postgres {described}") })
    }
}

#[expect(clippy::disallowed_methods, reason = "settings of the benchmarks and not of the product")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub async fn postgres() -> Result<TestDatabase> {
    TestDatabase::postgres_from_env().await.with_context(|| format!("{SERVER} is not set"))
}

/// The API first; all are killed when this is dropped.
pub struct System {
    pub processes: Vec<Process>,
    pub address: SocketAddr,
    // Dropped after the processes that use them.
    _database: Option<TestDatabase>,
    _dir: TempDir,
}

impl System {
    /// `runmill dev` on SQLite.
    pub async fn embedded(settings: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (process, address) = start(&dir, "dev", settings).await?;
        Ok(Self { processes: vec![process], address, _database: None, _dir: dir })
    }

    /// `runmill api` and `workers` times `runmill worker`, on Postgres and Redis.
    pub async fn distributed(services: &Services, workers: usize, settings: &[(&str, &str)]) -> Result<Self> {
        let (dir, database) = (tempfile::tempdir()?, postgres().await?);
        let (url, prefix) = (database.config().database.url, format!("bench-{}", new_id().simple()));
        let named = [
            ("RUNMILL_DATABASE_URL", url.expose()),
            ("RUNMILL_REDIS_URL", services.redis.as_str()),
            ("RUNMILL_REDIS__PREFIX", prefix.as_str()),
        ];
        let settings = [named.as_slice(), settings].concat();
        let (api, address) = start(&dir, "api", &settings).await?;
        let mut processes = vec![api];
        for _ in 0..workers {
            processes.push(start(&dir, "worker", &settings).await?.0);
        }
        Ok(Self { processes, address, _database: Some(database), _dir: dir })
    }

    /// Seconds of processor time of all its processes.
    pub fn cpu(&self) -> Result<f64> {
        self.processes.iter().map(Process::cpu).sum()
    }

    pub async fn accept(&self, thread: &str, run: &str, message: &str) -> Result<()> {
        Connection::open(self.address).await?.send(&start_run(thread, run, message, "{}")).await?;
        Ok(())
    }

    /// How many runs are in `state`, up to `limit`.
    pub async fn count(&self, connection: &mut Connection, state: &str, limit: usize) -> Result<usize> {
        let answer = connection.send(&get(&format!("{RUNS}?status={state}&limit={limit}"))).await?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        Ok(answer["runs"].as_array().context("a list of runs")?.len())
    }

    /// What a benchmark of speed must not hide.
    pub async fn none_failed(&self) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        for state in ["failed", "cancelled"] {
            ensure!(self.count(&mut connection, state, 1).await? == 0, "runs have {state}");
        }
        Ok(())
    }
}

/// The request that starts a run. `props` is the JSON of its forwardedProps.
pub fn start_run(thread: &str, run: &str, message: &str, props: &str) -> Vec<u8> {
    let messages = format!(r#"[{{"id":"{run}","role":"user","content":"{message}"}}]"#);
    post(RUNS, &format!(r#"{{"threadId":"{thread}","runId":"{run}","messages":{messages},"forwardedProps":{props}}}"#))
}

async fn start(dir: &TempDir, role: &str, settings: &[(&str, &str)]) -> Result<(Process, SocketAddr)> {
    let (platform, operators) = (free_address()?, free_address()?);
    let log = dir.path().join(format!("{role}-{}.log", operators.port()));
    let mut command = Command::new(beside("runmill")?);
    command.env_clear().current_dir(dir.path()).arg(role).envs([
        ("RUNMILL_DATA_DIR", "data"),
        ("RUNMILL_PLATFORM_ADDR", &platform.to_string()),
        ("RUNMILL_OPS_ADDR", &operators.to_string()),
        // Counted as ever, and never reached.
        ("RUNMILL_HTTP__REQUESTS_PER_MINUTE", "100000000"),
        ("RUNMILL_RUNS__MAX_QUEUED", "10000000"),
        ("RUST_LOG", "warn"),
    ]);
    command.envs(settings.iter().copied());
    let mut process = Process::start(&mut command, &log)?;
    match role {
        "worker" => process.ready(operators, "/readyz", &log).await?,
        _ => process.ready(platform, "/health", &log).await?,
    }
    Ok((process, platform))
}

/// Another program of the same build.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
