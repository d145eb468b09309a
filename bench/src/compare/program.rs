//! A peer's program with all the processes that it starts. Dropping it ends them.
use std::{
    fs::{File, read_dir, read_to_string},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::TICKS;

pub struct Program {
    command: Vec<String>,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    pub fn start(command: &[&str], dir: &Path, environment: &[(&str, String)], log: PathBuf) -> Result<Self> {
        let mut program = Self {
            command: command.iter().map(ToString::to_string).collect(),
            dir: dir.to_owned(),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            log,
            child: None,
        };
        program.start_again()?;
        Ok(program)
    }

    pub fn start_again(&mut self) -> Result<()> {
        let (name, arguments) = self.command.split_first().context("no command")?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(name);
        command.args(arguments).current_dir(&self.dir).env_clear().envs(self.environment.iter().map(|(n, v)| (n, v)));
        command.envs(["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("starting {name}"))?);
        Ok(())
    }

    /// Ends all its processes at once, as a crash of its machine does.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { bail!("{} does not run", self.command.join(" ")) };
        let rest = tree(child.id());
        child.kill()?;
        child.wait()?;
        for pid in rest.into_iter().skip(1).filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // Some end by themselves when their parent is gone.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    /// Of its first process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it was started, as a shell takes it; the folder of this repository is left out.
    pub fn command(&self) -> String {
        self.command.iter().map(|word| word.rsplit('/').next().unwrap_or(word)).collect::<Vec<_>>().join(" ")
    }

    /// # Errors
    /// When it has ended by itself; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.as_mut().context("it does not run")?.try_wait()? else { return Ok(()) };
        bail!("{} has ended: {status}\n{}", self.command.join(" "), self.log_tail())
    }

    pub fn log_tail(&self) -> String {
        let log = read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended; there is nobody to tell.
        let _ = self.kill9();
    }
}

/// A process and all that descend from it, itself first.
pub fn tree(root: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    for entry in read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok())
        {
            pairs.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(pairs.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Seconds of processor time that these processes, their descendants, and those that have ended among them have had.
pub fn cpu(roots: &[u32]) -> f64 {
    let ticks = |pid| {
        let fields = stat(pid).unwrap_or_default();
        // user, system, and the same of the children that were waited for
        fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
    };
    roots.iter().flat_map(|root| tree(*root)).map(ticks).sum::<f64>() / TICKS
}

/// Bytes of memory of these processes and their descendants; what several share is counted once (PSS).
pub fn memory(roots: &[u32]) -> f64 {
    let kilobytes = |pid: u32| -> Option<f64> {
        let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()
    };
    roots.iter().flat_map(|root| tree(*root)).filter_map(kilobytes).sum::<f64>() * 1024.0
}

/// The fields of `/proc/PID/stat` after the name, which may have spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}
