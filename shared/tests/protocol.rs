//! The run protocol as a state space, checked exhaustively with stateright. The SQL in `store` follows these transitions,
//! one transaction each. The database row is the truth; the queue holds hints.
//!
//! | transition | when | does |
//! |---|---|---|
//! | **accept** | no row | → queued; takes the next place of its thread; ready when it is the thread's head. A delayed run takes its place when it is due. The hint is pushed after the commit |
//! | **claim** | queued, ready | → running, fence+1, `lease_owner` = the session; returns `wake_seq` and the journal. A popped hint that matches nothing is dropped: the pop took it, nothing is deleted after the claim |
//! | **write** | fence = mine and running | a step or an event. A parent starts its children in such a write, each on a thread of its own |
//! | **end** | fence = mine and running | → succeeded or failed, fence+1; hands the thread on and writes the parent's outbox wake in the same transaction |
//! | **retry** | fence = mine and running | → queued and not ready until due, fence+1, attempt+1; keeps its thread; failed when the attempts are used up |
//! | **park** | fence = mine and running, `wake_seq` = the one seen | → waiting, fence+1, lease released. When `wake_seq` has moved the run goes on: it reads `wake_seq` first and looks at its conditions after that |
//! | **wake** | not ended | `wake_seq`+1; waiting → queued, ready. All wakes come through outbox rows, each in another transaction than the one that wrote it |
//! | **pause** | not ended, by its owner | gets a mark; queued and ready → waiting, held. A marked execution is held at its next checkpoint: it reads mark and `wake_seq` in one statement, and parks as held by them; a marked run that something else wakes does so again |
//! | **answer** | the question is open, by whom it was asked or shown to, or its time is up | it is answered or expired, once; the run's wake is an outbox row of the same transaction. A run's end closes what it has asked. Showing it to administrators changes nothing else |
//! | **told** | the run of a task has ended, by its outbox row | the task moves; its goal's run is woken by an outbox row of that transaction |
//! | **hold a goal** | not ended | its run is woken, sees it and parks as held; letting it go wakes it |
//! | **resume** | marked | the mark goes, `wake_seq`+1; waiting as held → queued, ready. What waits for something else goes on waiting for it |
//! | **expiry** | running, `lease_owner` is no live session | → queued with its old place, fence+1, crashes+1; above the limit failed, in a transaction of its own. The question is asked of runs and not once of a session: a stale worker may claim after its session was swept |
//! | **disown** | running, owned by my live session, executed by nobody here | → queued, fence+1: the answer to a claim that committed was lost |
//! | **drain** | fence = mine and running | → queued with its old place, fence+1 |
//! | **cancel** | not ended, by any process | → cancelled, fence+1; hands the thread on; children are reached through the outbox |
//! | **deadline** | not ended | as cancel, but → failed |
//! | **due** | delayed or backing off | joins the order, or is ready again |
//! | **push again** | queued, ready, score below the lane's minimum or lane empty | the reconciler's hint |
//! | **children of ended parents** | parent succeeded or failed | the reconciler cancels what it left behind |
//!
//! The fence rises with every claim and whenever a run leaves running. All ends go through one function, so that cancel,
//! deadline and the crash limit hand the thread on and wake the parent as an end does.
//!
//! **Workers.** A session's lease is valid or expired in the database's view; the worker has its own. A frozen worker that
//! thaws after its expiry may claim and write until it checks; then it gives up all it executes and goes on under a *new*
//! session. A freeze may last for ever: recovery never waits for a thaw.
//!
//! **Faults**, from a budget a configuration: a push or a pop that never arrives, FLUSHALL, failover to a stale replica (a
//! hint that was gone is back), a freeze, a crash, a commit whose answer never arrives, a retryable error, a failure.
//!
//! **Properties** (`properties.rs`) hold in every reachable state. Liveness is checked without stateright's `eventually`,
//! which misses cycles: every step of the protocol itself must raise a measure, so that it cannot go round in circles,
//! and where it has nothing left to do every accepted run must have ended. The planted faults show that the
//! properties can fail (all but `HINTS` and `TRANSITIONS`), and some show that one does not hang on a single guard.
//!
//! **Not modelled**: transactions are atomic here, so that lock order, statement time-outs and the batches of the
//! reconciler are the store's own matter; time is a choice (a lease may expire whenever its worker is frozen).
#[path = "protocol/actions.rs"]
mod actions;
#[path = "protocol/config.rs"]
mod config;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/properties.rs"]
mod properties;
#[path = "protocol/schedules.rs"]
mod schedules;
#[path = "protocol/state.rs"]
mod state;
#[path = "protocol/transitions.rs"]
mod transitions;

use std::time::Instant;

use runmill_testkit::protocol;
use stateright::{Checker, HasDiscoveries, Model};

use schedules::{Overlap, Schedule};

use config::{Allow, Event, Kind, Plant, Protocol, Spec};

fn plain(thread: usize) -> Spec {
    Spec { thread, parent: None, kind: Kind::Plain, delayed: false }
}

fn delayed(thread: usize) -> Spec {
    Spec { delayed: true, ..plain(thread) }
}

fn signal(thread: usize) -> Spec {
    Spec { kind: Kind::Signal, ..plain(thread) }
}

fn parent(thread: usize) -> Spec {
    Spec { kind: Kind::Parent, ..plain(thread) }
}

fn goal(thread: usize) -> Spec {
    Spec { kind: Kind::Goal, ..plain(thread) }
}

fn of(run: usize, spec: Spec) -> Spec {
    Spec { parent: Some(run), ..spec }
}

/// Visits every reachable state of a configuration. `floor` guards against a model that shrank, `events` against cases
/// that no longer occur.
fn check(name: &str, protocol: Protocol, floor: usize, events: &[Event]) {
    assert!(properties::sound(&protocol), "{name}: a parent without children");
    let started = Instant::now();
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, {} transitions, depth {}, {:.1?}",
        checker.state_count(),
        checker.max_depth(),
        started.elapsed()
    );
    checker.assert_properties();
    for &event in events {
        println!("    {event:?} {}", checker.model().seen(event));
        assert!(checker.model().seen(event) > 0, "{name}: {event:?} never happened");
    }
    assert!(states >= floor, "{name}: {states} states, at least {floor} expected");
}

/// A protocol with a planted fault must be caught, by the property meant for it.
fn catches(property: &'static str, protocol: Protocol) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AllOf([property].into())).spawn_bfs().join();
    let path = checker.assert_any_discovery(property).into_actions();
    println!("caught after {} states: {property}: {path:?}", checker.unique_state_count());
}

/// A property that a planted fault must leave whole.
fn spares(property: &'static str, protocol: Protocol) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AllOf([property].into())).spawn_dfs().join();
    checker.assert_no_discovery(property);
    println!("spared in all {} states: {property}", checker.unique_state_count());
}

#[test]
fn one_thread_in_order() {
    let protocol = Protocol::new(vec![plain(0), plain(0), delayed(0)], 2, 1)
        .faults(1, &[Allow::Retry, Allow::Fail])
        .stops(1, &[Allow::Cancel, Allow::Deadline]);
    check("one thread in order", protocol, 200_000, &[Event::HandedOn, Event::Retried, Event::Refused]);
}

#[test]
fn lost_and_stale_hints() {
    let protocol = Protocol::new(vec![plain(0), plain(1), plain(0)], 2, 1).faults(3, &[Allow::Hints]);
    check("lost and stale hints", protocol, 80_000, &[Event::HintDropped, Event::HintPushedAgain]);
}

#[test]
fn hints_of_backing_off_runs() {
    let protocol = Protocol::new(vec![plain(0), plain(0)], 2, 1)
        .faults(2, &[Allow::Hints, Allow::Retry])
        .stops(1, &[Allow::Cancel, Allow::Drain]);
    let events = [Event::HintDropped, Event::HintPushedAgain, Event::Retried, Event::PutBack];
    check("hints of backing-off runs", protocol, 90_000, &events);
}

#[test]
fn leases() {
    let protocol = Protocol::new(vec![plain(0), plain(0)], 2, 1)
        .faults(2, &[Allow::Freeze, Allow::Crash, Allow::Unanswered])
        .stops(1, &[Allow::Drain, Allow::Cancel]);
    let events = [Event::Refused, Event::Expired, Event::Poisoned, Event::Disowned, Event::PutBack, Event::HandedOn];
    check("leases", protocol, 600_000, &events);
}

#[test]
fn one_run_and_everything_against_it() {
    let protocol = Protocol::new(vec![plain(0)], 2, 2)
        .faults(3, &[Allow::Freeze, Allow::Crash, Allow::Unanswered, Allow::Hints])
        .stops(1, &[Allow::Drain, Allow::Cancel]);
    let events = [Event::Refused, Event::Expired, Event::Poisoned, Event::Disowned, Event::ClaimUnanswered];
    check("one run and everything against it", protocol, 200_000, &events);
}

#[test]
fn waiting_for_a_signal() {
    let protocol = Protocol::new(vec![signal(0), plain(0)], 2, 1)
        .faults(1, &[Allow::Freeze, Allow::Unanswered, Allow::Retry])
        .stops(1, &[Allow::Cancel, Allow::Drain]);
    let events = [Event::Parked, Event::ParkRefused, Event::Refused, Event::CommitUnanswered];
    check("waiting for a signal", protocol, 200_000, &events);
}

/// One permit: a parent that held it would starve its children.
#[test]
fn a_family_on_one_permit() {
    let protocol = Protocol::new(vec![parent(0), of(0, plain(1)), of(0, plain(2))], 1, 1)
        .faults(2, &[Allow::Fail, Allow::Crash, Allow::Unanswered])
        .stops(1, &[Allow::Cancel]);
    let events = [Event::Parked, Event::ParkRefused, Event::WokeEnded, Event::CancelCascaded, Event::OrphanCancelled];
    check("a family on one permit", protocol, 400_000, &events);
}

#[test]
fn a_family_and_the_next_run() {
    let protocol =
        Protocol::new(vec![parent(0), of(0, plain(1)), plain(0)], 2, 1).faults(1, &[Allow::Freeze, Allow::Fail, Allow::Retry]);
    let events = [Event::Parked, Event::ParkRefused, Event::Expired, Event::Refused, Event::HandedOn];
    check("a family and the next run", protocol, 300_000, &events);
}

#[test]
fn a_child_that_waits() {
    let protocol = Protocol::new(vec![parent(0), of(0, signal(1))], 2, 1)
        .faults(1, &[Allow::Crash, Allow::Fail, Allow::Unanswered])
        .stops(1, &[Allow::Drain, Allow::Cancel]);
    let events = [Event::Parked, Event::ParkRefused, Event::CancelCascaded, Event::OrphanCancelled, Event::PutBack];
    check("a child that waits", protocol, 150_000, &events);
}

#[test]
fn three_generations() {
    let protocol = Protocol::new(vec![parent(0), of(0, parent(1)), of(1, plain(2)), plain(0)], 1, 1)
        .faults(1, &[Allow::Fail, Allow::Crash])
        .stops(1, &[Allow::Cancel, Allow::Deadline]);
    let events = [Event::Parked, Event::CancelCascaded, Event::OrphanCancelled, Event::HandedOn];
    check("three generations", protocol, 280_000, &events);
}

#[test]
fn holding_and_going_on() {
    let protocol = Protocol::new(vec![signal(0)], 2, 1)
        .faults(1, &[Allow::Freeze, Allow::Unanswered])
        .stops(2, &[Allow::Pause, Allow::Cancel]);
    let events = [Event::Held, Event::HeldAtCheckpoint, Event::HoldRefused, Event::Resumed, Event::Parked, Event::Refused];
    check("holding and going on", protocol, 60_000, &events);
}

#[test]
fn holding_a_family() {
    let protocol =
        Protocol::new(vec![parent(0), of(0, plain(1))], 1, 1).faults(1, &[Allow::Fail, Allow::Crash]).stops(2, &[Allow::Pause]);
    check("holding a family", protocol, 10_000, &[Event::Held, Event::HeldAtCheckpoint, Event::Resumed, Event::Parked]);
}

#[test]
fn questions_that_are_answered_lapse_or_are_withdrawn() {
    let protocol = Protocol::new(vec![signal(0), plain(0)], 2, 1)
        .faults(1, &[Allow::Crash, Allow::Unanswered])
        .stops(1, &[Allow::Lapse, Allow::Cancel]);
    let events = [Event::Answered, Event::Lapsed, Event::Escalated, Event::Withdrawn, Event::Parked, Event::ParkRefused];
    check("questions", protocol, 20_000, &events);
}

/// Its tasks' runs end in their own transactions; the goal is told by two notices, one after the other.
#[test]
fn a_goal_and_its_tasks() {
    let protocol = Protocol::new(vec![goal(0), of(0, plain(1)), of(0, plain(2))], 1, 1)
        .faults(1, &[Allow::Fail, Allow::Crash, Allow::Unanswered])
        .stops(1, &[Allow::Cancel, Allow::HoldGoal]);
    let events = [Event::TaskTold, Event::ParkRefused, Event::CancelCascaded, Event::ParkedAsHeldGoal, Event::GoalLetGo];
    check("a goal and its tasks", protocol, 50_000, &events);
}

#[test]
fn a_goal_that_is_held_and_marked() {
    let protocol = Protocol::new(vec![goal(0), of(0, plain(1))], 1, 1)
        .faults(1, &[Allow::Crash, Allow::Retry])
        .stops(2, &[Allow::Pause, Allow::HoldGoal]);
    let events =
        [Event::ParkedAsHeldGoal, Event::GoalLetGo, Event::Held, Event::HeldAtCheckpoint, Event::Resumed, Event::HoldRefused];
    check("a goal that is held and marked", protocol, 10_000, &events);
}

#[test]
fn planted_task_that_does_not_tell_its_goal() {
    let family = || Protocol::new(vec![goal(0), of(0, plain(1))], 1, 1).plant(Plant::TaskWithoutWake);
    catches(properties::NO_LOST_WAKE, family());
    catches(properties::ALL_END, family());
}

#[test]
fn planted_answer_without_a_notice() {
    let asks = || Protocol::new(vec![signal(0)], 1, 1).plant(Plant::AnswerWithoutNotice);
    catches(properties::NO_LOST_WAKE, asks());
    catches(properties::ALL_END, asks());
}

#[test]
fn planted_decision_that_does_not_ask_whether_there_is_one() {
    let asks = Protocol::new(vec![signal(0)], 1, 1).stops(0, &[Allow::Lapse]).plant(Plant::AnswerTwice);
    catches(properties::QUESTIONS, asks);
}

#[test]
fn schedules_fire_once_whoever_looks() {
    for overlap in [Overlap::Allow, Overlap::Skip, Overlap::Buffer] {
        let checker = Schedule { overlap, plant: None }.checker().spawn_dfs().join();
        println!("schedules, {overlap:?}: {} states", checker.unique_state_count());
        checker.assert_properties();
        assert!(checker.unique_state_count() > 500, "{overlap:?}");
    }
}

#[test]
fn planted_faults_of_schedules_are_caught() {
    use schedules::Plant as P;
    let all = [
        (P::NoName, Overlap::Allow, schedules::ONCE),
        (P::ProgressFalls, Overlap::Allow, schedules::FORWARD),
        (P::RunAfterCommit, Overlap::Allow, schedules::RUN_OF_FIRE),
        (P::NoticeIsLate, Overlap::Skip, schedules::ONE_AT_A_TIME),
        (P::BufferForgotten, Overlap::Buffer, schedules::BUFFER_MOVES),
    ];
    for (plant, overlap, property) in all {
        let checker = Schedule { overlap, plant: Some(plant) }.checker().spawn_bfs().join();
        println!("{plant:?}: {:?}", checker.assert_any_discovery(property).into_actions());
    }
}

/// All moves of the table are made somewhere, and (a property of every search) no others. The SQL is compared with the same table.
#[test]
fn the_table_is_what_the_model_does() {
    let stops = [Allow::Pause, Allow::Cancel, Allow::Deadline];
    let all = [
        Protocol::new(vec![goal(0), of(0, plain(1))], 1, 1)
            .faults(1, &[Allow::Crash, Allow::Unanswered, Allow::Retry, Allow::Fail])
            .stops(2, &[&stops[..], &[Allow::HoldGoal]].concat()),
        Protocol::new(vec![plain(0), delayed(0)], 1, 1).faults(1, &[Allow::Retry]).stops(2, &stops),
    ];
    let mut made = std::collections::HashSet::new();
    for protocol in all {
        let checker = protocol.recorded().checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
        checker.assert_properties();
        println!("{} states", checker.unique_state_count());
        made.extend(checker.model().changes.as_ref().unwrap().lock().unwrap().drain());
    }
    let missing: Vec<_> = protocol::table().difference(&made).collect();
    assert!(missing.is_empty(), "{} of {} moves are never made: {missing:#?}", missing.len(), protocol::table().len());
}

#[test]
fn planted_resume_that_counts_no_wake() {
    let held = || Protocol::new(vec![plain(0)], 1, 1).stops(1, &[Allow::Pause]).plant(Plant::ResumeWithoutCount);
    catches(properties::NO_LOST_RESUME, held());
    catches(properties::ALL_END, held());
}

#[test]
fn planted_write_without_a_fence_check() {
    let protocol = Protocol::new(vec![plain(0)], 2, 1).faults(1, &[Allow::Freeze]).plant(Plant::NoFenceCheck);
    catches(properties::ONE_WRITER, protocol);
}

#[test]
fn planted_expiry_without_raising_the_fence() {
    let protocol = || Protocol::new(vec![plain(0)], 2, 1).faults(2, &[Allow::Freeze]).plant(Plant::ExpiryKeepsFence);
    catches(properties::DEAD_TOKENS, protocol());
    spares(properties::ONE_WRITER, protocol());
}

/// Claim raises the fence too and every write asks for `running`, so that no second writer comes of it.
#[test]
fn planted_retry_without_raising_the_fence() {
    let protocol = || {
        Protocol::new(vec![plain(0)], 2, 1)
            .faults(3, &[Allow::Unanswered, Allow::Retry, Allow::Freeze])
            .plant(Plant::RetryKeepsFence)
    };
    catches(properties::DEAD_TOKENS, protocol());
    spares(properties::ONE_WRITER, protocol());
}

#[test]
fn planted_claim_and_expiry_without_raising_the_fence() {
    let protocol = Protocol::new(vec![plain(0)], 2, 1).faults(1, &[Allow::Freeze]).plant(Plant::FenceNeverRises);
    catches(properties::ONE_WRITER, protocol);
}

#[test]
fn planted_park_without_a_compare() {
    let family = || Protocol::new(vec![parent(0), of(0, plain(1))], 2, 1).plant(Plant::ParkWithoutCompare);
    catches(properties::NO_LOST_WAKE, family());
    catches(properties::ALL_END, family());
    catches(properties::ALL_END, Protocol::new(vec![signal(0)], 1, 1).plant(Plant::ParkWithoutCompare));
}

#[test]
fn planted_head_handed_on_after_the_commit() {
    let protocol = || Protocol::new(vec![plain(0), plain(0)], 1, 1).faults(1, &[Allow::Crash]).plant(Plant::HeadAfterCommit);
    catches(properties::THREAD_ORDER, protocol());
    catches(properties::ALL_END, protocol());
}

#[test]
fn planted_wake_sent_after_the_commit() {
    let protocol = Protocol::new(vec![parent(0), of(0, plain(1))], 1, 1).faults(1, &[Allow::Crash]).plant(Plant::WakeAfterCommit);
    catches(properties::ALL_END, protocol);
}

#[test]
fn planted_no_reconciler_for_lost_hints() {
    let protocol = Protocol::new(vec![plain(0)], 1, 1).faults(1, &[Allow::Hints]).plant(Plant::NoHintReconciler);
    catches(properties::ALL_END, protocol);
}

#[test]
fn planted_parent_and_child_on_one_thread() {
    let family = || Protocol::new(vec![parent(0), of(0, plain(0))], 2, 2);
    catches(properties::OWN_THREADS, family());
    catches(properties::ALL_END, family());
}

#[test]
fn planted_sweep_of_an_expired_session_only_once() {
    let protocol = Protocol::new(vec![plain(0)], 2, 1).faults(1, &[Allow::Freeze]).plant(Plant::SweepOnce);
    catches(properties::ALL_END, protocol);
}

#[test]
fn planted_claim_without_an_answer_and_no_disown() {
    let protocol = Protocol::new(vec![plain(0)], 1, 1).faults(1, &[Allow::Unanswered]).plant(Plant::NoDisown);
    catches(properties::ALL_END, protocol);
}

#[test]
fn planted_wait_that_holds_its_slot() {
    let protocol = Protocol::new(vec![parent(0), of(0, plain(1))], 1, 1).plant(Plant::WaitInSlot);
    catches(properties::ALL_END, protocol);
}
