//! What goes wrong, and when: drawn from a seed, so that a seed tells its plan again. No I/O.
use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// After the first fault nothing is left alone for longer than this, and two faults are never closer than `NEAREST`.
const FARTHEST: f64 = 7.0;
const NEAREST: f64 = 1.5;
/// Before the first fault: the load has to begin.
const CALM_BEFORE: f64 = 4.0;
/// After the last one begins: its damage is repaired within this.
pub const CALM_AFTER: Duration = Duration::from_secs(25);

/// How much there is to break.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub apis: usize,
    pub workers: usize,
    /// The first so many workers have clocks that can be set.
    pub skewed: usize,
    /// Longer than this, a frozen worker has lost its lease.
    pub lease: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    Api(usize),
    Worker(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    Postgres,
    Redis,
    Storage,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// `kill -9`; started again after the pause.
    Kill { process: Process, pause: Duration },
    /// SIGTERM, waited for, started again.
    Drain { process: Process },
    /// SIGSTOP, then SIGCONT.
    Freeze { process: Process, length: Duration },
    /// A restart as an operator does it.
    RestartPostgres,
    /// Killed at once, started again after the pause; Redis comes back empty.
    Crash { server: Server, pause: Duration },
    /// FLUSHALL.
    FlushRedis,
    /// All connections of a process to a server are cut, and new ones refused.
    Cut { process: Process, server: Server, length: Duration },
    /// Every byte between them comes later.
    Delay { process: Process, server: Server, by: Duration, length: Duration },
    /// The clock of a worker's machine is set by so many seconds, and back; `reborn`: its process is started anew in between.
    Skew { worker: usize, by: i64, reborn: bool, length: Duration },
    /// The blob store refuses what is written: it is full.
    Full { length: Duration },
}

impl Fault {
    /// How long it lasts, as far as the plan says.
    pub fn length(&self) -> Duration {
        match self {
            Self::Kill { pause, .. } | Self::Crash { pause, .. } => *pause,
            Self::Freeze { length, .. }
            | Self::Cut { length, .. }
            | Self::Delay { length, .. }
            | Self::Skew { length, .. }
            | Self::Full { length } => *length,
            Self::Drain { .. } | Self::RestartPostgres | Self::FlushRedis => Duration::ZERO,
        }
    }

    /// Whether an API may answer with a server's error, or not at all, because of it. `waits`: the request waits for a run; `stores`: it
    /// reads or writes the blob store.
    pub fn may_fail(&self, api: usize, waits: bool, stores: bool) -> bool {
        match self {
            Self::RestartPostgres | Self::Crash { server: Server::Postgres, .. } => true,
            Self::Kill { process, .. }
            | Self::Drain { process }
            | Self::Freeze { process, .. }
            | Self::Cut { process, .. }
            | Self::Delay { process, .. } => waits || *process == Process::Api(api),
            Self::Crash { server: Server::Storage, .. } | Self::Full { .. } => stores,
            // Whatever asks Redis goes on without it.
            Self::Crash { server: Server::Redis, .. } | Self::FlushRedis | Self::Skew { .. } => waits,
        }
    }

    /// The row of the report that it counts in.
    pub fn name(&self) -> String {
        let kind = |process: &Process| match process {
            Process::Api(_) => "api",
            Process::Worker(_) => "worker",
        };
        match self {
            Self::Kill { process, .. } => format!("kill {}", kind(process)),
            Self::Drain { process } => format!("drain {}", kind(process)),
            Self::Freeze { process, .. } => format!("freeze {}", kind(process)),
            Self::RestartPostgres => "restart Postgres".to_owned(),
            Self::Crash { server, .. } => format!("crash {server}"),
            Self::FlushRedis => "flush Redis".to_owned(),
            Self::Cut { process, server, .. } => format!("cut {} from {server}", kind(process)),
            Self::Delay { process, server, .. } => format!("delay {} to {server}", kind(process)),
            Self::Skew { .. } => "skew worker's clock".to_owned(),
            Self::Full { .. } => "storage full".to_owned(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "Postgres",
            Self::Redis => "Redis",
            Self::Storage => "storage",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = match self {
            Self::Kill { process, .. }
            | Self::Drain { process }
            | Self::Freeze { process, .. }
            | Self::Cut { process, .. }
            | Self::Delay { process, .. } => Some(*process),
            Self::Skew { worker, .. } => Some(Process::Worker(*worker)),
            _ => None,
        };
        let name = match process {
            Some(Process::Api(n)) => self.name().replacen("api", &format!("api {n}"), 1),
            Some(Process::Worker(n)) => self.name().replacen("worker", &format!("worker {n}"), 1),
            None => self.name(),
        };
        f.write_str(&name)?;
        if let Self::Delay { by, .. } = self {
            write!(f, " by {} ms", by.as_millis())?;
        }
        if let Self::Skew { by, reborn, .. } = self {
            write!(f, " by {by} s{}", if *reborn { ", started anew," } else { "" })?;
        }
        if self.length().is_zero() { Ok(()) } else { write!(f, " for {:.1} s", self.length().as_secs_f64()) }
    }
}

/// A fault and its time, from the beginning of the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    pub at: Duration,
    pub fault: Fault,
}

/// The same seed, length and shape: the same plan.
pub fn plan(seed: u64, length: Duration, shape: &Shape) -> Vec<Act> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut at, mut acts) = (CALM_BEFORE, Vec::new());
    let last = length.saturating_sub(CALM_AFTER).as_secs_f64();
    while at < last {
        let fault = draw(&mut random, shape);
        // What is down is not hit again while it is down: a killed process cannot be frozen.
        let busy = fault.length().as_secs_f64();
        acts.push(Act { at: Duration::from_secs_f64(at), fault });
        at += busy + random.random_range(NEAREST..FARTHEST);
    }
    acts
}

fn draw(random: &mut StdRng, shape: &Shape) -> Fault {
    let seconds = |random: &mut StdRng, from: f64, to: f64| Duration::from_secs_f64(random.random_range(from..to));
    let process = process(random, shape);
    let worker = Process::Worker(random.random_range(0..shape.workers));
    match random.random_range(0..100) {
        0..25 => Fault::Kill { process: worker, pause: seconds(random, 0.0, 2.0) },
        25..33 => Fault::Kill { process: Process::Api(random.random_range(0..shape.apis)), pause: seconds(random, 0.0, 1.0) },
        33..43 => Fault::Freeze { process: worker, length: shape.lease + seconds(random, 0.5, 3.0) },
        43..46 => skew(random, shape),
        46..48 => Fault::Freeze { process, length: seconds(random, 0.2, 1.0) },
        48..56 => Fault::Drain { process },
        56..60 => Fault::RestartPostgres,
        60..63 => Fault::Crash { server: Server::Postgres, pause: seconds(random, 0.0, 1.0) },
        63..69 => Fault::Crash { server: Server::Redis, pause: seconds(random, 0.0, 3.0) },
        69..75 => Fault::FlushRedis,
        75..78 => Fault::Crash { server: Server::Storage, pause: seconds(random, 0.5, 3.0) },
        78..89 => Fault::Cut { process, server: link(random), length: seconds(random, 0.1, 4.0) },
        89..96 => {
            let by = Duration::from_millis(random.random_range(5..150));
            Fault::Delay { process, server: link(random), by, length: seconds(random, 1.0, 4.0) }
        }
        96..98 => skew(random, shape),
        _ => Fault::Full { length: seconds(random, 1.0, 4.0) },
    }
}

/// From a drifting clock to one of another day.
fn skew(random: &mut StdRng, shape: &Shape) -> Fault {
    let by = [1, 20, 3600, 100_000].choose(random).copied().unwrap_or(1);
    Fault::Skew {
        worker: random.random_range(0..shape.skewed),
        by: if random.random_bool(0.5) { by } else { -by },
        reborn: random.random_bool(0.4),
        length: Duration::from_secs_f64(random.random_range(1.0..6.0)),
    }
}

fn process(random: &mut StdRng, shape: &Shape) -> Process {
    let n = random.random_range(0..shape.apis + shape.workers);
    if n < shape.apis { Process::Api(n) } else { Process::Worker(n - shape.apis) }
}

fn link(random: &mut StdRng) -> Server {
    [Server::Postgres, Server::Redis].choose(random).copied().unwrap_or(Server::Postgres)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { apis: 2, workers: 4, skewed: 2, lease: Duration::from_secs(2) };
    const LENGTH: Duration = Duration::from_secs(180);

    #[test]
    fn a_seed_tells_its_plan_again_and_another_another() {
        assert_eq!(plan(7, LENGTH, &SHAPE), plan(7, LENGTH, &SHAPE));
        assert_ne!(plan(7, LENGTH, &SHAPE), plan(8, LENGTH, &SHAPE));
    }

    #[test]
    fn a_plan_begins_and_ends_in_calm_and_nothing_is_hit_twice_at_once() {
        for seed in 0..200 {
            let acts = plan(seed, LENGTH, &SHAPE);
            assert!(acts.len() >= 15, "{seed}: {}", acts.len());
            assert!(acts.iter().all(|a| a.at < LENGTH - CALM_AFTER));
            for two in acts.windows(2) {
                assert!(two[1].at >= two[0].at + two[0].fault.length() + Duration::from_secs_f64(NEAREST), "{seed}: {two:?}");
            }
        }
    }

    #[test]
    fn every_fault_comes_in_some_plan() {
        let mut names = std::collections::BTreeSet::new();
        (0..200).for_each(|seed| names.extend(plan(seed, LENGTH, &SHAPE).into_iter().map(|a| a.fault.name())));
        assert_eq!(names.len(), 21, "{names:?}");
    }
}
