//! A worker is frozen past its lease and goes on later, believing that it still has its runs.
use std::time::Duration;

use runmill_testkit::{
    ledger::{Ledger, StepRow},
    model_server::Gate,
};
use tokio::time::Instant;

use crate::{
    check::{Expect, check},
    eventually,
    model::{Call, words},
    world::{LEASE, Setup, World, first_after, last_of, report, restarted_after},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_past_its_lease_it_writes_nothing() {
    const RUNS: usize = 4;
    let gate = Gate::new();
    let first = gate.clone();
    let script = move |call: &Call| if call.again == 0 { words(40).hold_after(8, &first) } else { words(20) };
    let mut world = World::start(Setup::default(), script).await;
    let mut readers = world.submit("frozen", RUNS).await;
    for reader in &mut readers {
        reader.until_event("text.delta", 1).await;
    }
    world.held(RUNS).await;
    world.add_worker().ready().await.unwrap();
    let frozen = Instant::now();
    world.workers[0].stop().unwrap();
    let expect = Expect { runs: RUNS, answers: 1, tries: 2 };
    let (before, seen) = check(&world, &mut readers, expect).await;
    report("worker frozen past its lease", first_after(frozen, &seen), last_of(frozen, &seen));

    // The rest of the old answers waits in the frozen worker's sockets when it goes on.
    gate.open();
    world.model.server.until(|counts| counts.open == 0).await.unwrap();
    world.workers[0].cont().unwrap();
    eventually("the worker notices that its lease is lost", || async {
        world.workers[0].log_tail().contains("lease is lost").then_some(())
    })
    .await;
    // It works again, under another session: it is the only one left.
    world.workers[1].term().unwrap();
    assert!(world.workers[1].exited().await.unwrap().success());
    readers.extend(world.submit("later", 1).await);
    let (after, _) = check(&world, &mut readers, Expect { runs: RUNS + 1, ..expect }).await;
    let of_frozen = |ledger: &Ledger| -> Vec<StepRow> {
        let runs: Vec<_> = before.runs.iter().map(|run| run.id).collect();
        ledger.steps.iter().filter(|step| runs.contains(&step.run_id)).cloned().collect()
    };
    assert_eq!(of_frozen(&after), of_frozen(&before));
    for run in &before.runs {
        assert_eq!(after.events_of(run.id).count(), before.events_of(run.id).count(), "{} was written to", run.external_id);
    }
}

/// Frozen wherever it happens to be: between two words, or in the middle of a transaction, whose locks must not outlive the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_while_it_writes() {
    const ROUNDS: usize = 3;
    const RUNS: usize = 8;
    let script = |_: &Call| words(150).delay_per_token(Duration::from_millis(5));
    let mut world = World::start(Setup { workers: 2, ..Setup::default() }, script).await;
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let mut readers = world.submit(&format!("writing-{round}"), RUNS).await;
        for reader in &mut readers {
            reader.until_event("text.delta", 1).await;
        }
        let holder = world.holder(&format!("writing-{round}-0")).await;
        let frozen = Instant::now();
        world.workers[holder].stop().unwrap();
        let mut seen = Vec::new();
        for reader in &mut readers {
            seen.push(reader.ended().await);
        }
        let took = last_of(frozen, &seen);
        report("worker frozen while it writes", restarted_after(frozen, &seen), took);
        assert!(took < LEASE * 4, "the frozen worker stood in the way for {took:?}");
        world.workers[holder].cont().unwrap();
        world.workers[holder].ready().await.unwrap();
        all.extend(readers);
    }
    check(&world, &mut all, Expect { runs: ROUNDS * RUNS, answers: 1, tries: 2 }).await;
}
