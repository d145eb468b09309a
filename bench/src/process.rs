//! Processes under measurement: started on loopback, watched through `/proc`, killed when they are dropped.
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use crate::http::{Connection, get};

const START_LIMIT: Duration = Duration::from_secs(20);

pub struct Process(Child);

impl Process {
    /// With nothing of this machine's settings in its environment; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Self(command.spawn().with_context(|| format!("starting {command:?}; build it with `make bench`"))?))
    }

    /// Waits until `path` answers 200.
    pub async fn ready(&mut self, address: SocketAddr, path: &str, log: &Path) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && connection.send(&get(path)).await.is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("a process ended while it was starting: {status}\n{}", fs::read_to_string(log)?);
            }
            if Instant::now() > deadline {
                bail!("a process was not ready within {START_LIMIT:?}\n{}", fs::read_to_string(log)?);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> Result<f64> {
        cpu(&self.0.id().to_string())
    }

    /// Bytes resident now, and at most so far.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
            anyhow::Ok(kilobytes * 1024)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, or not ours any more: there is nobody to tell.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Seconds of processor time that the process `pid` (or `self`) has had.
pub fn cpu(pid: &str) -> Result<f64> {
    /// What Linux tells user space, whatever its own tick is.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces.
    let fields: Vec<_> = stat.rsplit(')').next().context("no process name")?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).context("a short /proc/PID/stat")?.parse::<f64>().map_err(anyhow::Error::from);
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Free now; whoever binds it must do so soon.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
