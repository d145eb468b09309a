use std::{
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use runmill_shared::domain::new_id;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::process::{free_address, output};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// Prints the folder of Postgres' programs, which distributions keep off the PATH.
const FIND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres-bin.sh");

/// A Postgres cluster of its own that keeps its promises: everything is synced, so that it may be crashed. Dropping it ends its
/// processes.
pub struct PostgresServer {
    address: SocketAddr,
    password: String,
    user: Option<(u32, u32)>,
    programs: PathBuf,
    // After the child: its folder must outlive it.
    child: Option<Child>,
    dir: TempDir,
}

impl PostgresServer {
    /// Makes a cluster and starts it on a free port.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("runmill-postgres.").tempdir_in("/tmp")?;
        // Postgres refuses to run as root.
        let user = if geteuid().is_root() { Some(unprivileged()?) } else { None };
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let mut server = Self {
            address: free_address()?,
            password: new_id().simple().to_string(),
            user,
            programs: programs()?,
            child: None,
            dir,
        };
        server.initdb()?;
        server.launch().await?;
        Ok(server)
    }

    /// `postgres://USER:PASSWORD@127.0.0.1:PORT/postgres`
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Of the server's first process; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Makes an empty database; answers its URL.
    pub async fn database(&self, name: &str) -> Result<String> {
        let mut connection = self.connect().await?;
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"))).await?;
        connection.close().await?;
        Ok(self.url_of(name))
    }

    /// A fast shutdown, as an operator does it: open transactions are rolled back, connections are cut. Then a start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// A fast shutdown.
    pub async fn stop(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("Postgres does not run")?;
        kill_process(Pid::from_child(child), Signal::INT)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "Postgres did not stop within {STOP_LIMIT:?}");
            sleep(POLL).await;
        }
        self.child = None;
        Ok(())
    }

    /// `kill -9` of the server; its backends follow when they notice.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("Postgres does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a stopped or crashed server again, on the same port; it recovers by itself.
    pub async fn launch(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.try_launch(deadline).await {
                Ok(()) => return Ok(()),
                // After a crash the start is refused as long as backends of the dead server still live.
                Err(_) if Instant::now() < deadline => sleep(POLL * 5).await,
                Err(e) => {
                    let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                    return Err(e.context(format!("Postgres did not start within {START_LIMIT:?}\n{log}")));
                }
            }
        }
    }

    async fn try_launch(&mut self, deadline: Instant) -> Result<()> {
        let port = self.address.port().to_string();
        let (out, err) = output(&self.log())?;
        let sockets = format!("unix_socket_directories={}", self.data().display());
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", &sockets]);
        command.args(["-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "fsync=on"]);
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                bail!("postgres ended: {status}");
            }
            if let Ok(connection) = self.connect().await {
                connection.close().await?;
                self.child = Some(child);
                return Ok(());
            }
            sleep(POLL).await;
        }
        child.kill()?;
        child.wait()?;
        bail!("postgres does not answer")
    }

    fn initdb(&self) -> Result<()> {
        let file = self.dir.path().join("password");
        std::fs::write(&file, &self.password)?;
        std::fs::create_dir(self.data())?;
        if let Some((user, group)) = self.user {
            chown(&file, Some(user), Some(group))?;
            chown(self.data(), Some(user), Some(group))?;
        }
        let mut command = self.program("initdb");
        command.arg("-D").arg(self.data()).args(["-U", "runmill", "-A", "password", "-E", "UTF8", "--locale=C", "-N"]);
        let outcome = command.arg("--pwfile").arg(&file).stdin(Stdio::null()).output()?;
        ensure!(outcome.status.success(), "initdb: {}", String::from_utf8_lossy(&outcome.stderr));
        Ok(())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/").env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    async fn connect(&self) -> Result<PgConnection> {
        let options: PgConnectOptions = self.url().parse()?;
        Ok(tokio::time::timeout(Duration::from_secs(2), options.connect()).await??)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://runmill:{}@{}/{database}", self.password, self.address)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Immediate: it takes its backends with it, and nobody needs the data.
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            let _ = child.wait();
        }
    }
}

fn programs() -> Result<PathBuf> {
    let found = Command::new(FIND).output().with_context(|| format!("running {FIND}"))?;
    ensure!(found.status.success(), "no Postgres here; run scripts/setup.sh test");
    Ok(Path::new(String::from_utf8(found.stdout)?.trim()).to_owned())
}

/// User and group of `postgres`, else of `nobody`.
fn unprivileged() -> Result<(u32, u32)> {
    let id = |flag: &str, user: &str| -> Result<u32> {
        let answer = Command::new("id").args([flag, user]).output()?;
        Ok(String::from_utf8(answer.stdout)?.trim().parse()?)
    };
    let of = |user| Ok((id("-u", user)?, id("-g", user)?));
    of("postgres").or_else(|_: anyhow::Error| of("nobody"))
}
