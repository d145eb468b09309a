//! The API is killed while it accepts, and asked to stop while it streams.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use runmill_testkit::model_server::Gate;
use tokio::{sync::Barrier, time::Instant};

use crate::{
    check::{Expect, check},
    client::task_id,
    eventually,
    model::{Call, words},
    world::{Setup, World, first_after, last_of, report},
};

/// What was answered is there once; what was not may be there or not, and asking again settles it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_during_two_hundred_accepts() {
    const CLIENTS: usize = 200;
    let mut world = World::start(Setup::default(), |_: &Call| words(3)).await;
    let (start, answered) = (Arc::new(Barrier::new(CLIENTS + 1)), Arc::new(AtomicUsize::new(0)));
    let ask = |i: usize| {
        let (client, start, answered) = (world.client.clone(), start.clone(), answered.clone());
        async move {
            let name = format!("accept-{i}");
            start.wait().await;
            let first = client.post(0, &name, &name).await;
            answered.fetch_add(1, Ordering::SeqCst);
            first.map(|(status, body)| (status == 200).then(|| task_id(&body)))
        }
    };
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..CLIENTS {
        let ask = ask(i);
        clients.spawn(async move { (i, ask.await) });
    }
    start.wait().await;
    eventually("a quarter is answered", || async { (answered.load(Ordering::SeqCst) >= CLIENTS / 4).then_some(()) }).await;
    world.apis[0].kill9().unwrap();
    let killed = Instant::now();
    let first = clients.join_all().await;
    world.apis[0].start().unwrap();
    let cut = first.iter().filter(|(_, answer)| answer.is_err()).count();
    assert!(cut > 0 && cut < CLIENTS, "{cut} of {CLIENTS} were cut off: the kill came too early or too late");

    let again = first.into_iter().map(|(i, before)| {
        let client = &world.client;
        async move {
            let name = format!("accept-{i}");
            let id = client.accept(&name, &name).await;
            let before = before.ok().flatten();
            assert!(before.is_none_or(|before| before == id), "{name} was answered as {before:?}, and is {id} now");
            client.read(&name)
        }
    });
    let mut readers = futures::future::join_all(again).await;
    let settled = killed.elapsed();
    let (_, seen) = check(&world, &mut readers, Expect { runs: CLIENTS, answers: 1, tries: 1 }).await;
    report(&format!("API killed during 200 accepts, {cut} cut off"), settled, last_of(killed, &seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_its_readers_go_on_elsewhere() {
    const RUNS: usize = 10;
    let gate = Gate::new();
    let held = gate.clone();
    let mut world = World::start(Setup { apis: 2, ..Setup::default() }, move |_: &Call| words(30).hold_after(8, &held)).await;
    let mut readers = world.submit("stream", RUNS).await;
    for reader in &mut readers {
        reader.until_event("text.delta", 1).await;
    }
    let asked = Instant::now();
    world.apis[0].term().unwrap();
    for reader in &mut readers {
        reader.until("another connection", |seen| seen.connections >= 2).await;
    }
    let status = world.apis[0].exited().await.unwrap();
    assert!(status.success(), "{status}\n{}", world.apis[0].log_tail());
    gate.open();
    let (_, seen) = check(&world, &mut readers, Expect { runs: RUNS, answers: 1, tries: 1 }).await;
    assert!(seen.iter().all(|seen| seen.retry_hints >= 1), "streams were closed without a retry hint");
    report("API asked to stop, readers on the other", first_after(asked, &seen), last_of(asked, &seen));
}

/// Readers whose API is killed have lost nothing but their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_streams() {
    const RUNS: usize = 10;
    let script = |_: &Call| words(150).delay_per_token(std::time::Duration::from_millis(5));
    let mut world = World::start(Setup { apis: 2, ..Setup::default() }, script).await;
    let mut readers = world.submit("cut", RUNS).await;
    for reader in &mut readers {
        reader.until_event("text.delta", 2).await;
    }
    let killed = Instant::now();
    world.apis[0].kill9().unwrap();
    let (_, seen) = check(&world, &mut readers, Expect { runs: RUNS, answers: 1, tries: 1 }).await;
    assert!(seen.iter().all(|seen| seen.connections >= 2), "a reader was not cut off");
    report("API killed while it streams, readers on the other", first_after(killed, &seen), last_of(killed, &seen));
}
