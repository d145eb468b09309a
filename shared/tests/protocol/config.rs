//! A configuration of the model: the runs, how many workers, what may go wrong and how often.
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use runmill_testkit::protocol::Change;

use crate::state::RunId;

/// What a run's code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes a step and ends.
    Plain,
    /// Asks a person, parks until the question is answered or has expired, ends.
    Signal,
    /// Starts its children, parks until all have ended, ends.
    Parent,
    /// As a parent; but it looks at its tasks, which are told of the ends of their runs by a notice.
    Goal,
}

impl Kind {
    pub fn has_children(self) -> bool {
        matches!(self, Self::Parent | Self::Goal)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub thread: usize,
    pub parent: Option<RunId>,
    pub kind: Kind,
    pub delayed: bool,
}

/// Kinds of faults and interventions that a configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Pushes and pops that never arrive, FLUSHALL, failover to a stale replica, polling.
    Hints,
    Freeze,
    Crash,
    /// A commit whose answer never arrives.
    Unanswered,
    Retry,
    Fail,
    Cancel,
    Deadline,
    Drain,
    /// Somebody holds a run, and lets it go on later.
    Pause,
    /// Somebody holds the goal that a run drives, and lets it go on later.
    HoldGoal,
    /// A question that nobody answers is shown to administrators, or expires.
    Lapse,
}

/// Faults put into the protocol itself, to see that the properties can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    NoFenceCheck,
    FenceNeverRises,
    ExpiryKeepsFence,
    RetryKeepsFence,
    ParkWithoutCompare,
    HeadAfterCommit,
    WakeAfterCommit,
    NoHintReconciler,
    SweepOnce,
    NoDisown,
    WaitInSlot,
    ResumeWithoutCount,
    /// The task of a run that has ended is told, and its goal is not.
    TaskWithoutWake,
    /// The answer is stored, and its run is woken only if it waits already.
    AnswerWithoutNotice,
    /// A decision does not ask whether there is one.
    AnswerTwice,
}

/// What must have happened somewhere in a search, so that a property does not hold for want of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    HintDropped,
    HintPushedAgain,
    Refused,
    ParkRefused,
    Parked,
    Retried,
    Expired,
    Poisoned,
    Disowned,
    ClaimUnanswered,
    CommitUnanswered,
    HandedOn,
    WokeEnded,
    CancelCascaded,
    OrphanCancelled,
    PutBack,
    /// A ready run was held at once.
    Held,
    /// An execution was held at a checkpoint.
    HeldAtCheckpoint,
    /// It was resumed between the look and the park.
    HoldRefused,
    Resumed,
    Answered,
    Lapsed,
    Escalated,
    /// A question outlived by its run's end is closed.
    Withdrawn,
    TaskTold,
    ParkedAsHeldGoal,
    GoalLetGo,
}

const EVENTS: usize = Event::GoalLetGo as usize + 1;

/// A configuration: the runs, how many workers, what may go wrong and how often.
pub struct Protocol {
    pub runs: Vec<Spec>,
    pub workers: usize,
    pub permits: usize,
    pub faults: u8,
    pub stops: u8,
    pub allow: Vec<Allow>,
    pub plant: Option<Plant>,
    /// What the rows went through, where that is asked for: it costs time.
    pub changes: Option<Mutex<HashSet<Change>>>,
    seen: [AtomicUsize; EVENTS],
}

impl Protocol {
    pub fn new(runs: Vec<Spec>, workers: usize, permits: usize) -> Self {
        let seen = std::array::from_fn(|_| AtomicUsize::new(0));
        Self { runs, workers, permits, faults: 0, stops: 0, allow: Vec::new(), plant: None, changes: None, seen }
    }

    pub fn faults(self, faults: u8, allow: &[Allow]) -> Self {
        Self { faults, allow: [&self.allow, allow].concat(), ..self }
    }

    pub fn stops(self, stops: u8, allow: &[Allow]) -> Self {
        Self { stops, allow: [&self.allow, allow].concat(), ..self }
    }

    pub fn plant(self, plant: Plant) -> Self {
        Self { plant: Some(plant), ..self }
    }

    pub fn recorded(self) -> Self {
        Self { changes: Some(Mutex::default()), ..self }
    }

    pub fn made(&self, change: Change) {
        if let Some(changes) = &self.changes {
            changes.lock().unwrap_or_else(PoisonError::into_inner).insert(change);
        }
    }

    pub fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub fn thread(&self, run: RunId) -> usize {
        self.runs[run].thread
    }

    pub fn count(&self, event: Event) {
        self.seen[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn seen(&self, event: Event) -> usize {
        self.seen[event as usize].load(Ordering::Relaxed)
    }

    pub fn allows(&self, what: Allow) -> bool {
        self.allow.contains(&what)
    }
}
