//! The state of the model: the database's rows, the queue's hints and what each worker believes.
use runmill_shared::domain::run::RunState;
use runmill_testkit::protocol::{Counts, Form, Row};

use crate::transitions::CRASH_LIMIT;

pub type RunId = usize;

/// A small set of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    pub fn has(self, run: RunId) -> bool {
        self.0 & (1 << run) != 0
    }

    pub fn insert(&mut self, run: RunId) {
        self.0 |= 1 << run;
    }

    pub fn remove(&mut self, run: RunId) {
        self.0 &= !(1 << run);
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The member with the lowest score: in the model a run's number is its score.
    pub fn min(self) -> Option<RunId> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as RunId)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not accepted yet: there is no row.
    Absent,
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    pub fn live(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Waiting)
    }

    /// `None`: there is no row.
    fn stored(self) -> Option<RunState> {
        Some(match self {
            Self::Absent => return None,
            Self::Queued => RunState::Queued,
            Self::Running => RunState::Running,
            Self::Waiting => RunState::Waiting,
            Self::Succeeded => RunState::Succeeded,
            Self::Failed => RunState::Failed,
            Self::Cancelled => RunState::Cancelled,
        })
    }
}

/// A worker's session: one row a process; a process that fenced itself goes on under a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub worker: usize,
    pub generation: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub status: Status,
    pub ready: bool,
    /// `available_at` has passed.
    pub due: bool,
    /// Place in the thread's order; 0 until the run has joined it.
    pub seq: u8,
    pub fence: u8,
    pub wake_seq: u8,
    pub lease_owner: Option<Session>,
    pub attempt: u8,
    pub crashes: u8,
    /// Finished steps in the journal.
    pub steps: u8,
    /// Somebody wants it held.
    pub paused: bool,
    /// It waits for being resumed, and for nothing else.
    pub held: bool,
    /// What became of the question that the run has asked.
    pub answer: Answer,
    /// Administrators may decide it too.
    pub escalated: bool,
    /// The task that the run executes knows of its end.
    pub told: bool,
    /// The goal that the run drives is held.
    pub goal_held: bool,
}

impl Run {
    /// As the table of the protocol sees it.
    pub fn row(&self) -> Option<Row> {
        let (ready, owned, paused, held) = (self.ready, self.lease_owner.is_some(), self.paused, self.held);
        let form = Form { state: self.status.stored()?, ready, owned, paused, held };
        let [fence, wake_seq, attempt, crashes] = [self.fence, self.wake_seq, self.attempt, self.crashes].map(i64::from);
        Some(Row { form, counts: Counts { fence, wake_seq, attempt, crashes } })
    }

    pub const ABSENT: Self = Self {
        status: Status::Absent,
        ready: false,
        due: true,
        seq: 0,
        fence: 0,
        wake_seq: 0,
        lease_owner: None,
        attempt: 0,
        crashes: 0,
        steps: 0,
        paused: false,
        held: false,
        answer: Answer::None,
        escalated: false,
        told: false,
        goal_held: false,
    };

    /// What the claim's compare-and-set asks for.
    pub fn claimable(&self) -> bool {
        self.status == Status::Queued && self.ready && !self.condemned()
    }

    /// It has outlived too many workers, and is to fail. That somebody claims it before, because who was to fail it has died, is not
    /// modelled: the states would have no end.
    pub fn condemned(&self) -> bool {
        self.crashes > CRASH_LIMIT
    }
}

/// An approval, by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    None,
    Pending,
    /// Nobody decided in time.
    Expired,
    /// Its run ended before.
    Cancelled,
    Resolved,
}

impl Answer {
    pub fn decided(self) -> bool {
        matches!(self, Self::Resolved | Self::Expired | Self::Cancelled)
    }
}

/// A row of `thread_heads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Thread {
    pub last_seq: u8,
    pub head: Option<RunId>,
}

/// What an execution found when it last looked at what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    Unknown,
    Blocked,
    Clear,
    /// Its goal is held.
    GoalHeld,
    /// It is to be held.
    Paused,
}

/// A claimed run in a worker's memory. It outlives its claim until it is refused or fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Execution {
    pub run: RunId,
    pub fence: u8,
    /// The `wake_seq` read before the conditions were looked at.
    pub seen: u8,
    pub steps: u8,
    pub view: View,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub generation: u8,
    /// The database's view of the session; the worker itself does not know until it checks.
    pub expired: bool,
    pub frozen: bool,
    pub draining: bool,
    /// A popped hint that has taken a permit and is not claimed yet.
    pub hand: Option<RunId>,
    pub executions: Vec<Execution>,
}

impl Worker {
    pub fn in_service(&self) -> bool {
        !self.frozen && !self.draining
    }
}

/// A rule about single transitions that was broken on the way to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    Table,
    Counter,
    /// A question was answered twice.
    Answer,
    Progress,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub runs: Vec<Run>,
    pub threads: Vec<Thread>,
    pub workers: Vec<Worker>,
    /// Committed, the hint not pushed yet.
    pub pushing: Set,
    /// The lane in Redis.
    pub hints: Set,
    /// Outbox: runs that are to be woken, because what they wait for has changed.
    pub notices: Set,
    /// Outbox: ended children whose parent has not been woken yet, or whose task does not know of it.
    pub wakes: Set,
    /// Outbox: children whose parent was cancelled, not cancelled themselves yet.
    pub cancels: Set,
    /// Faults that may still happen.
    pub faults: u8,
    /// Cancels, deadlines and drains that may still happen.
    pub stops: u8,
    pub broken: Option<Broken>,
}

impl State {
    pub fn session(&self, worker: usize) -> Session {
        Session { worker, generation: self.workers[worker].generation }
    }

    /// The database's view of a session. One that its process has given up is not renewed any more.
    pub fn lease_lost(&self, session: Session) -> bool {
        let worker = &self.workers[session.worker];
        session.generation != worker.generation || worker.expired
    }
}
