//! What `/proc` knows of the processes under measurement.
use std::fs;

use anyhow::{Context, Result};

/// Bytes of memory that are resident.
#[derive(Clone, Copy)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kilobytes * 1024)
    };
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// A second in `/proc`, whatever the kernel's own tick is.
pub const TICKS: f64 = 100.0;

/// Seconds of processor time that a process has had.
pub fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces.
    let fields: Vec<_> = stat.rsplit(')').next().context("no process name")?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).context("a short /proc/PID/stat")?.parse::<f64>().map_err(anyhow::Error::from);
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Of all processors, for `seconds`.
pub fn share(cpu: f64, seconds: f64) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cpu / seconds / cores as f64
}
