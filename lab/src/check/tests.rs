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
    history::{Asked, Decision, Frame, Goal, Schedule, ServerError, Upload},
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
const CANCELLED: Uuid = Uuid::from_u128(24);
const CANCELLED_THREAD: Uuid = Uuid::from_u128(25);
const CALL: (Uuid, &str) = (RUN, "tool:0:0:http_request:y");
const FAILED_CALL: (Uuid, &str) = (FAILED, "tool:0:0:http_request:y");
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

fn step(run_id: Uuid, key: &str, fence: i64) -> StepRow {
    let result = Some(r#"{"ok": 42}"#.to_owned());
    StepRow { run_id, key: key.into(), status: "finished".into(), fence, result }
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
    let mut steps = vec![step(RUN, "model:0", 1), step(RUN, CALL.1, 1), step(RUN, "model:1", 1)];
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
    steps.extend([step(FAILED, "model:0", 1), step(FAILED, FAILED_CALL.1, 1)]);
    steps.extend([step(AGAIN, "model:0", 0), step(AGAIN, FAILED_CALL.1, 0), step(AGAIN, "model:1", 1)]);
    steps.push(step(RUN, "tool:0:1:ask_human:z", 1));
    let task = |id, status: &str| TaskRow { id, goal_id: Some(GOAL), status: status.into() };
    let fire = |n: usize| FireRow {
        schedule_id: SCHEDULE,
        scheduled_for: 1_000_000 * (n as i64 + 1),
        status: "succeeded".into(),
        run_id: Some(FIRED[n]),
    };
    let blob = Blob { path: "u/t/f".into(), sha256: "5".into() };
    let kill = Fault::Kill { process: Process::Api(1), pause: Duration::ZERO };
    let at = Duration::from_secs(10);
    let moves = runs.iter().flat_map(history).collect();
    let mut world = World {
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
            stale: Vec::new(),
        },
        seen,
        faults: vec![Happened { act: Act { at, fault: kill }, from: at, until: at }],
        tool_calls: HashMap::from([CALL, FAILED_CALL].map(|(run, key)| (format!("{run}:{key}"), 1))),
        hints: 0,
    };
    add_cancelled(&mut world);
    world
}

/// A run that its client has cancelled before it was executed.
fn add_cancelled(world: &mut World) {
    let cancelled = RunRow { state: "cancelled".into(), ..run(CANCELLED, "c", CANCELLED_THREAD, "c", "agent") };
    world.work.moves.extend(history(&cancelled));
    world.ledger.runs.push(cancelled);
    for (seq, kind) in [(1, "run.queued"), (2, "run.cancelled")] {
        world.ledger.events.push(event(CANCELLED_THREAD, seq, CANCELLED, 0, kind, json!({})));
    }
    world.ledger.heads.push(HeadRow { thread_id: CANCELLED_THREAD, last_seq: 2, head_run_id: None });
}

fn seen() -> Seen {
    let frame = |e: &EventRow| Frame { id: e.seq, kind: e.kind.clone(), run_id: e.run_id, data: e.data.clone() };
    let frames = right().ledger.events.iter().filter(|e| e.thread_id == THREAD).map(frame).collect();
    let (at, took) = (Duration::from_secs(12), Duration::from_secs(1));
    let error = ServerError { at, took, api: 1, status: Some(503), what: "x".into() };
    Seen {
        runs: [
            ("a".to_owned(), Asked { kind: Kind::Agent { asks: 1, calls: 1 }, offer: Offer::Accepted(RUN) }),
            ("r".to_owned(), Asked { kind: Kind::Failing { calls: 1 }, offer: Offer::Accepted(FAILED) }),
            ("c".to_owned(), Asked { kind: Kind::Cancelled, offer: Offer::Accepted(CANCELLED) }),
        ]
        .into(),
        retries: vec![(AGAIN, "r".to_owned())],
        decisions: vec![Decision { approval: APPROVAL, approves: true, taken: true }],
        reads: [("a".to_owned(), vec![Read { frames, ended: true }])].into(),
        uploads: vec![Upload { path: Some("u/t/f".into()), sha256: "5".into() }],
        goals: vec![Goal { id: GOAL, tasks: [(FIRST, vec![]), (SECOND, vec![FIRST])].into(), started: true }],
        schedules: vec![Schedule { id: SCHEDULE, every: Duration::from_secs(1), created: 500_000, stopped: Some(2_500_000) }],
        errors: vec![error],
        cancelled: vec![("c".to_owned(), "cancelled".to_owned())],
        transcripts: 1,
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

/// What the bug is, what of it has to be seen, and how it is planted.
type Bug<T> = (&'static str, &'static str, fn(&mut T));

fn is_caught(name: &str, expected: &str, wrong: &[String]) {
    assert!(wrong.iter().any(|what| what.contains(expected)), "{name} is not caught as {expected:?}: {wrong:#?}");
}

const IN_THE_DATABASE: &[Bug<World>] = &[
    ("a dropped event", "first hole Some(5)", |w| drop(w.ledger.events.remove(4))),
    ("a dropped last event", "has 0 ends", |w| drop(w.ledger.events.remove(7))),
    ("an event twice", "9 events to number 8", |w| {
        let again = w.ledger.events[4].clone();
        w.ledger.events.insert(5, again);
    }),
    ("a doubled step", "tool.finished of c1 was told 2 times", |w| {
        w.ledger.events[6] = event(THREAD, 7, RUN, 2, "tool.finished", json!({"toolCallId": "c1"}));
    }),
    ("a write by a stale worker", "an execution that was replaced has written: [1, 1, 1, 1, 2, 1, 2]", |w| {
        w.ledger.events[6].fence = 1;
    }),
    ("a write by a stale worker that the log's order does not show", "has written: run_steps", |w| {
        w.work.stale.push("run_steps {}".into());
    }),
    ("an answer that the journal does not know", "journaled 1 answers and told 2", |w| drop(w.ledger.steps.remove(2))),
    ("a failed run that has succeeded", "r is succeeded", |w| w.ledger.runs[4].state = "succeeded".into()),
    ("another try that has failed", "tried again, is failed", |w| w.ledger.runs[5].state = "failed".into()),
    ("another try of nothing", "was accepted and is not there", |w| w.ledger.runs[5].retry_of = None),
    ("a tool called again by another try", "knew 0 of 1 tool calls and made 1 more", |w| w.ledger.steps[6].fence = 1),
    ("a claim that did not raise the fence", "a move that the protocol does not have", |w| {
        w.work.moves[1].after.counts.fence = 0;
        w.work.moves[2].before = Some(w.work.moves[1].after);
    }),
    ("a claim of a run that is not ready", "a move that the protocol does not have", |w| {
        w.work.moves[0].after.form.ready = false;
        w.work.moves[1].before = Some(w.work.moves[0].after);
    }),
    ("an owner after the end", "a move that the protocol does not have", |w| w.work.moves[4].after.form.owned = true),
    ("a change that nobody saw", "unseen", |w| _ = w.work.moves.remove(2)),
    ("a row that its history does not end with", "the history of a ends with", |w| _ = w.work.moves.remove(4)),
    ("a row that was deleted", "has a history and no row", |w| {
        let gone = run(Uuid::from_u128(99), "x", THREAD, "a", "agent");
        w.work.moves.extend(history(&gone));
    }),
    ("an approval that was decided twice", "it was Some(\"approved\")", |w| {
        w.work.statuses.push(status("approvals", APPROVAL, Some("approved"), "rejected"));
    }),
    ("a task begun twice", "it was Some(\"running\")", |w| {
        w.work.statuses.push(status("tasks", FIRST, Some("running"), "running"));
    }),
    ("a decision turned round", "was approved and is Some(\"rejected\")", |w| w.work.approvals[0].status = "rejected".into()),
    ("a question left open", "is still wanted", |w| w.work.approvals[0].status = "pending".into()),
    ("a question asked twice", "has asked 2 times instead of 1", |w| {
        let again = ApprovalRow { id: GOAL, ..w.work.approvals[0].clone() };
        w.work.approvals.push(ApprovalRow { status: "expired".into(), ..again });
    }),
    ("a step left open", "succeeded with 1 steps open", |w| w.ledger.steps[1].status = "started".into()),
    ("a second end", "a has 2 ends", |w| w.ledger.events[5] = event(THREAD, 6, RUN, 2, "run.finished", json!({}))),
    ("a lost run", "was accepted and is not there", |w| drop(w.ledger.runs.remove(0))),
    ("a run that nobody asked for", "nobody asked for the run b", |w| w.ledger.runs[0].external_id = "b".into()),
    ("a run that has not ended", "a has not ended", |w| w.ledger.runs[0].state = "running".into()),
    ("a failed run", "a is failed", |w| w.ledger.runs[0].state = "failed".into()),
    ("a cancel that did nothing", "the cancel of c was answered with cancelled", |w| {
        w.ledger.runs.last_mut().unwrap().state = "succeeded".into();
    }),
    ("a lease left", "has a lease after its end", |w| w.ledger.runs[0].lease_owner = Some(RUN)),
    ("a thread left to a run", "is still given to the run", |w| w.ledger.heads[0].head_run_id = Some(RUN)),
    ("a notice left", "1 notices were not applied", |w| w.ledger.outbox = 1),
    ("a hint left", "1 hints are left", |w| w.hints = 1),
    ("a tool called twice", "reached its server 2 times", |w| {
        w.tool_calls.values_mut().for_each(|calls| *calls = 2);
    }),
    ("a tool that was not called", "reached its server 0 times", |w| w.tool_calls.clear()),
    ("a tool call that failed", "its result is {\"error\"", |w| {
        w.ledger.steps[1].result = Some(r#"{"error": {"code": "TIMEOUT"}}"#.into());
    }),
    ("a tool call that no journal knows", "is in no journal", |w| _ = w.tool_calls.insert("k".into(), 1)),
    ("a task done twice", "was completed 2 times", |w| {
        let twice = json!({"taskId": SECOND, "status": "completed"});
        w.ledger.events[8 + 5] = event(GOAL_THREAD, 6, GOAL_RUN, 1, "task.changed", twice);
    }),
    ("a task before its time", "was begun at 2, before", |w| {
        w.ledger.events.swap(8 + 1, 8 + 3);
        // The numbers stay in order.
        (1..).zip(&mut w.ledger.events[8..15]).for_each(|(n, event)| event.seq = n);
    }),
    ("a fire left out", "fired at 1000000 and then at 3000000", |w| w.work.fires[1].scheduled_for = 3_000_000),
    ("a fire twice", "was fired twice", |w| w.work.fires[1].run_id = Some(FIRED[0])),
    ("a fire that was skipped", "is skipped, its run None", |w| {
        w.work.fires[1] = FireRow { status: "skipped".into(), run_id: None, ..w.work.fires[1].clone() };
    }),
    ("a schedule that began late", "fired first at 1000000", |w| {
        w.work.fires.iter_mut().for_each(|fire| fire.scheduled_for += 9_000_000);
    }),
    ("a fired run that failed", "is Some(\"failed\")", |w| w.ledger.runs[2].state = "failed".into()),
    ("a lost file", "is in the database and not in the store", |w| w.work.objects.clear()),
    ("a plan of nothing", "there was no fault", |w| w.faults.clear()),
];

#[test]
fn bugs_in_the_database_are_caught() {
    for (name, expected, plant) in IN_THE_DATABASE {
        let mut world = right();
        plant(&mut world);
        is_caught(name, expected, &verdict(&world, &(world.seen)()));
    }
}

#[test]
fn broken_promises_to_clients_are_caught() {
    fn frames(seen: &mut Seen) -> &mut Vec<Frame> {
        &mut seen.reads.get_mut("a").unwrap()[0].frames
    }
    let bugs: [Bug<Seen>; 15] = [
        ("a frame dropped", "its frame 4 is", |s| drop(frames(s).remove(3))),
        ("a frame twice", "its frame 5 is", |s| {
            let again = frames(s)[3].clone();
            frames(s).insert(3, again);
        }),
        ("a frame of another run", "its frame 4 is", |s| frames(s)[3].run_id = GOAL_RUN),
        ("a frame that says something else", "its frame 4 is", |s| frames(s)[3].data = json!({})),
        ("an end too early", "it was told the end after 5 of 8 events", |s| frames(s).truncate(5)),
        ("accepted under another id", "a was accepted as", |s| s.runs.get_mut("a").unwrap().offer = Offer::Accepted(GOAL)),
        ("refused and there", "a was refused with 429 and is there", |s| {
            s.runs.get_mut("a").unwrap().offer = Offer::Refused(429);
        }),
        ("an error before the fault", "answered 503 from api 1 at 5.0 s", |s| s.errors[0].at = Duration::from_secs(5)),
        ("an error of another API", "answered 503 from api 0", |s| s.errors[0].api = 0),
        ("an error of the server's own", "answered 500 from api 1", |s| s.errors[0].status = Some(500)),
        ("no answer long after the fault", "did not answer from api 1", |s| {
            s.errors[0] = ServerError { at: Duration::from_secs(30), status: None, ..s.errors[0].clone() };
        }),
        ("another try accepted under another id", "was accepted and is not there", |s| s.retries[0].0 = GOAL),
        ("another file than was sent", "is not there as it was sent", |s| s.uploads[0].sha256 = "6".into()),
        ("a schedule that stopped early", "fired last at 2000000", |s| s.schedules[0].stopped = Some(9_000_000)),
        ("a broken promise", "a client was lied to", |s| s.wrong.push("a client was lied to".into())),
    ];
    for (name, expected, plant) in bugs {
        let world = right();
        let mut seen = seen();
        plant(&mut seen);
        is_caught(name, expected, &verdict(&world, &seen));
    }
}
