//! What is compared, and how each of them is started: as its own documentation advises for production.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use runmill_testkit::{process::free_address, services::RedisServer};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    model::Shape,
    program::{self, Program},
    store::Store,
};
use crate::{
    http::{Connection, get, post, post_form},
    system::{Services, System, events, start_run},
};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// Where `make compare` installs the peers, in the folder in which it is started.
pub const INSTALLED: &str = "target/compare";
const START_LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(10);
/// Runs at once of one worker, everywhere.
const AT_ONCE: &str = "500";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// `runmill dev` on SQLite
    Embedded,
    /// `runmill api` and `runmill worker` on Postgres and Redis
    Runmill,
    Agno,
    Celery,
    Bullmq,
    Apalis,
}

impl Peer {
    pub const ALL: [Self; 6] = [Self::Embedded, Self::Runmill, Self::Agno, Self::Celery, Self::Bullmq, Self::Apalis];

    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "Runmill, embedded",
            Self::Runmill => "Runmill",
            Self::Agno => "Agno AgentOS",
            Self::Celery => "Celery",
            Self::Bullmq => "BullMQ",
            Self::Apalis => "apalis-redis",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Embedded | Self::Runmill)
    }

    /// The version, from the list that it is installed by.
    pub fn version(self) -> String {
        let (list, name, quote) = match self {
            Self::Embedded | Self::Runmill => return env!("CARGO_PKG_VERSION").to_owned(),
            Self::Agno => (include_str!("../../peers/agno/requirements.txt"), "agno==", '\n'),
            Self::Celery => (include_str!("../../peers/celery/requirements.txt"), "celery[redis]==", '\n'),
            Self::Bullmq => (include_str!("../../peers/bullmq/package.json"), "\"bullmq\": \"", '"'),
            Self::Apalis => (include_str!("../../../Cargo.lock"), "name = \"apalis-redis\"\nversion = \"", '"'),
        };
        let after = list.split_once(name).map_or("", |(_, after)| after);
        after.split(quote).next().unwrap_or_default().to_owned()
    }

    /// Why a reader cannot follow a run while it works, where that is so.
    pub fn no_events(self) -> Option<&'static str> {
        match self {
            Self::Celery => Some("cannot: a task has a result and no stream of events"),
            Self::Apalis => Some("cannot: a task has a result and no stream of events"),
            _ => None,
        }
    }

    /// What is missing for it to run here, if anything.
    pub fn missing(self) -> Option<String> {
        let needed = match self {
            Self::Agno => format!("{INSTALLED}/agno/bin/uvicorn"),
            Self::Celery => format!("{INSTALLED}/celery/bin/celery"),
            Self::Bullmq => format!("{INSTALLED}/bullmq/node_modules/bullmq/package.json"),
            _ => return None,
        };
        let there = std::path::Path::new(&needed).exists();
        (!there).then(|| format!("no {needed}; `make compare` installs it"))
    }

    /// A request that starts a run of this name; its name is its thread's too.
    pub fn request(self, shape: Shape, run: &str) -> Vec<u8> {
        let message = shape.message(run);
        match self {
            Self::Embedded | Self::Runmill => start_run(run, run, &message, "{}"),
            Self::Agno => post_form("/agents/bench/runs", &agno_form(&message, run, false)),
            _ => post("/runs", &json!({ "id": run, "message": message }).to_string()),
        }
    }
}

fn agno_form(message: &str, run: &str, stream: bool) -> String {
    format!("message={}&session_id={run}&background=true&stream={stream}", message.replace(' ', "+"))
}

enum Processes {
    Ours(System),
    /// The worker last.
    Theirs(Vec<Program>),
}

/// One peer that runs, with a database and a Redis of its own.
pub struct Installation {
    pub peer: Peer,
    pub address: SocketAddr,
    pub store: Store,
    // In the order in which they end.
    processes: Processes,
    redis: Option<RedisServer>,
    shared: Vec<u32>,
    _logs: TempDir,
}

impl Installation {
    /// Starts it on empty stores; it has not been seen to work yet.
    pub async fn start(peer: Peer, services: &Services, model: &str) -> Result<Self> {
        let logs = tempfile::tempdir()?;
        let shared = services.postgres.pid().into_iter().chain([services.redis.pid()]).collect();
        if peer.is_ours() {
            let settings = [
                ("OPENAI_BASE_URL", model),
                ("OPENAI_API_KEY", "sk-bench"),
                ("RUNMILL_MODEL", "openai:bench"),
                ("RUNMILL_LANES__RUNS", AT_ONCE),
            ];
            let system = match peer {
                Peer::Embedded => System::embedded(&settings).await?,
                _ => System::distributed(services, 1, &settings).await?,
            };
            let (address, store) = (system.address, Store::ours(&system.database).await?);
            return Ok(Self { peer, address, store, processes: Processes::Ours(system), redis: None, shared, _logs: logs });
        }
        // What is accepted is in Redis alone, so it is on disk within a second, as BullMQ's documentation wants it.
        let redis = RedisServer::start().await?;
        if peer != Peer::Agno {
            redis.command(&["CONFIG", "SET", "appendonly", "yes"]).await?;
        }
        let (address, url) = (free_address()?, redis.url());
        let database = if peer == Peer::Agno { services.database().await? } else { String::new() };
        let programs = programs(peer, address, &url, &database, model, &logs)?;
        let store = match peer {
            Peer::Agno => Store::agno(&database).await?,
            Peer::Celery => Store::celery(&url).await?,
            Peer::Bullmq => Store::bullmq(&url).await?,
            _ => Store::apalis(&url).await?,
        };
        let processes = Processes::Theirs(programs);
        let mut installation = Self { peer, address, store, processes, redis: Some(redis), shared, _logs: logs };
        installation.answering().await?;
        Ok(installation)
    }

    async fn answering(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.check()?;
            if let Ok(mut connection) = Connection::open(self.address).await
                && connection.send(&get("/health")).await.is_ok()
            {
                return Ok(());
            }
            ensure!(begin.elapsed() < START_LIMIT, "{} does not answer\n{}", self.peer.name(), self.log_tail());
            sleep(LOOK).await;
        }
    }

    /// # Errors
    /// When a program of a peer has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match &mut self.processes {
            Processes::Ours(_) => Ok(()),
            Processes::Theirs(programs) => programs.iter_mut().try_for_each(Program::check),
        }
    }

    pub fn log_tail(&self) -> String {
        match &self.processes {
            Processes::Ours(system) => system.processes.iter().map(|process| process.log_tail()).collect(),
            Processes::Theirs(programs) => programs.iter().map(Program::log_tail).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The command lines.
    pub fn commands(&self) -> Vec<String> {
        match &self.processes {
            Processes::Ours(system) => {
                let roles = if system.processes.len() == 1 { vec!["runmill dev"] } else { vec!["runmill api", "runmill worker"] };
                roles.into_iter().map(|role| format!("RUNMILL_LANES__RUNS={AT_ONCE} {role}")).collect()
            }
            Processes::Theirs(programs) => programs.iter().map(Program::command).collect(),
        }
    }

    fn roots(&self) -> Vec<u32> {
        match &self.processes {
            Processes::Ours(system) => system.processes.iter().filter_map(|process| process.pid()).collect(),
            Processes::Theirs(programs) => programs.iter().filter_map(Program::pid).collect(),
        }
    }

    /// Seconds of processor time of its own processes, and of its databases.
    pub fn cpu(&self) -> [f64; 2] {
        let databases: Vec<_> = self.shared.iter().copied().chain(self.redis.as_ref().map(RedisServer::pid)).collect();
        [program::cpu(&self.roots()), program::cpu(&databases)]
    }

    /// Bytes of its own processes.
    pub fn memory(&self) -> f64 {
        program::memory(&self.roots())
    }

    /// `kill -9` of what executes the runs, which is started again at once.
    pub fn crash_worker(&mut self) -> Result<()> {
        match &mut self.processes {
            Processes::Ours(system) => {
                let worker = system.processes.last_mut().context("no worker")?;
                worker.kill9()?;
                worker.start()
            }
            Processes::Theirs(programs) => {
                let worker = programs.last_mut().context("no worker")?;
                worker.kill9()?;
                worker.start_again()
            }
        }
    }

    pub async fn accept(&self, shape: Shape, run: &str) -> Result<()> {
        Connection::open(self.address).await?.send(&self.peer.request(shape, run)).await?;
        Ok(())
    }

    /// Seconds from the request until its reader is told that the run has begun.
    pub async fn first_event(&self, run: &str) -> Result<f64> {
        let (mut connection, reader) = (Connection::open(self.address).await?, Connection::open(self.address).await?);
        let begin = Instant::now();
        if self.peer == Peer::Agno {
            let request = post_form("/agents/bench/runs", &agno_form(&Shape::Quick.message(run), run, true));
            reader.until(&request, "RunStarted").await?;
            return Ok(begin.elapsed().as_secs_f64());
        }
        connection.send(&self.peer.request(Shape::Quick, run)).await?;
        match self.peer {
            Peer::Embedded | Peer::Runmill => reader.until(&get(&events(run)), "run.started").await?,
            _ => reader.until(&get(&format!("/runs/{run}")), "event: active").await?,
        }
        Ok(begin.elapsed().as_secs_f64())
    }
}

fn programs(peer: Peer, address: SocketAddr, redis: &str, database: &str, model: &str, logs: &TempDir) -> Result<Vec<Program>> {
    let installed = std::env::current_dir()?.join(INSTALLED);
    let tool = |path: &str| installed.join(path).to_string_lossy().into_owned();
    let port = address.port().to_string();
    let environment = [
        ("REDIS_URL", redis.to_owned()),
        ("DATABASE_URL", database.to_owned()),
        ("OPENAI_BASE_URL", model.to_owned()),
        ("PORT", port.clone()),
        ("LISTEN", address.to_string()),
        ("AGNO_TELEMETRY", "false".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("NODE_PATH", tool("bullmq/node_modules")),
        ("NODE_ENV", "production".to_owned()),
    ];
    let start = |folder: &str, name: &str, command: &[&str]| {
        Program::start(command, &PathBuf::from(PEERS).join(folder), &environment, logs.path().join(name))
    };
    let uvicorn = ["--host", "127.0.0.1", "--port", &port, "--workers", "2", "--log-level", "warning"];
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    Ok(match peer {
        Peer::Agno => vec![start("agno", "app", &[&[tool("agno/bin/uvicorn").as_str(), "app:app"], &uvicorn[..]].concat())?],
        Peer::Celery => {
            let (server, celery) = (tool("celery/bin/uvicorn"), tool("celery/bin/celery"));
            let front = [&[server.as_str(), "front:app"], &uvicorn[..]].concat();
            let worker = [celery.as_str(), "-A", "tasks", "worker", "-P", "gevent", "-c", AT_ONCE, "-l", "warning"];
            vec![start("celery", "front", &front)?, start("celery", "worker", &worker)?]
        }
        Peer::Bullmq => {
            vec![start("bullmq", "front", &["node", "front.js"])?, start("bullmq", "worker", &["node", "worker.js"])?]
        }
        _ => vec![start("", "front", &[&own, "apalis-front"])?, start("", "worker", &[&own, "apalis-worker"])?],
    })
}
