//! The `runmill` binary as processes of its own, for tests that kill them. A process gets a clean environment, writes its log to a
//! file that is shown when something goes wrong, and is killed when its handle is dropped.
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

const READY_LIMIT: Duration = Duration::from_secs(60);
const EXIT_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// Of a log, in a message.
const TAIL: usize = 6000;

/// One process of `runmill`.
pub struct Runmill {
    /// For messages: `worker-2`.
    pub name: String,
    pub platform: SocketAddr,
    pub ops: SocketAddr,
    binary: PathBuf,
    command: String,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Runmill {
    /// Starts `binary command` with this environment, `PATH` and addresses of its own, and nothing else. Its log is
    /// `logs/NAME.log`.
    pub fn spawn<K, V>(
        binary: impl AsRef<Path>,
        command: &str,
        name: &str,
        logs: &Path,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let (platform, agentos, ops) = (free_address()?, free_address()?, free_address()?);
        let addresses = [("RUNMILL_PLATFORM_ADDR", platform), ("RUNMILL_AGENTOS_ADDR", agentos), ("RUNMILL_OPS_ADDR", ops)];
        let addresses = addresses.map(|(name, address)| (OsString::from(name), OsString::from(address.to_string())));
        let given = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut this = Self {
            name: name.to_owned(),
            platform,
            ops,
            binary: binary.as_ref().to_owned(),
            command: command.to_owned(),
            environment: given.chain(addresses).chain(std::env::var_os("PATH").map(|path| ("PATH".into(), path))).collect(),
            log: logs.join(format!("{name}.log")),
            child: None,
        };
        this.start()?;
        Ok(this)
    }

    /// Starts it again after its end, with the same environment and addresses.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        writeln!(log, "--- {} {} ---", self.name, self.command)?;
        let mut command = Command::new(&self.binary);
        command.arg(&self.command).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("starting {}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until `/readyz` says that nothing is missing.
    ///
    /// # Errors
    /// When the process ends, or is not ready within 30 s; with the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let url = format!("http://{}/readyz", self.ops);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        while Instant::now() < deadline {
            if let Some(status) = self.child()?.try_wait()? {
                self.child = None;
                bail!("{} ended while it was starting: {status}\n{}", self.name, self.log_tail());
            }
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!("{} was not ready within {READY_LIMIT:?}\n{}", self.name, self.log_tail())
    }

    /// Ends it at once, as a crash does.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        // A process that ended by itself has not been crashed by the test.
        let ended = child.try_wait()?;
        child.kill()?;
        let status = child.wait()?;
        ensure!(ended.is_none() && status.signal() == Some(Signal::KILL.as_raw()), "{} had ended before: {status}", self.name);
        Ok(())
    }

    /// Freezes it: it neither runs nor ends.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    pub fn cont(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end in good order.
    pub fn term(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within 30 s; with the end of its log.
    pub async fn exited(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + EXIT_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child()?.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            sleep(POLL).await;
        }
        bail!("{} did not end within {EXIT_LIMIT:?}\n{}", self.name, self.log_tail())
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned()
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let child = self.child()?;
        kill_process(Pid::from_child(child), signal)?;
        Ok(())
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().with_context(|| format!("{} does not run", self.name))
    }
}

impl Drop for Runmill {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL ends a frozen process too; there is nobody to tell when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of {} ends with:\n{}", self.name, self.log_tail());
        }
    }
}

/// A free address on loopback, below the ports that systems give to outgoing connections: nobody takes it while the process that
/// has it is being restarted.
pub fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::rng().random_range(20_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 20000 and 32000")
}

/// An empty file for what a server prints.
pub(crate) fn output(path: &Path) -> Result<(Stdio, Stdio)> {
    let file = File::create(path)?;
    Ok((file.try_clone()?.into(), file.into()))
}
