//! Schedules: which instants a pattern names, and what becomes of each. The next instant follows from the pattern and from how far the
//! schedule has come, so there is nothing to re-arm: whoever looks, however late, finds the same instants.
mod check;

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cron::CronSchedule;
use crate::{clock::Timestamp, error::Result};

/// Missed instants are counted up to here.
pub const COUNTED: u64 = 300;
const SECOND: Duration = Duration::from_secs(1);

/// What a schedule starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Agent,
    Workflow,
    Goal,
}

impl TargetKind {
    pub const ALL: [Self; 3] = [Self::Agent, Self::Workflow, Self::Goal];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workflow => "workflow",
            Self::Goal => "goal",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub kind: TargetKind,
    /// A UUID; of an agent from the settings its key.
    pub id: String,
}

/// What happens to an instant that comes while a run of the schedule has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// There is no run for it.
    #[default]
    Skip,
    /// It waits for the run before it, if no other waits already: the first keeps its place.
    BufferOne,
    /// It waits, and so does every other, in their order.
    BufferAll,
    /// The runs before it are cancelled.
    CancelPrevious,
    /// It runs beside them.
    Allow,
}

impl Overlap {
    pub const ALL: [Self; 5] = [Self::Skip, Self::BufferOne, Self::BufferAll, Self::CancelPrevious, Self::Allow];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::BufferAll => "buffer_all",
            Self::CancelPrevious => "cancel_previous",
            Self::Allow => "allow",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }

    pub fn buffers(self) -> bool {
        matches!(self, Self::BufferOne | Self::BufferAll)
    }
}

/// Which of the instants that nobody was there for are made up for; `None`: as the settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatchUp {
    /// Those that are not older.
    pub window_seconds: Option<u64>,
    /// The latest of them, so many.
    pub max: Option<u64>,
}

/// What the `schedules.spec` column holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    pub cron: String,
    pub timezone: String,
    /// Of an agent the message: text, or JSON.
    pub input: Value,
    /// No instant before it.
    pub starts_at: Option<Timestamp>,
    /// No instant after it.
    pub ends_at: Option<Timestamp>,
    /// A run starts so much later at most; how much follows from the schedule and the instant.
    pub jitter_seconds: u64,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    /// Failures in a row after which it pauses itself; `None`: as the settings say.
    pub max_failures: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub target: Target,
    pub spec: Spec,
    pub enabled: bool,
    /// Why it paused itself.
    pub paused_reason: Option<String>,
    /// In a row.
    pub failures: i64,
    /// All instants up to this one have been dealt with.
    pub fired_until: Timestamp,
    /// When the next instant is due, jitter added.
    pub next_at: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Schedule {
    pub fn timetable(&self) -> Result<Timetable> {
        Timetable::of(self.id, &self.spec)
    }

    /// The name of the run of an instant, and of the thread that an agent's has for itself.
    pub fn run_name(&self, instant: Timestamp) -> String {
        format!("schedule-{}-{}", self.id, instant.0)
    }
}

/// What became of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FireStatus {
    /// It has a run, whose end has not been told yet.
    Started,
    /// It waits for the run before it.
    Buffered,
    Succeeded,
    /// Its run failed, or there could be none.
    Failed,
    Cancelled,
    /// Another run was in its way.
    Skipped,
    /// Nobody was there when it came, and it was too late, or one of too many, for making up for it.
    Missed,
}

impl FireStatus {
    pub const ALL: [Self; 7] =
        [Self::Started, Self::Buffered, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Skipped, Self::Missed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Buffered => "buffered",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// The instants of a schedule.
pub struct Timetable {
    id: Uuid,
    cron: CronSchedule,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    jitter: Duration,
    overlap: Overlap,
}

/// How far back a look reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub window: Duration,
    pub max: usize,
    /// Instants that may wait for the one before.
    pub buffered: usize,
    /// Instants that are dealt with in one go; those after them are due still.
    pub at_once: usize,
}

/// What is there already of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// Runs that have not ended.
    pub running: usize,
    /// Instants that wait.
    pub buffered: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A run starts; the schedule's others are cancelled first, where it says so.
    Start {
        at: Timestamp,
        cancels: bool,
    },
    Buffer {
        at: Timestamp,
    },
    Skip {
        at: Timestamp,
        why: &'static str,
    },
    /// Instants from `since` on that are not made up for. `count` is `COUNTED` when there are more.
    Missed {
        since: Timestamp,
        until: Timestamp,
        count: u64,
    },
}

impl Action {
    /// The instant up to which it deals with things.
    pub fn until(&self) -> Timestamp {
        match self {
            Self::Start { at, .. } | Self::Buffer { at } | Self::Skip { at, .. } => *at,
            Self::Missed { until, .. } => *until,
        }
    }
}

/// Those that are due now.
struct Due {
    missed: Option<Action>,
    instants: Vec<Timestamp>,
}

impl Timetable {
    /// # Errors
    /// `Invalid` with the field `cron` or `timezone`.
    pub fn of(id: Uuid, spec: &Spec) -> Result<Self> {
        Ok(Self {
            id,
            cron: CronSchedule::parse(&spec.cron, &spec.timezone)?,
            starts_at: spec.starts_at,
            ends_at: spec.ends_at,
            jitter: Duration::from_secs(spec.jitter_seconds),
            overlap: spec.overlap,
        })
    }

    /// The first instant after `at`.
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let from = self.starts_at.map_or(at, |start| at.max(Timestamp(start.0 - 1)));
        self.cron.next(from).filter(|next| self.ends_at.is_none_or(|end| *next <= end))
    }

    /// The first `count` instants after `at`.
    pub fn upcoming(&self, at: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(at), |at| self.next(*at)).take(count).collect()
    }

    /// When an instant's run starts: always the same delay, and never as late as the instant after it.
    pub fn due_at(&self, instant: Timestamp) -> Timestamp {
        if self.jitter.is_zero() {
            return instant;
        }
        let gap = self.next(instant).map_or(self.jitter, |next| next.since(instant));
        let most = self.jitter.min(gap).as_micros().max(1);
        let mut hash = Sha256::new();
        hash.update(self.id.as_bytes());
        hash.update(instant.0.to_be_bytes());
        let mut start = [0; 8];
        start.copy_from_slice(&hash.finalize()[..8]);
        let delay = u128::from(u64::from_be_bytes(start)) % most;
        instant.after(Duration::from_micros(u64::try_from(delay).unwrap_or(0)))
    }

    /// When the first instant after `at` is due: what has to be looked at again then.
    pub fn next_due(&self, at: Timestamp) -> Option<Timestamp> {
        self.next(at).map(|next| self.due_at(next))
    }

    /// What becomes of the instants after `fired_until` that are due at `now`, in their order. How often it is asked meanwhile makes no
    /// difference to which instants these are.
    pub fn plan(&self, fired_until: Timestamp, now: Timestamp, previous: Previous, reach: Reach) -> Vec<Action> {
        let due = self.due(fired_until, now, reach);
        let mut actions: Vec<_> = due.missed.into_iter().collect();
        let Previous { mut running, mut buffered } = previous;
        let last = due.instants.last().copied();
        for at in due.instants {
            let action = match self.overlap {
                Overlap::Allow => Action::Start { at, cancels: false },
                Overlap::CancelPrevious if Some(at) == last => Action::Start { at, cancels: true },
                Overlap::CancelPrevious => Action::Skip { at, why: "a later one came at the same time" },
                // What waits already comes first.
                _ if running == 0 && buffered == 0 => Action::Start { at, cancels: false },
                Overlap::Skip => Action::Skip { at, why: "the run before it has not ended" },
                Overlap::BufferOne if buffered > 0 => Action::Skip { at, why: "another one waits already" },
                Overlap::BufferAll if buffered >= reach.buffered => Action::Skip { at, why: "too many wait already" },
                Overlap::BufferOne | Overlap::BufferAll => Action::Buffer { at },
            };
            match action {
                Action::Start { .. } => running += 1,
                Action::Buffer { .. } => buffered += 1,
                _ => {}
            }
            actions.push(action);
        }
        actions
    }

    /// The latest `reach.max` instants that are not older than `reach.window`. The walk is as long as what it finds, however long
    /// nobody looked.
    fn due(&self, fired_until: Timestamp, now: Timestamp, reach: Reach) -> Due {
        let oldest = fired_until.max(Timestamp(now.before(reach.window + self.jitter).0 - 1));
        let mut span = SECOND.saturating_mul(u32::try_from(reach.max).unwrap_or(u32::MAX)).max(SECOND);
        let (mut kept, mut from);
        loop {
            from = oldest.max(now.before(span));
            kept = self.latest(from, now, reach.max);
            if kept.len() >= reach.max || from == oldest {
                break;
            }
            span = span.saturating_mul(4);
        }
        let mut instants: Vec<_> = kept.into();
        instants.truncate(reach.at_once);
        Due { missed: self.missed(fired_until, now, instants.first().copied()), instants }
    }

    fn latest(&self, from: Timestamp, now: Timestamp, max: usize) -> VecDeque<Timestamp> {
        let mut kept = VecDeque::with_capacity(max.min(1024));
        let mut next = self.next(from);
        while let Some(at) = next.filter(|at| self.due_at(*at) <= now) {
            kept.push_back(at);
            if kept.len() > max {
                kept.pop_front();
            }
            next = self.next(at);
        }
        kept
    }

    /// The instants before the first that is kept.
    fn missed(&self, fired_until: Timestamp, now: Timestamp, kept: Option<Timestamp>) -> Option<Action> {
        let is_missed = |at: &Timestamp| kept.map_or_else(|| self.due_at(*at) <= now, |kept| *at < kept);
        let since = self.next(fired_until).filter(is_missed)?;
        let (mut until, mut count) = (since, 1);
        while count < COUNTED
            && let Some(next) = self.next(until).filter(is_missed)
        {
            until = next;
            count += 1;
        }
        if count == COUNTED {
            // Not walked to its end: the one before the first that is kept, or the latest of all.
            until = kept.map_or_else(|| now.before(self.jitter), |kept| Timestamp(kept.0 - 1)).max(until);
        }
        Some(Action::Missed { since, until, count })
    }
}

#[cfg(test)]
mod tests;
