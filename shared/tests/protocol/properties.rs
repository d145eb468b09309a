//! What must hold in every reachable state, and on every transition.
use stateright::Property;

use crate::config::Protocol;
use crate::state::{Answer, Broken, Run, State, Status};
use runmill_testkit::protocol::Change;

pub const ONE_WRITER: &str = "at most one live writer, and it owns the run";
pub const DEAD_TOKENS: &str = "a fence dies with the claim that it came from";
pub const TRANSITIONS: &str = "the transition table, final ends, counters that only rise, progress that is progress";
pub const THREAD_ORDER: &str = "only the head of a thread is ready, and one run of a thread is active";
pub const HINTS: &str = "no hint names a blocked run";
pub const OWN_THREADS: &str = "children have threads of their own";
pub const NO_LOST_WAKE: &str = "a waiting run whose condition is met has a wake under way";
pub const NO_LOST_RESUME: &str = "a run waits as paused only while it is to be held";
pub const QUESTIONS: &str = "a question is answered once, and none outlives its run";
pub const ALL_END: &str = "every accepted run ends when the faults stop";

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_WRITER, one_writer),
        Property::always(DEAD_TOKENS, dead_tokens),
        Property::always(TRANSITIONS, |_, state: &State| state.broken.is_none_or(|b| b == Broken::Answer)),
        Property::always(THREAD_ORDER, thread_order),
        Property::always(HINTS, hints),
        Property::always(OWN_THREADS, own_threads),
        Property::always(NO_LOST_WAKE, no_lost_wake),
        Property::always(NO_LOST_RESUME, no_lost_resume),
        Property::always(QUESTIONS, questions),
        Property::always(ALL_END, all_end),
    ]
}

/// Of all executions in all workers, frozen and expired ones too, at most one could write to a run: the one that claimed it last.
fn one_writer(model: &Protocol, state: &State) -> bool {
    let mut writers = vec![0; state.runs.len()];
    for (worker, w) in state.workers.iter().enumerate() {
        for execution in w.executions.iter().filter(|e| model.accepts(state, e)) {
            writers[execution.run] += 1;
            if state.runs[execution.run].lease_owner != Some(state.session(worker)) {
                return false;
            }
        }
    }
    writers.iter().all(|&n| n <= 1)
}

/// The fence alone tells an old execution from the present one, without a look at the status.
fn dead_tokens(_: &Protocol, state: &State) -> bool {
    state.workers.iter().enumerate().all(|(worker, w)| {
        w.executions.iter().all(|execution| {
            let row = &state.runs[execution.run];
            let current = row.status == Status::Running && row.lease_owner == Some(state.session(worker));
            current || execution.fence < row.fence
        })
    })
}

fn thread_order(model: &Protocol, state: &State) -> bool {
    let heads = state.threads.iter().enumerate().all(|(thread, row)| row.head == model.first_live(state, thread));
    heads
        && state.runs.iter().enumerate().all(|(run, row)| {
            let active = row.ready || matches!(row.status, Status::Running | Status::Waiting);
            !active || state.threads[model.thread(run)].head == Some(run)
        })
}

fn hints(model: &Protocol, state: &State) -> bool {
    state.runs.iter().enumerate().all(|(run, row)| {
        let hinted = state.hints.has(run) || state.pushing.has(run) || state.workers.iter().any(|w| w.hand == Some(run));
        let blocked = row.status.live() && state.threads[model.thread(run)].head != Some(run);
        !hinted || (row.status != Status::Absent && !blocked)
    })
}

fn own_threads(model: &Protocol, state: &State) -> bool {
    (0..state.runs.len()).all(|run| match model.runs[run].parent {
        Some(parent) if state.runs[run].status != Status::Absent => model.thread(run) != model.thread(parent),
        _ => true,
    })
}

fn no_lost_wake(model: &Protocol, state: &State) -> bool {
    (0..state.runs.len()).all(|run| {
        state.runs[run].status != Status::Waiting
            || state.runs[run].held
            || !model.condition_met(state, run)
            || state.notices.has(run)
            || (0..state.runs.len()).any(|child| model.runs[child].parent == Some(run) && state.wakes.has(child))
    })
}

/// By its mark, or its goal; or its goal has been let go, and the notice of it is under way.
fn no_lost_resume(_: &Protocol, state: &State) -> bool {
    let waits = |run: usize, row: &Run| row.status == Status::Waiting && (row.paused || row.goal_held || state.notices.has(run));
    state.runs.iter().enumerate().all(|(run, row)| !row.held || waits(run, row))
}

fn questions(_: &Protocol, state: &State) -> bool {
    let open = |row: &Run| row.answer == Answer::Pending;
    state.broken != Some(Broken::Answer) && state.runs.iter().all(|row| !(open(row) && row.status.ended()))
}

/// Checked where the protocol has nothing left to do by itself. Progress cannot cycle (`measure` rises with each step of
/// it, and the states are finitely many), so every fault-free continuation of every state gets to such a state.
/// No thaw is needed for it: a worker that froze may stay so for ever.
fn all_end(model: &Protocol, state: &State) -> bool {
    if state.runs.iter().all(|row| !row.status.live()) {
        return true;
    }
    let mut actions = Vec::new();
    model.progress(state, &mut actions);
    !actions.is_empty()
}

/// Rises with every step of the protocol that is neither a fault nor an intervention.
pub type Measure = (i32, i32, i32, i32, i32, i32);

pub fn measure(_: &Protocol, state: &State) -> Measure {
    let mut database = 0;
    let mut due = 0;
    for row in &state.runs {
        let counters = row.fence + row.wake_seq + row.attempt + row.crashes + row.steps;
        database += i32::from(counters) + row.answer as i32 + i32::from(row.told) - i32::from(row.goal_held)
            + i32::from(row.status != Status::Absent);
        due += i32::from(row.due);
    }
    let mut executions = 0;
    let mut local = 0;
    for w in &state.workers {
        database += i32::from(2 * w.generation) + i32::from(w.expired);
        for e in &w.executions {
            executions += 1;
            local += 8 * i32::from(e.steps + e.seen) + e.view as i32;
        }
    }
    let outbox = (state.wakes.len() + state.cancels.len() + state.notices.len()) as i32;
    (database, -outbox, due, -executions, local, hint_measure(state))
}

/// A hint of a claimable run moves towards a worker's hand, any other towards nothing.
fn hint_measure(state: &State) -> i32 {
    let mut sum = 0;
    for (run, row) in state.runs.iter().enumerate() {
        let hands = state.workers.iter().filter(|w| w.hand == Some(run)).count() as i32;
        let lane = i32::from(state.hints.has(run));
        let pushing = i32::from(state.pushing.has(run));
        sum += if row.claimable() { 4 * hands + 2 * lane - pushing } else { -hands - 2 * lane - 4 * pushing };
    }
    sum
}

/// The rule that a transition broke.
pub fn broken(model: &Protocol, last: &State, next: &State) -> Option<Broken> {
    for (old, new) in last.runs.iter().zip(&next.runs) {
        if let Some(change) = new.row().and_then(|row| Change::between(old.row(), row)) {
            model.made(change);
            // A fault that is planted into the protocol makes moves that it does not have.
            if model.plant.is_none() && !change.is_allowed() {
                return Some(Broken::Table);
            }
        }
        let fell = new.fence < old.fence || new.wake_seq < old.wake_seq || new.steps < old.steps;
        if fell || new.attempt < old.attempt || new.crashes < old.crashes {
            return Some(Broken::Counter);
        }
        if old.answer.decided() && new.answer != old.answer {
            return Some(Broken::Answer);
        }
        let ended = Run { told: new.told, ..*old };
        if old.status.ended() && *new != ended {
            return Some(Broken::Table);
        }
    }
    None
}

/// A parent can wait for its children only if it has any.
pub fn sound(model: &Protocol) -> bool {
    (0..model.runs.len()).all(|run| {
        let children = model.runs.iter().filter(|spec| spec.parent == Some(run)).count();
        model.runs[run].kind.has_children() == (children > 0)
    })
}
