//! The checker is checked: a history that is right, and one bug planted in it at a time.
use std::time::Duration;

use runmill_shared::domain::run::RunState;
use runmill_testkit::{
    ledger::{HeadRow, StepRow},
    protocol::{Counts, Form, Row},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    history::{Asked, Decision, Goal, Schedule, ServerError, Upload},
    plan::{Fault, Process},
};

#[derive(Clone)]
struct World {
    ledger: Ledger,
    work: Work,
    seen: fn() -> Seen,
    faults: Vec<Happened>,
    tool_calls: HashMap<String, usize>,
    hints: usize,
}

const RUN: Uuid = Uuid::from_u128(1);
const THREAD: Uuid = Uuid::from_u128(2);
const GOAL: Uuid = Uuid::from_u128(3);
const GOAL_THREAD: Uuid = Uuid::from_u128(4);
const GOAL_RUN: Uuid = Uuid::from_u128(5);
const FIRST: Uuid = Uuid::from_u128(6);
const SECOND: Uuid = Uuid::from_u128(7);
const SCHEDULE: Uuid = Uuid::from_u128(8);
const FAILED: Uuid = Uuid::from_u128(20);
const AGAIN: Uuid = Uuid::from_u128(21);
const RETRIED: Uuid = Uuid::from_u128(22);
const APPROVAL: Uuid = Uuid::from_u128(23);
const FIRED: [Uuid; 2] = [Uuid::from_u128(9), Uuid::from_u128(10)];

fn event(thread_id: Uuid, seq: i64, run_id: Uuid, fence: i64, kind: &str, data: Value) -> EventRow {
    EventRow { thread_id, seq, run_id, fence, kind: kind.into(), data, created_at: seq }
}

fn run(id: Uuid, external_id: &str, thread_id: Uuid, thread: &str, kind: &str) -> RunRow {
    RunRow {
        id,
        external_id: external_id.into(),
        thread_id,
        thread: thread.into(),
        kind: kind.into(),
        state: "succeeded".into(),
        fence: 4,
        crashes: 1,
        parent_run_id: None,
        retry_of: None,
        error: None,
        lease_owner: None,
        worker: None,
    }
}

/// Claimed, taken back from a dead worker, claimed again, ended: with the fence of `run`.
fn history(run: &RunRow) -> Vec<RunMove> {
    let queued = Form { state: RunState::Queued, ready: true, owned: false, paused: false, held: false };
    let running = Form { state: RunState::Running, ready: false, owned: true, ..queued };
    let ended = Form { state: RunState::parse(&run.state).unwrap(), ready: false, owned: false, ..running };
    let row = |form, fence, crashes| Row { form, counts: Counts { fence, crashes, ..Counts::default() } };
    let rows = [row(queued, 0, 0), row(running, 1, 0), row(queued, 2, 1), row(running, 3, 1), row(ended, 4, 1)];
    let before = std::iter::once(None).chain(rows.into_iter().map(Some));
    before.zip(rows).map(|(before, after)| RunMove { run_id: run.id, before, after }).collect()
}

fn status(what: &str, id: Uuid, before: Option<&str>, after: &str) -> StatusMove {
    StatusMove { what: what.into(), id, before: before.map(str::to_owned), after: after.into() }
}

fn goal_events() -> Vec<EventRow> {
    let task = |id: Uuid, status: &str| json!({"taskId": id, "status": status});
    let of_goal = |seq, kind, data| event(GOAL_THREAD, seq, GOAL_RUN, 1, kind, data);
    vec![
        of_goal(1, "run.queued", json!({})),
        of_goal(2, "task.changed", task(FIRST, "running")),
        of_goal(3, "task.changed", task(FIRST, "completed")),
        of_goal(4, "task.changed", task(SECOND, "running")),
        of_goal(5, "task.changed", task(SECOND, "completed")),
        of_goal(6, "goal.changed", json!({"progress": {"done": 2, "total": 2}})),
        of_goal(7, "run.finished", json!({})),
    ]
}

/// A run of two answers and a tool call, taken over once; a goal of two tasks; a schedule that fired twice; a file.
fn right() -> World {
    let of_run = |seq, fence, kind, data| event(THREAD, seq, RUN, fence, kind, data);
    let mut events = vec![
        of_run(1, 0, "run.queued", json!({})),
        of_run(2, 1, "run.started", json!({})),
        of_run(3, 1, "message.started", json!({"messageId": "m1"})),
        of_run(4, 1, "message.finished", json!({"messageId": "m1"})),
        of_run(5, 1, "tool.finished", json!({"toolCallId": "c1"})),
        of_run(6, 2, "run.started", json!({})),
        of_run(7, 2, "message.finished", json!({"messageId": "m2"})),
        of_run(8, 2, "run.finished", json!({})),
    ];
    events.extend(goal_events());
    let mut runs = vec![run(RUN, "a", THREAD, "a", "agent"), run(GOAL_RUN, "g", GOAL_THREAD, &format!("goal-{GOAL}"), "goal")];
    let mut heads = vec![
        HeadRow { thread_id: THREAD, last_seq: 8, head_run_id: None },
        HeadRow { thread_id: GOAL_THREAD, last_seq: 7, head_run_id: None },
    ];
    for (n, id) in FIRED.into_iter().enumerate() {
        let thread = Uuid::from_u128(100 + n as u128);
        events.push(event(thread, 1, id, 0, "run.queued", json!({})));
        events.push(event(thread, 2, id, 1, "run.finished", json!({})));
        runs.push(run(id, &format!("f{n}"), thread, &format!("f{n}"), "tool_call"));
        heads.push(HeadRow { thread_id: thread, last_seq: 2, head_run_id: None });
    }
    let step = |run_id, key: &str, fence| StepRow { run_id, key: key.into(), status: "finished".into(), fence, result: None };
    let mut steps = vec![step(RUN, "model:0", 1), step(RUN, "tool:0:0:x:y", 1), step(RUN, "model:1", 1)];
    // One fails after a tool call, and is tried again.
    let of_retried = |seq, run, fence, kind, data| event(RETRIED, seq, run, fence, kind, data);
    events.extend([
        of_retried(1, FAILED, 0, "run.queued", json!({})),
        of_retried(2, FAILED, 1, "message.finished", json!({"messageId": "m3"})),
        of_retried(3, FAILED, 1, "run.failed", json!({"willRetry": false})),
        of_retried(4, AGAIN, 0, "run.queued", json!({})),
        of_retried(5, AGAIN, 1, "message.finished", json!({"messageId": "m4"})),
        of_retried(6, AGAIN, 1, "run.finished", json!({})),
    ]);
    runs.push(RunRow { state: "failed".into(), ..run(FAILED, "r", RETRIED, "r", "agent") });
    runs.push(RunRow { retry_of: Some(FAILED), ..run(AGAIN, "retry-of-r", RETRIED, "r", "agent") });
    heads.push(HeadRow { thread_id: RETRIED, last_seq: 6, head_run_id: None });
    steps.extend([step(FAILED, "model:0", 1), step(FAILED, "tool:0:0:x:y", 1)]);
    steps.extend([step(AGAIN, "model:0", 0), step(AGAIN, "tool:0:0:x:y", 0), step(AGAIN, "model:1", 1)]);
    let task = |id, status: &str| TaskRow { id, goal_id: Some(GOAL), status: status.into() };
    let fire = |n: usize| FireRow {
        schedule_id: SCHEDULE,
        scheduled_for: 1_000_000 * (n as i64 + 1),
        status: "started".into(),
        run_id: Some(FIRED[n]),
    };
    let blob = Blob { path: "u/t/f".into(), sha256: "5".into() };
    let kill = Fault::Kill { process: Process::Worker(0), pause: Duration::ZERO };
    let at = Duration::from_secs(10);
    let moves = runs.iter().flat_map(history).collect();
    World {
        ledger: Ledger { runs, events, heads, steps, messages: Vec::new(), outbox: 0 },
        work: Work {
            goals: vec![work::GoalRow { id: GOAL, thread_id: GOAL_THREAD, status: "completed".into() }],
            tasks: vec![task(FIRST, "completed"), task(SECOND, "completed")],
            fires: vec![fire(0), fire(1)],
            moves,
            statuses: vec![
                status("approvals", APPROVAL, None, "pending"),
                status("approvals", APPROVAL, Some("pending"), "approved"),
                status("tasks", FIRST, None, "ready"),
                status("tasks", FIRST, Some("ready"), "running"),
            ],
            approvals: vec![ApprovalRow { id: APPROVAL, run_id: RUN, status: "approved".into() }],
            attachments: vec![blob.clone()],
            objects: vec![blob],
        },
        seen,
        faults: vec![Happened { act: Act { at, fault: kill }, from: at, until: at }],
        tool_calls: HashMap::from([("k".to_owned(), 1)]),
        hints: 0,
    }
}

fn seen() -> Seen {
    let frames = ["run.queued", "run.started", "message.started", "message.finished", "tool.finished", "run.started"];
    let frames: Vec<_> = (1..).zip(frames.into_iter().chain(["message.finished", "run.finished"]).map(str::to_owned)).collect();
    let error = ServerError { at: Duration::from_secs(12), took: Duration::from_secs(1), status: 503, what: "x".into() };
    Seen {
        runs: [
            ("a".to_owned(), Asked { kind: Kind::Agent { asks: 1, calls: 0 }, offer: Offer::Accepted(RUN) }),
            ("r".to_owned(), Asked { kind: Kind::Failing { calls: 1 }, offer: Offer::Accepted(FAILED) }),
        ]
        .into(),
        retries: vec![(AGAIN, "r".to_owned())],
        decisions: vec![Decision { approval: APPROVAL, approves: true, taken: true }],
        reads: [("a".to_owned(), vec![Read { frames, ended: true }])].into(),
        uploads: vec![Upload { path: Some("u/t/f".into()), sha256: "5".into() }],
        goals: vec![Goal { id: GOAL, tasks: [(FIRST, vec![]), (SECOND, vec![FIRST])].into(), started: true }],
        schedules: vec![Schedule { id: SCHEDULE, every: Duration::from_secs(1) }],
        errors: vec![error],
        ..Seen::default()
    }
}

fn verdict(world: &World, seen: &Seen) -> Vec<String> {
    let World { ledger, work, faults, tool_calls, hints, .. } = world;
    check(&Evidence { seen, ledger, work, faults, tool_calls, hints: *hints })
}

#[test]
fn what_is_right_passes() {
    let world = right();
    assert_eq!(verdict(&world, &(world.seen)()), Vec::<String>::new());
}

#[test]
fn bugs_in_the_database_are_caught() {
    type Bug = (&'static str, fn(&mut World));
    let bugs: [Bug; 36] = [
        ("a dropped event", |w| drop(w.ledger.events.remove(4))),
        ("a dropped last event", |w| drop(w.ledger.events.remove(7))),
        ("an event twice", |w| {
            let again = w.ledger.events[4].clone();
            w.ledger.events.insert(5, again);
        }),
        ("a doubled step", |w| {
            w.ledger.events[6] = event(THREAD, 7, RUN, 2, "tool.finished", json!({"toolCallId": "c1"}));
        }),
        ("a write by a stale worker", |w| w.ledger.events[6].fence = 1),
        ("an answer that the journal does not know", |w| drop(w.ledger.steps.remove(2))),
        ("a failed run that has succeeded", |w| w.ledger.runs[4].state = "succeeded".into()),
        ("another try that has failed", |w| w.ledger.runs[5].state = "failed".into()),
        ("another try of nothing", |w| w.ledger.runs[5].retry_of = None),
        ("a tool called again by another try", |w| w.ledger.steps[6].fence = 1),
        ("a claim that did not raise the fence", |w| {
            w.work.moves[1].after.counts.fence = 0;
            w.work.moves[2].before = Some(w.work.moves[1].after);
        }),
        ("a claim of a run that is not ready", |w| {
            w.work.moves[0].after.form.ready = false;
            w.work.moves[1].before = Some(w.work.moves[0].after);
        }),
        ("an owner after the end", |w| w.work.moves[4].after.form.owned = true),
        ("a change that nobody saw", |w| _ = w.work.moves.remove(2)),
        ("a row that its history does not end with", |w| _ = w.work.moves.remove(4)),
        ("an approval that was decided twice", |w| {
            w.work.statuses.push(status("approvals", APPROVAL, Some("approved"), "rejected"));
        }),
        ("a task begun twice", |w| w.work.statuses.push(status("tasks", FIRST, Some("running"), "running"))),
        ("a decision turned round", |w| w.work.approvals[0].status = "rejected".into()),
        ("a question left open", |w| w.work.approvals[0].status = "pending".into()),
        ("a question asked twice", |w| {
            let again = ApprovalRow { id: GOAL, ..w.work.approvals[0].clone() };
            w.work.approvals.push(ApprovalRow { status: "expired".into(), ..again });
        }),
        ("a step left open", |w| w.ledger.steps[1].status = "started".into()),
        ("a second end", |w| w.ledger.events[5] = event(THREAD, 6, RUN, 2, "run.finished", json!({}))),
        ("a lost run", |w| drop(w.ledger.runs.remove(0))),
        ("a run that nobody asked for", |w| w.ledger.runs[0].external_id = "b".into()),
        ("a run that has not ended", |w| w.ledger.runs[0].state = "running".into()),
        ("a failed run", |w| w.ledger.runs[0].state = "failed".into()),
        ("a lease left", |w| w.ledger.runs[0].lease_owner = Some(RUN)),
        ("a thread left to a run", |w| w.ledger.heads[0].head_run_id = Some(RUN)),
        ("a notice left", |w| w.ledger.outbox = 1),
        ("a hint left", |w| w.hints = 1),
        ("a tool called twice", |w| *w.tool_calls.get_mut("k").unwrap() = 2),
        ("a task done twice", |w| {
            let twice = json!({"taskId": SECOND, "status": "completed"});
            w.ledger.events[8 + 5] = event(GOAL_THREAD, 6, GOAL_RUN, 1, "task.changed", twice);
        }),
        ("a task before its time", |w| w.ledger.events.swap(8 + 1, 8 + 3)),
        ("a fire left out", |w| w.work.fires[1].scheduled_for = 3_000_000),
        ("a fire twice", |w| w.work.fires[1].run_id = Some(FIRED[0])),
        ("a lost file", |w| w.work.objects.clear()),
    ];
    for (name, plant) in bugs {
        let mut world = right();
        plant(&mut world);
        if name == "a task before its time" {
            // The numbers stay in order.
            for (n, event) in world.ledger.events[8..15].iter_mut().enumerate() {
                event.seq = n as i64 + 1;
            }
        }
        // That the history does not end so is one thing; the check that is meant for the bug has to see it too.
        let by_history = name.contains("its history");
        let seen: Vec<_> =
            verdict(&world, &(world.seen)()).into_iter().filter(|w| by_history || !w.starts_with("the history of")).collect();
        assert!(!seen.is_empty(), "{name} is not caught");
    }
}

#[test]
fn broken_promises_to_clients_are_caught() {
    type Bug = (&'static str, fn(&mut Seen));
    let bugs: [Bug; 9] = [
        ("a frame dropped", |s| drop(s.reads.get_mut("a").unwrap()[0].frames.remove(3))),
        ("a frame twice", |s| {
            let frames = &mut s.reads.get_mut("a").unwrap()[0].frames;
            frames.insert(3, frames[3].clone());
        }),
        ("an end too early", |s| s.reads.get_mut("a").unwrap()[0].frames.truncate(5)),
        ("accepted under another id", |s| s.runs.get_mut("a").unwrap().offer = Offer::Accepted(GOAL)),
        ("refused and there", |s| s.runs.get_mut("a").unwrap().offer = Offer::Refused(429)),
        ("an error without a cause", |s| s.errors[0].at = Duration::from_secs(5)),
        ("another try accepted under another id", |s| s.retries[0].0 = GOAL),
        ("another file than was sent", |s| s.uploads[0].sha256 = "6".into()),
        ("a broken promise", |s| s.wrong.push("x".into())),
    ];
    for (name, plant) in bugs {
        let world = right();
        let mut seen = seen();
        plant(&mut seen);
        assert!(!verdict(&world, &seen).is_empty(), "{name} is not caught");
    }
}
