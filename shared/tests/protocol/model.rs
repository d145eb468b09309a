//! The model as stateright sees it: an action applied to a state.
use stateright::{Model, Property};

use crate::actions::Action;
use crate::config::{Allow, Event, Kind, Plant, Protocol};
use crate::properties;
use crate::state::{Answer, Broken, Run, RunId, Set, State, Status, Thread, Worker};
use crate::transitions::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Environment,
    Progress,
    Fault,
}

impl Protocol {
    fn apply(&self, state: &mut State, action: &Action) -> Class {
        use Action as A;
        match *action {
            A::Accept(_)
            | A::Lapse(_)
            | A::Escalate(_)
            | A::HoldGoal(_)
            | A::Cancel(_)
            | A::Deadline(_)
            | A::Drain(_)
            | A::Pause(_)
            | A::Poison(_)
            | A::Thaw(_)
            | A::ThawAndFence(_) => {
                self.apply_environment(state, action);
                Class::Environment
            }
            A::LosePush(_) | A::LosePop | A::FlushAll | A::StaleHint(_) | A::Poll(..) => {
                state.faults -= 1;
                apply_queue_fault(state, action);
                Class::Fault
            }
            A::Freeze(_) | A::Crash(_) | A::ClaimUnanswered(_) | A::Unanswered(..) | A::Misfortune(..) => {
                state.faults -= 1;
                self.apply_worker_fault(state, action);
                Class::Fault
            }
            _ => {
                self.apply_progress(state, action);
                Class::Progress
            }
        }
    }

    fn apply_environment(&self, state: &mut State, action: &Action) {
        if matches!(action, Action::Cancel(_) | Action::Deadline(_) | Action::Drain(_) | Action::Pause(_) | Action::HoldGoal(_)) {
            state.stops -= 1;
        }
        match *action {
            Action::Accept(run) => self.accept(state, run),
            Action::Cancel(run) => {
                self.settle(state, run, Status::Cancelled, false);
            }
            Action::Deadline(run) => {
                self.settle(state, run, Status::Failed, false);
            }
            Action::Drain(worker) => {
                state.workers[worker].draining = true;
                if let Some(run) = state.workers[worker].hand.take() {
                    state.hints.insert(run);
                }
            }
            Action::Pause(run) => self.pause(state, run),
            Action::Lapse(run) => self.answer(state, run, Answer::Expired),
            Action::Escalate(run) => self.escalate(state, run),
            Action::HoldGoal(run) => self.hold_goal(state, run, true),
            Action::Poison(run) => self.poison(state, run),
            Action::Thaw(worker) => state.workers[worker].frozen = false,
            Action::ThawAndFence(worker) => self.new_session(state, worker),
            _ => {}
        }
    }

    fn apply_worker_fault(&self, state: &mut State, action: &Action) {
        match *action {
            Action::Freeze(worker) => state.workers[worker].frozen = true,
            Action::Crash(worker) => self.new_session(state, worker),
            Action::ClaimUnanswered(worker) => self.claim(state, worker, false),
            Action::Unanswered(worker, index, op) => self.execute(state, worker, index, op, false),
            Action::Misfortune(worker, index, op) => self.execute(state, worker, index, op, true),
            _ => {}
        }
    }

    fn apply_progress(&self, state: &mut State, action: &Action) {
        match *action {
            Action::Push(run) => {
                state.pushing.remove(run);
                state.hints.insert(run);
            }
            Action::Fetch(worker) => state.workers[worker].hand = pop(state),
            Action::Claim(worker) => self.claim(state, worker, true),
            Action::Execute(worker, index, op) => {
                if op == Op::PutBack {
                    self.count(Event::PutBack);
                }
                self.execute(state, worker, index, op, true);
            }
            Action::Answer(run) => self.answer(state, run, Answer::Resolved),
            Action::Notice(run) => {
                state.notices.remove(run);
                if state.runs[run].status.live() {
                    self.wake(state, run);
                }
            }
            Action::LetGoalGo(run) => self.hold_goal(state, run, false),
            Action::Resume(run) => self.resume(state, run),
            Action::ApplyWake(child) => self.apply_wake(state, child),
            Action::ApplyCancel(child) => {
                state.cancels.remove(child);
                self.cancel_child(state, child, Event::CancelCascaded);
            }
            Action::BecomeDue(run) => self.become_due(state, run),
            Action::ExpireSession(worker) => self.expire_session(state, worker),
            Action::Expire(run) => self.expire(state, run),
            Action::Disown(_, run) => self.disown(state, run),
            Action::SelfFence(worker) => self.new_session(state, worker),
            Action::PushAgain(run) => {
                self.count(Event::HintPushedAgain);
                state.hints.insert(run);
            }
            Action::CancelOrphan(run) => self.cancel_child(state, run, Event::OrphanCancelled),
            _ => {}
        }
    }

    fn apply_wake(&self, state: &mut State, child: RunId) {
        state.wakes.remove(child);
        let Some(parent) = self.runs[child].parent else { return };
        if self.runs[parent].kind == Kind::Goal {
            // In one transaction: the task moves, and its goal's run is sent a notice.
            self.count(Event::TaskTold);
            state.runs[child].told = true;
            if !self.planted(Plant::TaskWithoutWake) {
                state.notices.insert(parent);
            }
            return;
        }
        if state.runs[parent].status.live() {
            self.wake(state, parent);
        } else {
            self.count(Event::WokeEnded);
        }
    }

    fn cancel_child(&self, state: &mut State, child: RunId, event: Event) {
        if state.runs[child].status.live() {
            self.count(event);
            self.settle(state, child, Status::Cancelled, false);
        }
    }

    fn expire_session(&self, state: &mut State, worker: usize) {
        let session = state.session(worker);
        state.workers[worker].expired = true;
        if self.planted(Plant::SweepOnce) {
            for run in 0..self.runs.len() {
                if self.owned_by(state, run) == Some(session) {
                    self.expire(state, run);
                }
            }
        }
    }
}

fn pop(state: &mut State) -> Option<RunId> {
    let run = state.hints.min()?;
    state.hints.remove(run);
    Some(run)
}

fn apply_queue_fault(state: &mut State, action: &Action) {
    match *action {
        Action::LosePush(run) => state.pushing.remove(run),
        Action::LosePop => {
            pop(state);
        }
        Action::FlushAll => state.hints = Set::default(),
        Action::StaleHint(run) => state.hints.insert(run),
        Action::Poll(worker, run) => state.workers[worker].hand = Some(run),
        _ => {}
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let threads = self.runs.iter().map(|spec| spec.thread + 1).max().unwrap_or(0);
        vec![State {
            runs: vec![Run::ABSENT; self.runs.len()],
            threads: vec![Thread::default(); threads],
            workers: vec![Worker::default(); self.workers],
            pushing: Set::default(),
            hints: Set::default(),
            notices: Set::default(),
            wakes: Set::default(),
            cancels: Set::default(),
            faults: self.faults,
            stops: self.stops,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.progress(state, actions);
        self.environment(state, actions);
        if state.faults > 0 {
            if self.allows(Allow::Hints) {
                self.faults_of_queue(state, actions);
            }
            self.faults_of_workers(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let class = self.apply(&mut next, &action);
        let stuck = class == Class::Progress && properties::measure(self, &next) <= properties::measure(self, last);
        next.broken = if stuck { Some(Broken::Progress) } else { properties::broken(self, last, &next) };
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
