//! A run with three model calls and four tool calls, two at a time; its worker dies after each of these steps, and before the first.
//! Nothing is paid twice and nothing runs twice.
use std::collections::BTreeMap;

use runmill_shared::{
    config::Config,
    domain::{
        event::{Event, kind},
        run::{RunState, RunUsage},
        run_input::RunOptions,
    },
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    counting_server::CountingServer,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
    turnstile::Turnstile,
};
use serde_json::json;

use super::told::{check, count, until};

/// How many effects are begun at once after so many steps: an answer, or the calls of one that are still to be made.
const BEGUN: [usize; 7] = [1, 2, 1, 1, 2, 1, 1];

fn is_step_end(event: &Event) -> bool {
    [kind::MESSAGE_FINISHED, kind::TOOL_FINISHED].contains(&event.kind.as_str())
}

/// The worker dies when `done` steps are journaled and it stands before the effect of the next.
async fn dies_after(database: TestDatabase, done: usize) {
    let turnstile = Turnstile::new();
    let (model, web) = (ModelServer::start().await.unwrap(), CountingServer::start(&Gate::new()).await.unwrap());
    model.behind(&turnstile);
    web.behind(&turnstile);
    let get = |path: &str| ("http_request", json!({ "method": "GET", "url": web.url(path) }));
    model
        .script(Reply::tool_calls([get("/a"), get("/b")]).usage(10, 1))
        .script(Reply::tool_calls([get("/c"), get("/d")]).usage(20, 2))
        .script(Reply::text("done").usage(30, 3));
    let quick = |config: &mut Config| {
        quick_recovery(config);
        config.security.allow_private_hosts = vec![web.host()];
    };
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    let name = format!("{} after {done}", app.name());
    let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
    for step in 1..=done {
        turnstile.admit(1);
        let ended = std::cell::Cell::new(0);
        let enough = |e: &Event| {
            ended.set(ended.get() + usize::from(is_step_end(e)));
            ended.get() == step
        };
        app.events_until("t", enough).await.unwrap();
    }
    // All of them: one that is still on its way would be taken for the next worker's.
    turnstile.until_standing(|n| n == BEGUN[done]).await.unwrap();
    app.kill_worker().await;
    turnstile.turn_away();
    turnstile.until_standing(|n| n == 0).await.unwrap();
    turnstile.open();
    app.start_worker();
    let events = app.events("t").await.unwrap();
    check(&events);
    let run = until(&app, accepted.id, |run| run.state.is_ended()).await;
    assert_eq!((run.state, run.crashes), (RunState::Succeeded, 1), "{name}: {:?}", run.error);
    assert_eq!(model.counts().received, 3, "{name}: one request for each answer");
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    web.seen().into_iter().for_each(|seen| *calls.entry(seen.path).or_default() += 1);
    assert_eq!(calls, ["/a", "/b", "/c", "/d"].map(|path| (path.to_owned(), 1)).into(), "{name}");
    assert_eq!(count(&events, kind::TOOL_FINISHED), 4, "{name}");
    let told = model.requests()[2].tool_results();
    assert!(told.len() == 4 && told.iter().all(|t| t.contains("answer to")), "{name}: {told:?}");
    let usage = RunUsage { input_tokens: 60, output_tokens: 6, ..RunUsage::default() };
    assert_eq!(run.usage, Some(usage), "{name}: each answer is counted once");
    assert_eq!(events.last().unwrap().data["usage"], json!(usage), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_any_step_costs_nothing_twice() {
    for done in 0..BEGUN.len() {
        for database in databases().await {
            dies_after(database, done).await;
        }
    }
}
