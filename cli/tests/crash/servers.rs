//! Redis and Postgres go away with work in flight.
use std::time::Duration;

use runmill_testkit::model_server::Gate;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    check::{Expect, check},
    client::Reader,
    eventually,
    model::{Call, words},
    world::{Setup, World, first_after, last_of, report},
};

/// Few runs at once, so that most of a scenario's are still queued when it begins.
fn narrow(workers: usize) -> Setup {
    Setup { workers, settings: vec![("RUNMILL_LANES__RUNS", "4".to_owned())], ..Setup::default() }
}

/// Some are being executed and held, the others are in the queue.
async fn work_in_flight(world: &World, prefix: &str, runs: usize, held: usize) -> Vec<Reader> {
    let readers = world.submit(prefix, runs).await;
    world.held(held).await;
    eventually("the others are in the queue", || async {
        world.hints().await.filter(|hints| hints.len() == runs - held).map(|_| ())
    })
    .await;
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed() {
    let gate = Gate::new();
    let held = gate.clone();
    let world = World::start(narrow(2), move |_: &Call| words(20).hold_after(5, &held)).await;
    let mut readers = work_in_flight(&world, "flush", 40, 8).await;
    let flushed = Instant::now();
    world.redis.command(&["FLUSHALL"]).await.unwrap();
    gate.open();
    let (ledger, seen) = check(&world, &mut readers, Expect { runs: 40, answers: 1, tries: 1 }).await;
    assert!(ledger.runs.iter().all(|run| run.crashes == 0));
    report("Redis flushed, 8 runs held and 32 queued", first_after(flushed, &seen), last_of(flushed, &seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back_empty() {
    let gate = Gate::new();
    let held = gate.clone();
    let mut world = World::start(narrow(2), move |_: &Call| words(20).hold_after(5, &held)).await;
    let mut readers = work_in_flight(&world, "redis", 40, 8).await;
    let killed = Instant::now();
    world.redis.kill().unwrap();
    gate.open();
    // Work goes on without it, and is accepted: only later than usual.
    readers.extend(world.submit("without", 4).await);
    for reader in &mut readers {
        reader.until_event("run.started", 1).await;
    }
    let without = killed.elapsed();
    world.redis.restart().await.unwrap();
    readers.extend(world.submit("after", 4).await);
    let (ledger, seen) = check(&world, &mut readers, Expect { runs: 48, answers: 1, tries: 1 }).await;
    assert!(ledger.runs.iter().all(|run| run.crashes == 0));
    report("Redis killed, 8 runs held and 32 queued", first_after(killed, &seen), last_of(killed, &seen));
    println!("         | all 44 runs were started without Redis after {:.3} s", without.as_secs_f64());
}

/// A tool call and two answers, slow enough to be met anywhere.
fn busy(call: &Call) -> runmill_testkit::model_server::Reply {
    match call.iteration {
        0 => runmill_testkit::model_server::Reply::tool_calls([("calculator", json!({"expression": "6 * 7"}))]),
        _ => words(150).delay_per_token(Duration::from_millis(8)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_restarted_and_crashes() {
    const RUNS: usize = 24;
    let setup = Setup { workers: 2, own_postgres: true, ..Setup::default() };
    let mut world = World::start(setup, busy).await;
    let mut readers = Vec::new();
    for (round, how) in ["Postgres restarted (fast)", "Postgres crashed (kill -9)"].iter().enumerate() {
        let mut these = world.submit(&format!("postgres-{round}"), RUNS).await;
        for reader in &mut these {
            reader.until_event("text.delta", 1).await;
        }
        let client = world.client.clone();
        let more = (0..RUNS).map(|i| {
            let (client, name) = (client.clone(), format!("meanwhile-{round}-{i}"));
            async move {
                client.accept(&name, &name).await;
                client.read(&name)
            }
        });
        // Accepted in the middle of it, by asking until there is an answer.
        let (accepting, away) = (futures::future::join_all(more), Instant::now());
        let restart = async {
            let server = world.postgres();
            if round == 0 {
                server.stop().await.unwrap();
            } else {
                server.kill9().unwrap();
            }
            server.launch().await.unwrap();
            away.elapsed()
        };
        let (more, down) = tokio::join!(accepting, restart);
        let mut seen = Vec::new();
        for reader in &mut these {
            seen.push(reader.ended().await);
        }
        report(how, first_after(away + down, &seen), last_of(away + down, &seen));
        println!("         | it was down for {:.3} s", down.as_secs_f64());
        readers.extend(these);
        readers.extend(more);
    }
    check(&world, &mut readers, Expect { runs: 4 * RUNS, answers: 2, tries: 3 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_while_postgres_is_away_waits_for_it() {
    let mut world = World::start(Setup { workers: 0, own_postgres: true, ..Setup::default() }, busy).await;
    world.postgres().stop().await.unwrap();
    let late = world.add_worker();
    eventually("the worker waits", async || late.log_tail().contains("waits for the database").then_some(())).await;
    world.postgres().launch().await.unwrap();
    let mut readers = world.submit("late", 2).await;
    for reader in &mut readers {
        reader.ended().await;
    }
    check(&world, &mut readers, Expect { runs: 2, answers: 2, tries: 1 }).await;
}
