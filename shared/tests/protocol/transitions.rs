//! The transactions: each function is one, commits as a whole and holds its compare-and-set.
use crate::config::{Allow, Event, Kind, Plant, Protocol};
use crate::state::{Answer, Execution, Run, RunId, Session, State, Status, View};

/// Crashes that a run survives before it counts as poison.
pub const CRASH_LIMIT: u8 = 1;
/// Retries before a retryable error ends the run.
pub const ATTEMPT_LIMIT: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Write,
    Look,
    /// The mark and the wake count, in one statement.
    LookPaused,
    Park,
    /// Parks as paused.
    Hold,
    /// Parks as paused, because its goal is.
    HoldForGoal,
    Succeed,
    /// Succeeds, and the process dies before what a planted fault does after the commit.
    Torn,
    Fail,
    Retry,
    PutBack,
}

impl Protocol {
    pub fn accept(&self, state: &mut State, run: RunId) {
        let delayed = self.runs[run].delayed;
        state.runs[run] = Run { status: Status::Queued, due: !delayed, ..Run::ABSENT };
        if !delayed {
            self.join(state, run);
        }
    }

    /// Takes the next place of the thread's order, under the lock of its head.
    fn join(&self, state: &mut State, run: RunId) {
        let thread = &mut state.threads[self.thread(run)];
        thread.last_seq += 1;
        state.runs[run].seq = thread.last_seq;
        if thread.head.is_none() {
            thread.head = Some(run);
        }
        self.make_ready(state, run);
    }

    fn make_ready(&self, state: &mut State, run: RunId) {
        let head = state.threads[self.thread(run)].head == Some(run);
        let row = &mut state.runs[run];
        if head && row.due && row.status == Status::Queued {
            row.ready = true;
            self.push(state, run);
        }
    }

    /// After the commit. Only where hints may be lost is a push a step of its own: elsewhere that would add nothing but states.
    fn push(&self, state: &mut State, run: RunId) {
        if self.allows(Allow::Hints) {
            state.pushing.insert(run);
        } else {
            state.hints.insert(run);
        }
    }

    /// `available_at` has passed: a delayed run joins the order, a backing-off one is ready again.
    pub fn become_due(&self, state: &mut State, run: RunId) {
        state.runs[run].due = true;
        if state.runs[run].seq == 0 {
            self.join(state, run);
        } else {
            self.make_ready(state, run);
        }
    }

    /// One statement on the run's row. A hint whose claim matches nothing is dropped; one whose answer never came goes back.
    pub fn claim(&self, state: &mut State, worker: usize, acked: bool) {
        let Some(run) = state.workers[worker].hand.take() else { return };
        let session = state.session(worker);
        let row = &mut state.runs[run];
        if !row.claimable() {
            self.count(Event::HintDropped);
            return;
        }
        row.status = Status::Running;
        row.ready = false;
        row.lease_owner = Some(session);
        if !self.planted(Plant::FenceNeverRises) {
            row.fence += 1;
        }
        let execution = Execution { run, fence: row.fence, seen: row.wake_seq, steps: row.steps, view: View::Unknown };
        if acked {
            state.workers[worker].executions.push(execution);
        } else {
            self.count(Event::ClaimUnanswered);
            state.hints.insert(run);
        }
    }

    /// The check of every write of an execution, made under the lock of the run's row.
    pub fn accepts(&self, state: &State, execution: &Execution) -> bool {
        let row = &state.runs[execution.run];
        row.status == Status::Running && (row.fence == execution.fence || self.planted(Plant::NoFenceCheck))
    }

    /// One step of an execution. Without an acknowledgement it has happened and the execution does not know.
    pub fn execute(&self, state: &mut State, worker: usize, index: usize, op: Op, acked: bool) {
        let mut execution = state.workers[worker].executions[index];
        let run = execution.run;
        if op == Op::Look {
            execution.view = match (self.condition_met(state, run), state.runs[run].goal_held) {
                (true, _) => View::Clear,
                (false, true) => View::GoalHeld,
                (false, false) => View::Blocked,
            };
            state.workers[worker].executions[index] = execution;
            return;
        }
        if op == Op::LookPaused {
            let row = &state.runs[run];
            if row.paused {
                (execution.view, execution.seen) = (View::Paused, row.wake_seq);
            }
            state.workers[worker].executions[index] = execution;
            return;
        }
        if !self.accepts(state, &execution) {
            self.count(Event::Refused);
            state.workers[worker].executions.remove(index);
            return;
        }
        let goes_on = match op {
            Op::Write => {
                self.write(state, &mut execution);
                true
            }
            Op::Park => self.park(state, &mut execution, false),
            Op::Hold | Op::HoldForGoal => self.park(state, &mut execution, true),
            Op::Succeed => self.settle(state, run, Status::Succeeded, false),
            Op::Torn => self.settle(state, run, Status::Succeeded, true),
            Op::Fail => self.settle(state, run, Status::Failed, false),
            Op::Retry => self.retry(state, run),
            Op::PutBack => self.take_back(state, run, true),
            Op::Look | Op::LookPaused => true,
        };
        if !acked {
            self.count(Event::CommitUnanswered);
        } else if goes_on {
            state.workers[worker].executions[index] = execution;
        } else {
            state.workers[worker].executions.remove(index);
        }
    }

    /// A journal or event write. A parent's first step accepts its children in the same transaction.
    fn write(&self, state: &mut State, execution: &mut Execution) {
        let run = execution.run;
        execution.steps += 1;
        state.runs[run].steps = execution.steps;
        if self.runs[run].kind == Kind::Signal && state.runs[run].answer == Answer::None {
            state.runs[run].answer = Answer::Pending;
        }
        if self.runs[run].kind.has_children() {
            for child in 0..self.runs.len() {
                if self.runs[child].parent == Some(run) && state.runs[child].status == Status::Absent {
                    self.accept(state, child);
                }
            }
        }
    }

    /// running → waiting, if nothing has woken the run since `seen` was read. True when the run goes on.
    fn park(&self, state: &mut State, execution: &mut Execution, held: bool) -> bool {
        let row = &mut state.runs[execution.run];
        if row.wake_seq != execution.seen && !self.planted(Plant::ParkWithoutCompare) {
            self.count(if held { Event::HoldRefused } else { Event::ParkRefused });
            execution.seen = row.wake_seq;
            execution.view = View::Unknown;
            return true;
        }
        row.status = Status::Waiting;
        row.ready = false;
        row.fence += 1;
        row.lease_owner = None;
        row.held = held;
        self.count(match (held, execution.view) {
            (true, View::GoalHeld) => Event::ParkedAsHeldGoal,
            (true, _) => Event::HeldAtCheckpoint,
            _ => Event::Parked,
        });
        false
    }

    /// `wake_seq` rises in every live state; only a waiting run changes its status.
    pub fn wake(&self, state: &mut State, run: RunId) {
        let row = &mut state.runs[run];
        row.wake_seq += 1;
        if row.status == Status::Waiting {
            row.status = Status::Queued;
            row.held = false;
            self.make_ready(state, run);
        }
    }

    /// Whatever waits or is executed gets the mark; a ready run waits at once.
    pub fn pause(&self, state: &mut State, run: RunId) {
        let row = &mut state.runs[run];
        row.paused = true;
        if row.status == Status::Queued && row.ready {
            (row.status, row.ready, row.held) = (Status::Waiting, false, true);
            self.count(Event::Held);
        }
    }

    /// Counts as a wake; one that waits for something else keeps waiting.
    pub fn resume(&self, state: &mut State, run: RunId) {
        self.count(Event::Resumed);
        let row = &mut state.runs[run];
        row.paused = false;
        if row.held {
            // Where its goal is held too, it looks again and parks again.
            self.wake(state, run);
        } else if !self.planted(Plant::ResumeWithoutCount) {
            row.wake_seq += 1;
        }
    }

    /// running → queued, backing off: the run keeps its thread and is not ready until due.
    fn retry(&self, state: &mut State, run: RunId) -> bool {
        let row = &mut state.runs[run];
        if row.attempt >= ATTEMPT_LIMIT {
            return self.settle(state, run, Status::Failed, false);
        }
        row.status = Status::Queued;
        row.ready = false;
        row.due = false;
        row.attempt += 1;
        row.fence += u8::from(!self.planted(Plant::RetryKeepsFence));
        row.lease_owner = None;
        self.count(Event::Retried);
        false
    }

    /// running → queued with its old place: expiry, drain and disown.
    fn take_back(&self, state: &mut State, run: RunId, raise: bool) -> bool {
        let row = &mut state.runs[run];
        row.status = Status::Queued;
        row.ready = true;
        row.lease_owner = None;
        row.fence += u8::from(raise);
        self.push(state, run);
        false
    }

    /// The reconciler's statement for the runs of a lost lease.
    pub fn expire(&self, state: &mut State, run: RunId) {
        state.runs[run].crashes += 1;
        self.count(Event::Expired);
        let raise = !self.planted(Plant::ExpiryKeepsFence) && !self.planted(Plant::FenceNeverRises);
        self.take_back(state, run, raise);
    }

    /// Its worker has died under it too often. A transaction of its own.
    pub fn poison(&self, state: &mut State, run: RunId) {
        self.count(Event::Poisoned);
        self.settle(state, run, Status::Failed, false);
    }

    /// A worker puts back a run that its live session owns and that it does not execute.
    pub fn disown(&self, state: &mut State, run: RunId) {
        self.count(Event::Disowned);
        self.take_back(state, run, true);
    }

    /// A run ends: status, thread handed on and the parent's wake in one transaction.
    pub fn settle(&self, state: &mut State, run: RunId, status: Status, torn: bool) -> bool {
        let row = &mut state.runs[run];
        row.status = status;
        row.ready = false;
        row.held = false;
        row.lease_owner = None;
        row.fence += 1;
        if row.answer == Answer::Pending {
            row.answer = Answer::Cancelled;
            self.count(Event::Withdrawn);
        }
        if self.runs[run].parent.is_some() && !(torn && self.planted(Plant::WakeAfterCommit)) {
            state.wakes.insert(run);
        }
        if status == Status::Cancelled {
            for child in 0..self.runs.len() {
                if self.runs[child].parent == Some(run) && state.runs[child].status.live() {
                    state.cancels.insert(child);
                }
            }
        }
        let thread = self.thread(run);
        let handed_on = !(torn && self.planted(Plant::HeadAfterCommit));
        if handed_on && state.threads[thread].head == Some(run) {
            state.threads[thread].head = self.first_live(state, thread);
            if let Some(next) = state.threads[thread].head {
                self.count(Event::HandedOn);
                self.make_ready(state, next);
            }
        }
        false
    }

    /// The live run with the lowest place in a thread's order.
    pub fn first_live(&self, state: &State, thread: usize) -> Option<RunId> {
        (0..self.runs.len())
            .filter(|&r| self.thread(r) == thread && state.runs[r].status.live() && state.runs[r].seq > 0)
            .min_by_key(|&r| state.runs[r].seq)
    }

    /// One statement asks whether the question is open, and closes it; the run is told by a notice of the same transaction.
    pub fn answer(&self, state: &mut State, run: RunId, answer: Answer) {
        if state.runs[run].answer != Answer::Pending && !self.planted(Plant::AnswerTwice) {
            return;
        }
        self.count(if answer == Answer::Resolved { Event::Answered } else { Event::Lapsed });
        state.runs[run].answer = answer;
        if !self.planted(Plant::AnswerWithoutNotice) {
            state.notices.insert(run);
        } else if state.runs[run].status == Status::Waiting {
            self.wake(state, run);
        }
    }

    pub fn escalate(&self, state: &mut State, run: RunId) {
        self.count(Event::Escalated);
        state.runs[run].escalated = true;
    }

    /// Its run is told by a notice that it has to look.
    pub fn hold_goal(&self, state: &mut State, run: RunId, held: bool) {
        if !held {
            self.count(Event::GoalLetGo);
        }
        state.runs[run].goal_held = held;
        state.notices.insert(run);
    }

    /// The process gives up its session with all that it executes, and goes on under a new one.
    pub fn new_session(&self, state: &mut State, worker: usize) {
        let worker = &mut state.workers[worker];
        worker.generation += 1;
        worker.expired = false;
        worker.frozen = false;
        worker.hand = None;
        worker.executions.clear();
    }

    pub fn owned_by(&self, state: &State, run: RunId) -> Option<Session> {
        let row = &state.runs[run];
        if row.status == Status::Running { row.lease_owner } else { None }
    }

    /// What the run waits for has happened.
    pub fn condition_met(&self, state: &State, run: RunId) -> bool {
        match self.runs[run].kind {
            Kind::Plain => true,
            Kind::Signal => state.runs[run].answer.decided(),
            Kind::Goal => (0..self.runs.len()).all(|c| self.runs[c].parent != Some(run) || state.runs[c].told),
            Kind::Parent => (0..self.runs.len()).all(|c| self.runs[c].parent != Some(run) || state.runs[c].status.ended()),
        }
    }
}
