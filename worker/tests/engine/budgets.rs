//! What runs may use: they stop where it ends, nothing is begun beyond it, and what they used is known however they end.
use std::time::{Duration, Instant};

use runmill_shared::{
    config::Config,
    domain::{
        agent::{Budget, Definition},
        event::kind,
        run::RunState,
    },
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::told::{agent, check, count, is_discarded, of_kind};

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        config.worker.reconcile = Duration::from_millis(20);
        config.runs.backoff = Duration::from_millis(10);
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

fn within(budget: Budget) -> Definition {
    Definition { include_tools: vec!["calculator".into(), "http_request".into()], budget, ..Definition::default() }
}

fn sum(a: u32) -> (&'static str, serde_json::Value) {
    ("calculator", json!({ "expression": format!("{a}+1") }))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_cost_stop_a_run_before_anything_more_is_begun() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let price = |config: &mut Config| {
            let price = serde_json::from_value(json!({ "input": 10.0, "cached_input": 1.0, "output": 20.0 })).unwrap();
            config.models.prices.insert("openai:test".into(), price);
        };
        let app = start(database, &model, price).await;
        let tokens = Budget { max_tokens: Some(2000), ..Budget::default() };
        // 700 input tokens are 7000 millionths, 300 output tokens are 6000.
        let cost = Budget { max_cost_micros: Some(20_000), ..Budget::default() };
        for (thread, budget, what) in [("tokens", tokens, "tokens"), ("cost", cost, "cost")] {
            let before = model.counts().received;
            let options = agent(&app, within(budget)).await;
            for n in 1..=2 {
                model.script(Reply::tool_calls([sum(n)]).usage(700, 300));
            }
            let accepted = app.say(thread, "hello", options).await.unwrap();
            let events = app.events(thread).await.unwrap();
            check(&events);
            let run = app.run(accepted.id).await.unwrap();
            let error = run.error.unwrap();
            assert_eq!((error.code.as_str(), error.retryable), ("BUDGET_EXHAUSTED", false), "{} {thread}", app.name());
            assert!(error.message.ends_with(what), "{error:?}");
            assert_eq!(model.counts().received - before, 2, "{thread}");
            assert_eq!(count(&events, kind::TOOL_FINISHED), 1, "{thread}: the second call's result could not be told any more");
            let usage = run.usage.unwrap();
            assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost_micros), (1400, 600, 26_000), "{thread}");
            assert_eq!(events.last().unwrap().data["usage"], json!(usage));
        }
        let asked: Vec<_> = model.requests().iter().map(|r| r.body["max_tokens"].as_u64().unwrap()).collect();
        assert_eq!(asked[..2], [2000, 1000], "no answer may be longer than what is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_for_want_of_tokens_is_no_answer_and_a_whole_one_is() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let options = agent(&app, within(Budget { max_tokens: Some(100), ..Budget::default() })).await;
        model.script(Reply::text("this is not all").finish("length").usage(60, 40));
        let accepted = app.say("cut", "hello", options.clone()).await.unwrap();
        check(&app.events("cut").await.unwrap());
        assert_eq!(app.run(accepted.id).await.unwrap().error.unwrap().code, "BUDGET_EXHAUSTED", "{}", app.name());
        model.script(Reply::text("all of it").usage(80, 60));
        let accepted = app.say("whole", "hello", options).await.unwrap();
        check(&app.events("whole").await.unwrap());
        assert_eq!(app.run(accepted.id).await.unwrap().state, RunState::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_time_stops_a_run_in_the_middle_of_an_answer_and_waiting_is_not_counted() {
    for database in databases().await {
        let (model, never) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |_| {}).await;
        let budget = Budget { max_seconds: Some(2), ..Budget::default() };
        let waits = Definition { include_tools: vec!["wait".into()], budget, ..Definition::default() };
        let options = agent(&app, waits).await;
        model
            .script(Reply::tool_calls([("wait", json!({ "seconds": 3 }))]))
            .script(Reply::text("one two three").hold_after(2, &never));
        let begun = Instant::now();
        let accepted = app.say("t", "hello", options).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.error.unwrap().code, "BUDGET_EXHAUSTED", "{}", app.name());
        assert_eq!(model.counts().received, 2, "it had time left after it had waited");
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
        assert_eq!(run.usage.unwrap().input_tokens, 7, "the answer that was whole");
        assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
        // The request to the provider is given up.
        never.open();
        model.until(|c| c.left == 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_try_was_answered_is_counted_once() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let options = agent(&app, within(Budget::default())).await;
        model
            .script(Reply::tool_calls([sum(1)]).usage(100, 10))
            .script(Reply::status(500))
            .script(Reply::mid_stream_error())
            .script(Reply::text("at last").usage(200, 20));
        let accepted = app.say("t", "hello", options.clone()).await.unwrap();
        check(&app.events("t").await.unwrap());
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!((run.state, run.attempt), (RunState::Succeeded, 2), "{}: {:?}", app.name(), run.error);
        let usage = run.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (300, 30));
        model.script(Reply::tool_calls([sum(1)]).usage(100, 10)).script(Reply::status(401));
        let accepted = app.say("fails", "hello", options).await.unwrap();
        let events = app.events("fails").await.unwrap();
        check(&events);
        assert_eq!(app.run(accepted.id).await.unwrap().usage.unwrap().output_tokens, 10);
        assert_eq!(events.last().unwrap().data["usage"]["outputTokens"], 10);
    }
}

/// A server that never answers, and knows when its client has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_the_middle_is_dropped_when_its_run_is_cancelled() {
    for database in databases().await {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |c| c.security.allow_private_hosts = vec![address.to_string()]).await;
        let options = agent(&app, within(Budget::default())).await;
        let call = ("http_request", json!({ "method": "POST", "url": format!("http://{address}/") }));
        model.script(Reply::tool_calls([call]).usage(5, 5));
        let accepted = app.say("t", "hello", options).await.unwrap();
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = [0; 16];
        client.read_exact(&mut head).await.unwrap();
        runmill_shared::services::runs::control::cancel(&app.app, &app.caller, accepted.id).await.unwrap();
        let gone = async {
            let mut rest = [0; 1024];
            while client.read(&mut rest).await.is_ok_and(|n| n > 0) {}
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the request is given up, not only its answer ignored");
        client.shutdown().await.ok();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(events.last().unwrap().kind, kind::RUN_CANCELLED, "{}", app.name());
        assert!(of_kind(&events, kind::TOOL_FINISHED).is_empty());
        assert_eq!(app.run(accepted.id).await.unwrap().usage.unwrap().input_tokens, 5);
    }
}
