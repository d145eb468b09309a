//! The cap on parallel calls, over all workers.
use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use runmill_shared::{
    App,
    domain::model::{Provider, Target},
};
use runmill_testkit::{
    database::TestDatabase,
    model_server::{Gate, ModelServer, Reply},
};
use runmill_worker::models::{self, ChatModel};

use crate::{DEADLINE, ask, run, target};

/// As another process on the same Redis, or by itself when there is none.
async fn worker(database: &TestDatabase, server: &ModelServer, most: u32) -> (App, Arc<dyn ChatModel>) {
    let mut config = database.config();
    config.models.openai_base_url = server.base_url();
    config.models.parallel.insert("openai".into(), most);
    config.models.parallel_lease = Duration::from_millis(600);
    let app = App::open(config).await.unwrap();
    let own = Target { base_url: None, ..target(Provider::Openai, "") };
    let model = models::connect(&app, &[own]).unwrap();
    (app, model)
}

#[tokio::test]
async fn a_process_asks_so_many_at_once_and_no_more() {
    let database = TestDatabase::sqlite().await;
    let server = ModelServer::with(|_| Reply::text("a b c").delay_per_token(Duration::from_millis(2))).await.unwrap();
    let (_app, model) = worker(&database, &server, 3).await;
    join_all((0..20).map(|_| async { run(&*model, &ask("hi")).await.1.unwrap() })).await;
    assert_eq!((server.counts().finished, server.counts().most_open), (20, 3));
}

#[tokio::test]
async fn two_workers_on_one_redis_ask_so_many_together() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let server = ModelServer::with(|_| Reply::text("a b c d").delay_per_token(Duration::from_millis(5))).await.unwrap();
    let (_one, first) = worker(&database, &server, 3).await;
    let (_two, second) = worker(&database, &server, 3).await;
    let all = (0..40).map(|i| if i % 2 == 0 { first.clone() } else { second.clone() });
    join_all(all.map(|model| async move { run(&*model, &ask("hi")).await.1.unwrap() })).await;
    let counts = server.counts();
    assert_eq!(counts.finished, 40);
    assert!((2..=3).contains(&counts.most_open), "{counts:?}");
}

#[tokio::test]
async fn a_long_answer_keeps_its_place_and_a_waiter_that_left_keeps_none() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (server, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let (_one, first) = worker(&database, &server, 1).await;
    let (_two, second) = worker(&database, &server, 1).await;
    server.script(Reply::text("a b").hold_after(1, &gate));
    let request = ask("hi");
    let mut long = first.stream(&request).await.unwrap();
    long.next().await.unwrap().unwrap();
    // For longer than the lease lasts without renewal.
    let early = tokio::time::timeout(Duration::from_millis(1500), second.stream(&request)).await;
    assert!(early.is_err() && server.counts().received == 1, "the place was given away under a call that goes on");
    gate.open();
    assert!(long.next().await.is_some());
    drop(long);
    // The one that left its waiting stands in nobody's way.
    let answer = tokio::time::timeout(DEADLINE, run(&*second, &request)).await.unwrap();
    assert_eq!(answer.1.unwrap().message_text, "ok");
}

#[tokio::test]
async fn the_place_of_a_process_that_died_comes_back() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (server, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let (_app, model) = worker(&database, &server, 1).await;
    // A runtime of its own, which ends in the middle of its call: nothing is given back and nothing renewed.
    let (doomed, url) = (database.config(), server.base_url());
    server.script(Reply::text("a b").hold_after(1, &gate));
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let permit = runtime.block_on(async {
            let mut config = doomed;
            config.models.parallel_lease = Duration::from_millis(600);
            config.models.openai_base_url = url;
            let app = App::open(config).await.unwrap();
            app.parallel.acquire("openai", 1).await
        });
        runtime.shutdown_background();
        std::mem::forget(permit);
    });
    died.join().unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), model.stream(&ask("hi"))).await;
    assert!(early.is_err(), "its place is still held");
    server.script(Reply::text("mine"));
    gate.open();
    assert!(tokio::time::timeout(DEADLINE, run(&*model, &ask("hi"))).await.unwrap().1.is_ok());
}
