//! A worker is killed: in the middle of an answer, around a tool call, and with its hands full. And one that is asked to stop.
use std::sync::{Arc, Mutex};

use runmill_testkit::{
    http_server::{HttpServer, Response},
    model_server::{Gate, Reply},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    check::{Expect, check},
    client::Reader,
    model::{Call, words},
    world::{LEASE, Setup, World, first_after, last_of, report},
};

/// The first try stops after a few words for good; every later one is whole.
fn stuck_at_first(call: &Call) -> Reply {
    if call.again == 0 { words(30).hold_after(8, &Gate::new()) } else { words(30) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_an_answer() {
    let mut world = World::start(Setup { workers: 2, ..Setup::default() }, stuck_at_first).await;
    let mut readers = world.submit("middle", 1).await;
    readers[0].until_event("text.delta", 1).await;
    let holder = world.holder("middle-0").await;
    let killed = Instant::now();
    world.workers[holder].kill9().unwrap();
    let (ledger, seen) = check(&world, &mut readers, Expect { runs: 1, answers: 1, tries: 2 }).await;
    assert_eq!(world.model.calls("middle-0", 0), 2);
    assert_eq!(ledger.runs[0].crashes, 1);
    report("worker killed in the middle of an answer", first_after(killed, &seen), last_of(killed, &seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_fifty_runs() {
    const RUNS: usize = 50;
    let mut world = World::start(Setup::default(), stuck_at_first).await;
    let mut readers = world.submit("fifty", RUNS).await;
    for reader in &mut readers {
        reader.until_event("text.delta", 1).await;
    }
    world.held(RUNS).await;
    world.add_worker().ready().await.unwrap();
    let killed = Instant::now();
    world.workers[0].kill9().unwrap();
    let (ledger, seen) = check(&world, &mut readers, Expect { runs: RUNS, answers: 1, tries: 2 }).await;
    assert!(ledger.runs.iter().all(|run| run.crashes == 1));
    report("worker killed with 50 runs", first_after(killed, &seen), last_of(killed, &seen));
}

/// A server that counts what tools ask of it, by the step that asks.
struct Counter {
    server: HttpServer,
    /// Whether the next request is never answered.
    hold: Arc<Mutex<bool>>,
}

impl Counter {
    fn start() -> Self {
        let hold = Arc::new(Mutex::new(false));
        let held = hold.clone();
        let server = HttpServer::start(move |_| {
            let hold = std::mem::take(&mut *held.lock().unwrap());
            // The head alone, with a body that never comes.
            if hold { Response { length: Some(1), hold: true, ..Response::new(200, "") } } else { Response::new(200, "counted") }
        });
        Self { server, hold }
    }

    fn setup(&self, workers: usize) -> Setup {
        let host = self.server.url.trim_start_matches("http://").to_owned();
        let settings = vec![("RUNMILL_SECURITY__ALLOW_PRIVATE_HOSTS", format!("[\"{host}\"]"))];
        Setup { workers, settings, ..Setup::default() }
    }

    /// The model's wish to be counted.
    fn call(&self) -> Reply {
        Reply::tool_calls([("http_request", json!({"method": "POST", "url": self.server.url, "body": "{}"}))])
    }

    /// Every step that asked did so once; answers how many did.
    fn asked_once(&self) -> usize {
        let requests = self.server.requests();
        let mut keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect();
        keys.sort();
        assert!(keys.windows(2).all(|two| two[0] != two[1]), "a tool was called twice: {keys:?}");
        keys.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_a_tool_and_before_the_answer() {
    const RUNS: usize = 6;
    let counter = Counter::start();
    let call = counter.call();
    let gate = Gate::new();
    let script = move |c: &Call| match (c.iteration, c.again) {
        (0, _) => call.clone(),
        (_, 0) => words(10).hold_until(&gate),
        _ => words(10),
    };
    let mut world = World::start(counter.setup(1), script).await;
    let mut readers = world.submit("tool", RUNS).await;
    // The tools have ended, and the next calls have reached the model and not been answered.
    world.model.called(2 * RUNS).await;
    for reader in &mut readers {
        reader.until_event("message.started", 2).await;
    }
    let killed = Instant::now();
    world.workers[0].kill9().unwrap();
    world.add_worker().ready().await.unwrap();
    let (_, seen) = check(&world, &mut readers, Expect { runs: RUNS, answers: 2, tries: 2 }).await;
    assert_eq!(counter.asked_once(), RUNS);
    for run in 0..RUNS {
        let calls = (world.model.calls(&format!("tool-{run}"), 0), world.model.calls(&format!("tool-{run}"), 1));
        assert_eq!(calls, (1, 2), "tool-{run}");
    }
    report("worker killed between a tool and the next call", first_after(killed, &seen), last_of(killed, &seen));
}

/// As soon as a reader sees that the tool has ended: wherever the worker is between that and the next answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_as_soon_as_a_tool_has_ended() {
    const ROUNDS: usize = 3;
    let counter = Counter::start();
    let call = counter.call();
    let script = move |c: &Call| if c.iteration == 0 { call.clone() } else { words(10) };
    let mut world = World::start(counter.setup(1), script).await;
    let mut readers: Vec<Reader> = Vec::new();
    for round in 0..ROUNDS {
        let mut reader = world.submit(&format!("round-{round}"), 1).await.remove(0);
        reader.until_event("tool.finished", 1).await;
        world.workers[round].kill9().unwrap();
        world.add_worker().ready().await.unwrap();
        reader.ended().await;
        readers.push(reader);
    }
    check(&world, &mut readers, Expect { runs: ROUNDS, answers: 2, tries: 2 }).await;
    assert_eq!(counter.asked_once(), ROUNDS);
    assert!((0..ROUNDS).all(|round| world.model.calls(&format!("round-{round}-0"), 0) == 1));
}

/// The one call in flight: a tool that cannot be repeated is not, and the model is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_tool() {
    let counter = Counter::start();
    *counter.hold.lock().unwrap() = true;
    let call = counter.call();
    let script = move |c: &Call| if c.iteration == 0 { call.clone() } else { words(10) };
    let mut world = World::start(counter.setup(2), script).await;
    let mut readers = world.submit("during", 1).await;
    crate::eventually("the tool is called", || async { (!counter.server.requests().is_empty()).then_some(()) }).await;
    let holder = world.holder("during-0").await;
    world.workers[holder].kill9().unwrap();
    let (ledger, _) = check(&world, &mut readers, Expect { runs: 1, answers: 2, tries: 1 }).await;
    assert_eq!(counter.asked_once(), 1);
    let told = ledger.events.iter().find(|event| event.kind == "tool.finished").unwrap();
    assert_eq!(told.data["error"]["code"], "OUTCOME_UNKNOWN", "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_it_puts_its_runs_back_at_once() {
    const RUNS: usize = 8;
    let mut world = World::start(Setup::default(), stuck_at_first).await;
    let mut readers = world.submit("drain", RUNS).await;
    for reader in &mut readers {
        reader.until_event("text.delta", 1).await;
    }
    world.held(RUNS).await;
    world.add_worker().ready().await.unwrap();
    let asked = Instant::now();
    world.workers[0].term().unwrap();
    for reader in &mut readers {
        reader.until_event("run.started", 2).await;
    }
    let restarted = asked.elapsed();
    let status = world.workers[0].exited().await.unwrap();
    let (ended, tail) = (asked.elapsed(), world.workers[0].log_tail());
    assert!(status.success(), "{status}\n{tail}");
    let (ledger, seen) = check(&world, &mut readers, Expect { runs: RUNS, answers: 1, tries: 2 }).await;
    // Given back, not taken away: nobody waited for a lease to expire.
    assert!(ledger.runs.iter().all(|run| run.crashes == 0), "{:?}", ledger.runs);
    assert!(restarted < LEASE && ended < LEASE * 2, "elsewhere after {restarted:?}, ended after {ended:?}\n{tail}");
    report("worker asked to stop with 8 runs", first_after(asked, &seen), last_of(asked, &seen));
}
