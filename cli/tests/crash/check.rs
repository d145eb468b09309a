//! What must hold whatever was killed: every accepted run ended once, no journaled step ran twice, the log has no hole and no
//! duplicate, readers got exactly the log, and nothing is held or queued any more.
use std::collections::HashMap;

use runmill_shared::store::db::Db;
use runmill_testkit::ledger::{EventRow, Ledger, RunRow};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::{Reader, Seen},
    eventually,
    model::Model,
    world::World,
};

/// What a scenario says about its runs.
#[derive(Clone, Copy)]
pub struct Expect {
    /// There is no other.
    pub runs: usize,
    /// Answers of the model in each.
    pub answers: usize,
    /// How often a call of a run may have been made: once, and once more for each crash that met it in flight.
    pub tries: usize,
}

/// Waits until everything has ended, and checks what is left. Answers what the readers got.
pub async fn check(world: &World, readers: &mut [Reader], expect: Expect) -> (Ledger, Vec<Seen>) {
    let (ledger, seen) = check_database(&world.db, &world.model, readers, expect).await;
    // A hint of a run that has ended is taken out, or popped for nothing.
    eventually("the queue is empty", || async { world.hints().await.is_some_and(|hints| hints.is_empty()).then_some(()) }).await;
    (ledger, seen)
}

pub async fn check_database(db: &Db, model: &Model, readers: &mut [Reader], expect: Expect) -> (Ledger, Vec<Seen>) {
    let mut seen = Vec::new();
    for reader in readers.iter_mut() {
        seen.push(reader.ended().await);
    }
    let ledger = eventually("every run has ended and every notice is applied", || async {
        let ledger = Ledger::read(db).await.ok()?;
        let open = |run: &RunRow| ["queued", "running", "waiting"].contains(&run.state.as_str());
        (ledger.outbox == 0 && !ledger.runs.iter().any(open)).then_some(ledger)
    })
    .await;
    let mut wrong = Wrong::default();
    wrong.unless(ledger.runs.len() == expect.runs, || format!("{} runs, not {}", ledger.runs.len(), expect.runs));
    for run in &ledger.runs {
        check_run(&mut wrong, &ledger, run, model, expect);
    }
    check_numbers(&mut wrong, &ledger);
    for (reader, seen) in readers.iter().zip(&seen) {
        check_reader(&mut wrong, &ledger, &reader.thread, seen);
    }
    assert!(wrong.0.is_empty(), "{} things are wrong:\n{}", wrong.0.len(), wrong.0.join("\n"));
    (ledger, seen)
}

#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

fn is_terminal(event: &EventRow) -> bool {
    match event.kind.as_str() {
        "run.finished" | "run.cancelled" => true,
        "run.failed" => event.data["willRetry"] == json!(false),
        _ => false,
    }
}

fn check_run(wrong: &mut Wrong, ledger: &Ledger, run: &RunRow, model: &Model, expect: Expect) {
    let name = &run.external_id;
    let events: Vec<_> = ledger.events_of(run.id).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let ends = events.iter().filter(|event| is_terminal(event)).count();
    let last = events.last().is_some_and(|event| is_terminal(event));
    wrong.unless(run.state == "succeeded", || format!("{name} is {}; {:?}", run.state, events.last()));
    wrong.unless(run.lease_owner.is_none(), || format!("{name} has a lease after its end"));
    wrong.unless(ends == 1 && last, || format!("{name} has {ends} ends: {kinds:?}"));
    wrong.unless(kinds.first() == Some(&"run.queued") && kinds.iter().filter(|kind| **kind == "run.queued").count() == 1, || {
        format!("{name} was not queued once and first: {kinds:?}")
    });
    // Events of nobody's execution have no fence.
    let fences: Vec<_> = events.iter().map(|event| event.fence).filter(|fence| *fence > 0).collect();
    wrong.unless(fences.is_sorted(), || format!("{name}: an execution that was replaced has written: {fences:?}"));
    let started = check_messages(wrong, name, &events, expect);
    for (iteration, started) in started.iter().enumerate() {
        let calls = model.calls(name, iteration);
        wrong.unless(calls <= *started && calls <= expect.tries, || {
            format!("{name}: model call {iteration} was made {calls} times, announced {started} times, allowed {}", expect.tries)
        });
    }
    check_steps(wrong, ledger, run, expect);
}

/// Answers how often each of the run's model calls was announced.
fn check_messages(wrong: &mut Wrong, name: &str, events: &[&EventRow], expect: Expect) -> Vec<usize> {
    let (mut started, mut open) = (vec![0], None::<(String, String)>);
    let mut kept = 0;
    for event in events {
        let id = event.data["messageId"].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            "message.started" => {
                wrong.unless(open.is_none(), || format!("{name}: {id} starts while {open:?} is open"));
                *started.last_mut().unwrap() += 1;
                open = Some((id, String::new()));
            }
            "text.delta" => match &mut open {
                Some((message, text)) if *message == id => text.push_str(event.data["delta"].as_str().unwrap_or_default()),
                other => wrong.0.push(format!("{name}: a delta of {id} while {other:?} is open")),
            },
            "message.finished" => {
                let (message, text) = open.take().unwrap_or_default();
                wrong.unless(message == id, || format!("{name}: {id} finishes while {message} is open"));
                if event.data["discarded"] == Value::Bool(true) {
                    continue;
                }
                kept += 1;
                started.push(0);
                wrong.unless(event.data["content"] == text.as_str(), || {
                    format!("{name}: {} was said, {:?} was streamed", event.data["content"], text)
                });
            }
            _ => {}
        }
    }
    wrong.unless(open.is_none(), || format!("{name}: {open:?} was never closed"));
    wrong.unless(kept == expect.answers, || format!("{name} has {kept} answers, not {}", expect.answers));
    started
}

fn check_steps(wrong: &mut Wrong, ledger: &Ledger, run: &RunRow, expect: Expect) {
    let name = &run.external_id;
    let steps: Vec<_> = ledger.steps_of(run.id).collect();
    wrong.unless(steps.iter().all(|step| step.status == "finished" && step.result.is_some()), || {
        format!("{name} ended with open steps: {steps:?}")
    });
    let answers = steps.iter().filter(|step| step.key.starts_with("model:")).count();
    wrong.unless(answers == expect.answers, || format!("{name}: {answers} model calls are journaled, not {}", expect.answers));
    let tools = steps.iter().filter(|step| step.key.starts_with("tool:")).count();
    let told = ledger.events_of(run.id).filter(|event| event.kind == "tool.finished").count();
    let stored = |role: &str| ledger.messages.iter().filter(|message| message.run_id == run.id && message.role == role).count();
    let messages = (stored("user"), stored("assistant"), stored("tool"));
    wrong.unless(messages == (1, answers, tools), || format!("{name} has other messages than it said: {messages:?}"));
    wrong.unless(tools == told, || format!("{name}: {tools} tool calls are journaled, {told} were told"));
}

/// 1, 2, 3 … in every thread.
fn check_numbers(wrong: &mut Wrong, ledger: &Ledger) {
    let mut events: HashMap<Uuid, Vec<i64>> = HashMap::new();
    for event in &ledger.events {
        events.entry(event.thread_id).or_default().push(event.seq);
    }
    for head in &ledger.heads {
        let seqs = events.remove(&head.thread_id).unwrap_or_default();
        wrong.unless(seqs.iter().copied().eq(1..=head.last_seq), || {
            format!("thread {} has {seqs:?}, and its head is at {}", head.thread_id, head.last_seq)
        });
        wrong.unless(head.head_run_id.is_none(), || format!("thread {} still has a head", head.thread_id));
    }
    wrong.unless(events.is_empty(), || format!("events of threads without a head: {events:?}"));
}

/// What a reader got over all its connections is the log.
fn check_reader(wrong: &mut Wrong, ledger: &Ledger, thread: &str, seen: &Seen) {
    let Some(thread_id) = ledger.runs.iter().find(|run| run.thread == thread).map(|run| run.thread_id) else {
        wrong.0.push(format!("a reader of {thread}, which is not there"));
        return;
    };
    let log: Vec<_> = ledger.events.iter().filter(|event| event.thread_id == thread_id).collect();
    let got: Vec<_> = seen.frames.iter().map(|frame| (frame.id, frame.event.as_str(), &frame.data["data"])).collect();
    let stored: Vec<_> = log.iter().map(|event| (event.seq, event.kind.as_str(), &event.data)).collect();
    wrong.unless(got == stored, || format!("the reader of {thread} got {got:?}, the log is {stored:?}"));
    let named = seen.frames.iter().all(|frame| frame.data["threadId"] == thread && frame.data["id"] == frame.id);
    wrong.unless(named, || format!("an envelope of {thread} names another thread or number"));
}
