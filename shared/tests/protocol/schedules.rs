//! Schedules as a state space of their own: any number of schedulers that look at the same rows, late, twice, with clocks that were set.
//! A tick is one transaction that holds the schedule's row: instants from how far it has come to its clock, each stored under its own name
//! with what becomes of it, and the run of those that start. The end of a run is told by a notice, in another transaction, and starts
//! what waits in the buffer.
use stateright::{Model, Property};

pub const INSTANTS: usize = 4;

/// What an instant does that finds an earlier run at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Allow,
    Skip,
    /// One waits; what comes while it waits is skipped.
    Buffer,
}

/// Faults put into the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// It goes on from where it saw the schedule before it held the row, and an instant has no name of its own.
    NoName,
    /// It does not ask again, under the lock, whether the schedule is due at the time that it has read before.
    ProgressFalls,
    /// The run is accepted after the fire was committed.
    RunAfterCommit,
    /// Overlap is decided by what the fires say, and not by the runs.
    NoticeIsLate,
    /// Nobody looks at the buffer when a run ends.
    BufferForgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fire {
    /// Not stored.
    None,
    Buffered,
    Started,
    Skipped,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunOf {
    None,
    Live,
    /// Its notice is under way.
    Ended,
    Told,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock; it may be set back by one.
    pub now: usize,
    pub set_back: u8,
    /// Instants below this one have been dealt with.
    pub until: usize,
    pub fires: [Fire; INSTANTS],
    pub runs: [RunOf; INSTANTS],
    /// How many runs each instant has got.
    pub started: [u8; INSTANTS],
    /// The clock, and `until`, as each scheduler has read them before it holds the row.
    pub seen: [Option<(usize, usize)>; 2],
    /// Committed fires whose run comes later.
    pub owed: [bool; INSTANTS],
    /// Two ran at once where only one may.
    pub together: bool,
    pub crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    SetBack,
    Look(usize),
    Tick(usize),
    AcceptOwed(usize),
    DieOwing(usize),
    End(usize),
    Tell(usize),
}

pub struct Schedule {
    pub overlap: Overlap,
    pub plant: Option<Plant>,
}

impl Schedule {
    fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn busy(&self, state: &State) -> bool {
        let live = |n: usize| match self.planted(Plant::NoticeIsLate) {
            // A fire that is told late hides that its run is at work.
            true => state.fires[n] == Fire::Started && state.runs[n] == RunOf::Told,
            false => state.runs[n] == RunOf::Live || state.owed[n],
        };
        (0..INSTANTS).any(live)
    }

    fn start(&self, state: &mut State, n: usize) {
        state.fires[n] = Fire::Started;
        if self.planted(Plant::RunAfterCommit) {
            state.owed[n] = true;
        } else {
            self.accept(state, n);
        }
    }

    fn accept(&self, state: &mut State, n: usize) {
        state.together |= self.overlap != Overlap::Allow && state.runs.contains(&RunOf::Live);
        state.runs[n] = RunOf::Live;
        state.started[n] += 1;
    }

    /// From how far the schedule has come, to the scheduler's clock.
    fn tick(&self, state: &mut State, (now, seen): (usize, usize)) {
        let from = if self.planted(Plant::NoName) { seen } else { state.until };
        if from > now && !self.planted(Plant::ProgressFalls) {
            return;
        }
        for n in from..=now {
            if state.fires[n] != Fire::None && !self.planted(Plant::NoName) {
                continue;
            }
            let waits = state.fires.contains(&Fire::Buffered);
            match self.overlap {
                Overlap::Allow => self.start(state, n),
                _ if !self.busy(state) && !waits => self.start(state, n),
                Overlap::Buffer if !waits => state.fires[n] = Fire::Buffered,
                _ => state.fires[n] = Fire::Skipped,
            }
        }
        let until = now + 1;
        state.until = if self.planted(Plant::ProgressFalls) { until } else { state.until.max(until) };
    }

    fn tell(&self, state: &mut State, n: usize) {
        state.runs[n] = RunOf::Told;
        state.fires[n] = Fire::Ended;
        let next = (0..INSTANTS).find(|&m| state.fires[m] == Fire::Buffered);
        if let Some(next) = next.filter(|_| !self.busy(state) && !self.planted(Plant::BufferForgotten)) {
            self.start(state, next);
        }
    }
}

impl Model for Schedule {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            set_back: 1,
            until: 0,
            fires: [Fire::None; INSTANTS],
            runs: [RunOf::None; INSTANTS],
            started: [0; INSTANTS],
            seen: [None; 2],
            owed: [false; INSTANTS],
            together: false,
            crashes: 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now + 1 < INSTANTS {
            actions.push(Action::Pass);
        }
        if state.now > 0 && state.set_back > 0 {
            actions.push(Action::SetBack);
        }
        for scheduler in 0..2 {
            if state.seen[scheduler].is_some() {
                actions.push(Action::Tick(scheduler));
            } else if state.until <= state.now {
                actions.push(Action::Look(scheduler));
            }
        }
        for n in 0..INSTANTS {
            if state.owed[n] {
                actions.push(Action::AcceptOwed(n));
                if state.crashes > 0 {
                    actions.push(Action::DieOwing(n));
                }
            }
            match state.runs[n] {
                RunOf::Live => actions.push(Action::End(n)),
                RunOf::Ended => actions.push(Action::Tell(n)),
                _ => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Pass => state.now += 1,
            Action::SetBack => (state.now, state.set_back) = (state.now - 1, state.set_back - 1),
            Action::Look(scheduler) => state.seen[scheduler] = Some((state.now, state.until)),
            Action::Tick(scheduler) => {
                if let Some(seen) = state.seen[scheduler].take() {
                    self.tick(&mut state, seen);
                }
            }
            Action::AcceptOwed(n) => {
                state.owed[n] = false;
                self.accept(&mut state, n);
            }
            Action::DieOwing(n) => (state.owed[n], state.crashes) = (false, state.crashes - 1),
            Action::End(n) => state.runs[n] = RunOf::Ended,
            Action::Tell(n) => self.tell(&mut state, n),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.started.iter().all(|n| *n <= 1)),
            Property::always(NONE_LEFT_OUT, |_, state: &State| state.fires[..state.until].iter().all(|f| *f != Fire::None)),
            Property::always(RUN_OF_FIRE, |_, state: &State| {
                (0..INSTANTS).all(|n| state.fires[n] != Fire::Started || state.runs[n] != RunOf::None || state.owed[n])
            }),
            Property::always(ONE_AT_A_TIME, |_, state: &State| !state.together),
            Property::always(FORWARD, |_, state: &State| (state.until..INSTANTS).all(|n| state.fires[n] == Fire::None)),
            Property::always(BUFFER_MOVES, buffer_moves),
        ]
    }
}

pub const ONCE: &str = "an instant has one run at most";
pub const NONE_LEFT_OUT: &str = "no instant is left out";
pub const RUN_OF_FIRE: &str = "a fire that has started has a run";
pub const ONE_AT_A_TIME: &str = "where runs must not overlap, one is at work at most";
pub const FORWARD: &str = "what a schedule has come past is all that has fired";
pub const BUFFER_MOVES: &str = "what waits in the buffer has a run before it";

/// Else nothing would ever start it: not a tick, and no notice is under way.
fn buffer_moves(_: &Schedule, state: &State) -> bool {
    let pending = |n: usize| matches!(state.runs[n], RunOf::Live | RunOf::Ended) || state.owed[n];
    !state.fires.contains(&Fire::Buffered) || (0..INSTANTS).any(pending)
}
