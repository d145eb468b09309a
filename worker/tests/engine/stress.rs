//! Many runs, several workers, and workers that die at any moment: every run ends exactly once, and no finished step is done twice.
use std::{collections::HashMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use runmill_shared::{
    config::Config,
    domain::{run::RunState, run_input::RunOptions},
};
use runmill_testkit::{
    app::{TestApp, TestWorker, quick_recovery},
    counting_server::CountingServer,
    database::TestDatabase,
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::json;

use super::told::check;

const RUNS: usize = 300;
const THREADS: usize = 40;
const KILLS: usize = 6;

fn quick(config: &mut Config) {
    quick_recovery(config);
    config.runs.max_crashes = 100;
}

/// Each run posts once, and then answers.
fn answer(request: &Request, url: &str) -> Reply {
    let user = request.user();
    match request.tool_results().first() {
        None => {
            let arguments = json!({ "method": "POST", "url": format!("{url}/{user}") });
            Reply::tool_calls([("http_request", arguments), ("calculator", json!({ "expression": "6*7" }))])
        }
        Some(_) => Reply::text(&format!("this is what came of {user}")).delay_per_token(Duration::from_millis(3)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_hundred_runs_survive_workers_that_die() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let gate = Gate::new();
    let web = CountingServer::start(&gate).await.unwrap();
    let url = web.url("");
    let model = ModelServer::with(move |request| answer(request, &url)).await.unwrap();
    let host = web.host();
    let with = |config: &mut Config| {
        quick(config);
        config.security.allow_private_hosts = vec![host];
    };
    let mut app = TestApp::with_model(database, &model, with).await.unwrap();
    app.stop_worker().await.unwrap();
    let others = [app.another().await.unwrap(), app.another().await.unwrap()];
    let mut workers = others.each_ref().map(TestWorker::start);
    let mut runs = HashMap::new();
    for n in 0..RUNS {
        let accepted = app.say(&format!("t{}", n % THREADS), &format!("run-{n}"), RunOptions::default()).await.unwrap();
        runs.insert(accepted.id, n);
    }
    let mut chance = StdRng::seed_from_u64(7);
    for kill in 1..=KILLS {
        // After a part of the work, wherever the worker then is.
        let reached = RUNS * 2 * kill / (KILLS + 2);
        model.until(|c| c.received >= reached).await.unwrap();
        let which = chance.random_range(0..2);
        let fresh = TestWorker::start(&others[which]);
        std::mem::replace(&mut workers[which], fresh).kill().await;
    }
    for thread in 0..THREADS {
        check(&app.events(&format!("t{thread}")).await.unwrap());
    }
    let mut crashes = 0;
    for id in runs.keys() {
        let run = app.run(*id).await.unwrap();
        assert_eq!((run.state, run.attempt), (RunState::Succeeded, 0), "{:?}", run.error);
        crashes += run.crashes;
    }
    let seen = web.seen();
    let mut times = HashMap::new();
    seen.iter().for_each(|s| *times.entry(s.path.clone()).or_insert(0) += 1);
    assert!(times.values().all(|n| *n == 1), "a call was made twice: {times:?}");
    let asked = model.counts().received;
    let most = RUNS * 2 + usize::try_from(crashes).unwrap();
    eprintln!("{crashes} takeovers, {asked} model calls for {} steps, {} posts", RUNS * 2, seen.len());
    assert!((RUNS * 2..=most).contains(&asked), "{asked} model calls; at most one more for each of {crashes} takeovers");
    for worker in workers {
        worker.drain().await.unwrap();
    }
}
