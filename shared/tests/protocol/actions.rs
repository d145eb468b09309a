//! What can happen in a state: what the protocol does by itself, what users and operators do, and what goes wrong.
use crate::config::{Allow, Kind, Plant, Protocol};
use crate::state::{Answer, RunId, State, Status, View};
use crate::transitions::Op;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Accept(RunId),
    Cancel(RunId),
    Deadline(RunId),
    Drain(usize),
    Pause(RunId),
    Poison(RunId),
    Lapse(RunId),
    Escalate(RunId),
    HoldGoal(RunId),
    Thaw(usize),
    ThawAndFence(usize),

    Push(RunId),
    Fetch(usize),
    Claim(usize),
    Execute(usize, usize, Op),
    Answer(RunId),
    Notice(RunId),
    LetGoalGo(RunId),
    Resume(RunId),
    ApplyWake(RunId),
    ApplyCancel(RunId),
    BecomeDue(RunId),
    ExpireSession(usize),
    Expire(RunId),
    Disown(usize, RunId),
    SelfFence(usize),
    PushAgain(RunId),
    CancelOrphan(RunId),

    LosePush(RunId),
    LosePop,
    FlushAll,
    StaleHint(RunId),
    Poll(usize, RunId),
    Freeze(usize),
    Crash(usize),
    ClaimUnanswered(usize),
    Unanswered(usize, usize, Op),
    Misfortune(usize, usize, Op),
}

impl Protocol {
    /// What the protocol does when nothing more goes wrong and nobody does anything.
    pub fn progress(&self, state: &State, actions: &mut Vec<Action>) {
        for run in 0..self.runs.len() {
            self.progress_of_run(state, run, actions);
        }
        for (worker, w) in state.workers.iter().enumerate() {
            if w.frozen {
                if !w.expired {
                    actions.push(Action::ExpireSession(worker));
                }
                continue;
            }
            if w.expired {
                actions.push(Action::SelfFence(worker));
            }
            if w.hand.is_some() {
                actions.push(Action::Claim(worker));
            } else if !w.draining && w.executions.len() < self.permits && !state.hints.is_empty() {
                actions.push(Action::Fetch(worker));
            }
            for index in 0..w.executions.len() {
                if let Some(op) = self.next_op(state, worker, index) {
                    actions.push(Action::Execute(worker, index, op));
                }
                if self.may_look(state, worker, index) {
                    actions.push(Action::Execute(worker, index, Op::LookPaused));
                }
                if w.draining {
                    actions.push(Action::Execute(worker, index, Op::PutBack));
                }
            }
        }
    }

    fn progress_of_run(&self, state: &State, run: RunId, actions: &mut Vec<Action>) {
        let row = &state.runs[run];
        if state.pushing.has(run) {
            actions.push(Action::Push(run));
        }
        if state.wakes.has(run) {
            actions.push(Action::ApplyWake(run));
        }
        if state.cancels.has(run) {
            actions.push(Action::ApplyCancel(run));
        }
        if state.notices.has(run) {
            actions.push(Action::Notice(run));
        }
        if !row.status.live() {
            return;
        }
        if row.condemned() {
            actions.push(Action::Poison(run));
        }
        if !row.due {
            actions.push(Action::BecomeDue(run));
        }
        let twice = self.planted(Plant::AnswerTwice) && row.answer == Answer::Expired;
        if row.answer == Answer::Pending || twice {
            actions.push(Action::Answer(run));
        }
        if row.goal_held {
            actions.push(Action::LetGoalGo(run));
        }
        if row.paused {
            actions.push(Action::Resume(run));
        }
        // A higher score waits until the lane's lower ones are gone, as in the reconciler's statement.
        let below = state.hints.min().is_none_or(|min| run < min);
        if row.claimable() && below && !self.planted(Plant::NoHintReconciler) {
            actions.push(Action::PushAgain(run));
        }
        if let Some(owner) = self.owned_by(state, run) {
            let worker = &state.workers[owner.worker];
            if state.lease_lost(owner) {
                if !self.planted(Plant::SweepOnce) {
                    actions.push(Action::Expire(run));
                }
            } else if !worker.frozen
                && !self.planted(Plant::NoDisown)
                && !worker.executions.iter().any(|e| e.run == run && e.fence == row.fence)
            {
                actions.push(Action::Disown(owner.worker, run));
            }
        }
        // The children of a cancelled parent are reached by the outbox.
        let parent = self.runs[run].parent.map(|p| state.runs[p].status);
        if matches!(parent, Some(Status::Succeeded | Status::Failed)) {
            actions.push(Action::CancelOrphan(run));
        }
    }

    fn next_op(&self, state: &State, worker: usize, index: usize) -> Option<Op> {
        let execution = &state.workers[worker].executions[index];
        if execution.view == View::Paused {
            return Some(Op::Hold);
        }
        if execution.steps == 0 {
            return Some(Op::Write);
        }
        match (self.runs[execution.run].kind, execution.view) {
            (Kind::Plain, _) | (_, View::Clear) => Some(Op::Succeed),
            (_, View::Unknown) => Some(Op::Look),
            (_, View::Blocked) if self.planted(Plant::WaitInSlot) => self.condition_met(state, execution.run).then_some(Op::Look),
            (_, View::Blocked) => Some(Op::Park),
            (_, View::Paused) => Some(Op::Hold),
            (_, View::GoalHeld) => Some(Op::HoldForGoal),
        }
    }

    /// A worker may learn at any checkpoint that the run is to be held, or never.
    fn may_look(&self, state: &State, worker: usize, index: usize) -> bool {
        let execution = &state.workers[worker].executions[index];
        self.accepts(state, execution) && state.runs[execution.run].paused && execution.view != View::Paused
    }

    pub fn environment(&self, state: &State, actions: &mut Vec<Action>) {
        for (run, row) in state.runs.iter().enumerate() {
            if row.status == Status::Absent && self.runs[run].parent.is_none() {
                actions.push(Action::Accept(run));
            }
            if row.answer == Answer::Pending && self.allows(Allow::Lapse) {
                actions.push(Action::Lapse(run));
                if !row.escalated {
                    actions.push(Action::Escalate(run));
                }
            }
            if row.status.live() && state.stops > 0 {
                if self.allows(Allow::Cancel) {
                    actions.push(Action::Cancel(run));
                }
                if self.allows(Allow::Deadline) {
                    actions.push(Action::Deadline(run));
                }
                if self.allows(Allow::HoldGoal) && self.runs[run].kind == Kind::Goal && !row.goal_held {
                    actions.push(Action::HoldGoal(run));
                }
                if self.allows(Allow::Pause) && !row.paused {
                    actions.push(Action::Pause(run));
                }
            }
        }
        for (worker, w) in state.workers.iter().enumerate() {
            if w.frozen {
                actions.push(Action::Thaw(worker));
                actions.push(Action::ThawAndFence(worker));
            } else if !w.draining && state.stops > 0 && self.allows(Allow::Drain) && others_serve(state, worker) {
                actions.push(Action::Drain(worker));
            }
        }
    }

    pub fn faults_of_queue(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.hints.is_empty() {
            actions.push(Action::LosePop);
        }
        if state.hints.len() > 1 {
            actions.push(Action::FlushAll);
        }
        for (run, row) in state.runs.iter().enumerate() {
            if state.pushing.has(run) {
                actions.push(Action::LosePush(run));
            }
            let was_ready = row.seq > 0 && (row.status.ended() || state.threads[self.thread(run)].head == Some(run));
            if was_ready && !state.hints.has(run) {
                actions.push(Action::StaleHint(run));
            }
            if row.claimable() {
                for (worker, w) in state.workers.iter().enumerate() {
                    if w.in_service() && w.hand.is_none() && w.executions.len() < self.permits {
                        actions.push(Action::Poll(worker, run));
                    }
                }
            }
        }
    }

    pub fn faults_of_workers(&self, state: &State, actions: &mut Vec<Action>) {
        for (worker, w) in state.workers.iter().enumerate() {
            if w.frozen {
                continue;
            }
            if self.allows(Allow::Freeze) && others_serve(state, worker) {
                actions.push(Action::Freeze(worker));
            }
            if self.allows(Allow::Crash) {
                actions.push(Action::Crash(worker));
            }
            if self.allows(Allow::Unanswered) && w.hand.is_some_and(|run| state.runs[run].claimable()) {
                actions.push(Action::ClaimUnanswered(worker));
            }
            for index in 0..w.executions.len() {
                let next = self.next_op(state, worker, index).filter(|&op| op != Op::Look && op != Op::LookPaused);
                if let Some(op) = next
                    && self.allows(Allow::Unanswered)
                    && self.accepts(state, &w.executions[index])
                {
                    actions.push(Action::Unanswered(worker, index, op));
                }
                let torn = self.planted(Plant::HeadAfterCommit) || self.planted(Plant::WakeAfterCommit);
                if torn && next == Some(Op::Succeed) {
                    actions.push(Action::Misfortune(worker, index, Op::Torn));
                }
                for (what, op) in [(Allow::Retry, Op::Retry), (Allow::Fail, Op::Fail)] {
                    if self.allows(what) {
                        actions.push(Action::Misfortune(worker, index, op));
                        if self.allows(Allow::Unanswered) && self.accepts(state, &w.executions[index]) {
                            actions.push(Action::Unanswered(worker, index, op));
                        }
                    }
                }
            }
        }
    }
}

/// Somebody is left to do the work.
fn others_serve(state: &State, worker: usize) -> bool {
    state.workers.iter().enumerate().any(|(other, w)| other != worker && w.in_service())
}
