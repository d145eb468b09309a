//! Servers that tests and the benchmark start for themselves on a free loopback port, and that end with them.
mod postgres;

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub use self::postgres::PostgresServer;

const START_LIMIT: Duration = Duration::from_secs(10);
const TRIES: usize = 5;

/// A `redis-server` (7 or newer, from PATH) that keeps nothing on disk. Dropping it kills the process.
pub struct RedisServer {
    port: u16,
    dir: TempDir,
    child: Child,
}

impl RedisServer {
    /// Starts on a free port and waits until it answers.
    pub async fn start() -> Result<Self> {
        let mut last = None;
        // Between looking for a free port and binding it another process may take it.
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let dir = tempfile::tempdir()?;
            let child = spawn_redis(port, &dir)?;
            let mut server = Self { port, dir, child };
            match server.wait().await {
                Ok(()) => return Ok(server),
                Err(e) => last = Some(e),
            }
        }
        Err(last.context("no try was made")?)
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Of the server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection of the test's own, for what the code under test does not say.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(START_LIMIT));
        Ok(Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// Sends one command, as an operator would: `["CLIENT", "PAUSE", "1500", "ALL"]`.
    pub async fn command(&self, words: &[&str]) -> Result<()> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        Ok(command.exec_async(&mut self.connection().await?).await?)
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts a killed server again under the same port; it is empty.
    pub async fn restart(&mut self) -> Result<()> {
        self.child = spawn_redis(self.port, &self.dir)?;
        self.wait().await
    }

    async fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let client = Client::open(self.url())?;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("redis-server ended while it was starting: {status}");
            }
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("redis-server did not answer within {START_LIMIT:?}")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Already gone after `kill`; there is nobody to tell in either case.
        let _ = self.kill();
    }
}

fn spawn_redis(port: u16, dir: &TempDir) -> Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("redis-server (7 or newer) must be on PATH")
}
