//! `runmill dev` is killed in the middle of a stream and started again on the same data directory.
use runmill_testkit::{ledger::Ledger, model_server::Gate, process::Runmill};
use tokio::time::Instant;

use crate::{
    TURN,
    check::{Expect, check_database},
    client::Client,
    model::{Call, Model, words},
    world::{first_after, last_of, model_settings, report},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_streams() {
    const RUNS: usize = 10;
    let _turn = TURN.lock().await;
    let stuck = |call: &Call| if call.again == 0 { words(30).hold_after(8, &Gate::new()) } else { words(30) };
    let (model, dir) = (Model::start(stuck).await, tempfile::tempdir().unwrap());
    let data = dir.path().join("data");
    let settings = model_settings(&model).into_iter().chain([("RUNMILL_DATA_DIR", data.display().to_string())]);
    let mut dev = Runmill::spawn(env!("CARGO_BIN_EXE_runmill"), "dev", "dev", dir.path(), settings).unwrap();
    dev.ready().await.unwrap();
    let client = Client::new(vec![dev.platform]);
    let mut readers = Vec::new();
    for i in 0..RUNS {
        let name = format!("dev-{i}");
        client.accept(&name, &name).await;
        readers.push(client.read(&name));
    }
    for reader in &mut readers {
        reader.until_event("text.delta", 1).await;
    }
    let killed = Instant::now();
    dev.kill9().unwrap();
    dev.start().unwrap();
    for reader in &mut readers {
        reader.ended().await;
    }
    let db = Ledger::open(None, &data).await.unwrap();
    let (ledger, seen) = check_database(&db, &model, &mut readers, Expect { runs: RUNS, answers: 1, tries: 2 }).await;
    assert!(ledger.runs.iter().all(|run| run.crashes == 1));
    assert!(seen.iter().all(|seen| seen.connections >= 2), "a reader was not cut off");
    report("dev killed in the middle of 10 streams", first_after(killed, &seen), last_of(killed, &seen));
    dev.term().unwrap();
    assert!(dev.exited().await.unwrap().success(), "{}", dev.log_tail());
}
