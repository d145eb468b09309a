//! Cancelling, limits, retries, children, and what tools may do.
use std::time::{Duration, Instant};

use runmill_shared::{
    config::Config,
    domain::{
        event::{Event, kind},
        run::RunState,
        run_input::RunOptions,
    },
    services::runs::control,
};
use runmill_testkit::{
    app::{TestApp, TestWorker},
    database::{TestDatabase, databases},
    http_server::HttpServer,
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::json;

use super::told::{check, count, has_text, is_discarded, of_kind, until, until_state};

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        config.worker.reconcile = Duration::from_millis(20);
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

fn child_of(events: &[Event]) -> (uuid::Uuid, String) {
    let data = &of_kind(events, kind::PROGRESS)[0].data;
    (data["childTaskId"].as_str().unwrap().parse().unwrap(), data["childThreadId"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_while_it_streams() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |_| {}).await;
        model.script(Reply::text("one two three").hold_after(2, &gate));
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        app.events_until("t", |e| has_text(e, "two")).await.unwrap();
        let begun = Instant::now();
        let run = control::cancel(&app.app, &app.caller, accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Cancelled);
        let events = app.events("t").await.unwrap();
        // The request to the provider is given up, not only its answer ignored.
        gate.open();
        model.until(|c| c.open == 0).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{}: {:?}", app.name(), begun.elapsed());
        check(&events);
        assert_eq!(events.last().unwrap().kind, kind::RUN_CANCELLED);
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
        // The next run of the thread goes on at once, and nothing of the old one comes after its end.
        app.say("t", "again", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(model.requests()[1].last("assistant"), "", "what was discarded is not part of the conversation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_parent_reaches_its_child() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |_| {}).await;
        model
            .script(Reply::tool_calls([("delegate_to_agent", json!({ "task": "dig" }))]))
            .script(Reply::text("a hole").hold_after(1, &gate));
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        model.until(|c| c.received == 2).await.unwrap();
        until_state(&app, accepted.id, RunState::Waiting).await;
        let begun = Instant::now();
        control::cancel(&app.app, &app.caller, accepted.id).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let (child, thread) = child_of(&events);
        let events = app.events(&thread).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{}: {:?}", app.name(), begun.elapsed());
        check(&events);
        assert_eq!(app.run(child).await.unwrap().state, RunState::Cancelled);
        gate.open();
        model.until(|c| c.open == 0).await.unwrap();
    }
}

/// The parent waits, and its child is executed by a worker of another process, which must be told.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reaches_a_child_on_another_worker() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let mut app = start(database, &model, |c| c.worker.drain = Duration::ZERO).await;
    model
        .script(Reply::tool_calls([("delegate_to_agent", json!({ "task": "dig" }))]).hold_after(1, &gate))
        .script(Reply::tool_calls([("delegate_to_agent", json!({ "task": "dig" }))]))
        .script(Reply::text("a deep hole").hold_after(1, &gate));
    let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
    model.until(|c| c.received == 1).await.unwrap();
    // From here on only the other process works.
    let other = app.another().await.unwrap();
    let worker = TestWorker::start(&other);
    app.stop_worker().await.unwrap();
    model.until(|c| c.received == 3).await.unwrap();
    until_state(&app, accepted.id, RunState::Waiting).await;
    let begun = Instant::now();
    control::cancel(&app.app, &app.caller, accepted.id).await.unwrap();
    let events = app.events("t").await.unwrap();
    check(&events);
    let (child, thread) = child_of(&events);
    check(&app.events(&thread).await.unwrap());
    assert_eq!(app.run(child).await.unwrap().state, RunState::Cancelled);
    gate.open();
    model.until(|c| c.open == 0).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    worker.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_fails_and_waiting_is_not_counted() {
    for database in databases().await {
        let (model, never) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |c| c.runs.run_timeout = Duration::from_millis(900)).await;
        model.script(Reply::tool_calls([("wait", json!({ "seconds": 2 }))])).script(Reply::text("in time"));
        let accepted = app.say("waits", "hello", RunOptions::default()).await.unwrap();
        check(&app.events("waits").await.unwrap());
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        model.script(Reply::text("one two three").hold_after(2, &never));
        let accepted = app.say("works", "hello", RunOptions::default()).await.unwrap();
        let events = app.events("works").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.error.unwrap().code, "RUN_TIMEOUT");
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_after_the_last_finished_step() {
    for database in databases().await {
        let gate = Gate::new();
        let (model, web) = (ModelServer::start().await.unwrap(), HttpServer::start(&gate).await.unwrap());
        let app = start(database, &model, |c| c.security.allow_private_hosts = vec![web.host()]).await;
        let post = |path: &str| ("http_request", json!({ "method": "POST", "url": web.url(path) }));
        model.script(Reply::tool_calls([post("/done"), post("/held/open")])).script(Reply::text("told"));
        let first = app.say("t", "hello", RunOptions::default()).await.unwrap();
        app.events_until("t", |e| e.kind == kind::TOOL_FINISHED).await.unwrap();
        web.until(2).await.unwrap();
        control::cancel(&app.app, &app.caller, first.id).await.unwrap();
        let again = control::retry(&app.app, &app.caller, first.id, None).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(again.id).await.unwrap();
        assert_eq!((run.state, run.retry_of), (RunState::Succeeded, Some(first.id)), "{}: {:?}", app.name(), run.error);
        assert_eq!(model.counts().received, 2, "the first answer is inherited");
        assert_eq!(web.seen().len(), 2, "what was started may have taken effect");
        let told = model.requests()[1].tool_results();
        assert!(told[0].contains("answer to /done") && told[1].contains("OUTCOME_UNKNOWN"), "{told:?}");
        let error = control::retry(&app.app, &app.caller, again.id, None).await.map(|_| ());
        assert!(error.is_ok(), "{error:?}");
        app.events("t").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_urgent_goes_first() {
    use runmill_shared::domain::run::Priority;
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let mut app = start(database, &model, |c| _ = c.lanes.insert("runs".into(), 1)).await;
        app.stop_worker().await.unwrap();
        for (name, priority) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)] {
            app.say(name, name, RunOptions { priority, ..RunOptions::default() }).await.unwrap();
        }
        app.start_worker();
        for thread in ["low", "normal", "high"] {
            check(&app.events(thread).await.unwrap());
        }
        let order: Vec<_> = model.requests().iter().map(|r| r.user()).collect();
        assert_eq!(order, ["high", "normal", "low"], "{}", app.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_offered_is_not_executed() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let only = |c: &mut Config| c.agents.values_mut().for_each(|a| a.tools = vec!["now".into()]);
        let app = start(database, &model, only).await;
        let calls = [
            ("launch", json!({})),
            ("calculator", json!({ "expression": "1+1" })),
            ("wait", json!({ "seconds": 60 })),
            ("delegate_to_agent", json!({ "task": "x" })),
        ];
        model.script(Reply::tool_calls(calls)).script(Reply::text("fine"));
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
        assert_eq!(app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", app.name());
        let told = model.requests()[1].tool_results();
        assert!(told.len() == 4 && told.iter().all(|t| t.contains("UNKNOWN_TOOL") && t.contains("now")), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_answer_run_at_the_same_time() {
    for database in databases().await {
        let gate = Gate::new();
        let (model, web) = (ModelServer::start().await.unwrap(), HttpServer::start(&gate).await.unwrap());
        let app = start(database, &model, |c| c.security.allow_private_hosts = vec![web.host()]).await;
        let get = |n: u32| ("http_request", json!({ "method": "GET", "url": web.url(&format!("/held/{n}")) }));
        model.script(Reply::tool_calls((0..5).map(get))).script(Reply::text("all"));
        app.say("t", "hello", RunOptions::default()).await.unwrap();
        // None has answered, and all have been asked.
        web.until(5).await.unwrap();
        gate.open();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(count(&events, kind::TOOL_FINISHED), 5, "{}", app.name());
        let told = model.requests()[1].tool_results();
        let in_order = told.iter().enumerate().all(|(n, t)| t.contains(&format!("answer to /held/{n}")));
        assert!(told.len() == 5 && in_order, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_answers_ends_at_its_limit() {
    for database in databases().await {
        let model = ModelServer::with(|_| Reply::tool_calls([("now", json!({}))])).await.unwrap();
        let limit = |c: &mut Config| c.agents.values_mut().for_each(|a| a.max_iterations = 4);
        let app = start(database, &model, limit).await;
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
        let run = until(&app, accepted.id, |r| r.state.is_ended()).await;
        assert_eq!(run.error.unwrap().code, "MAX_ITERATIONS", "{}", app.name());
        assert_eq!(model.counts().received, 4);
    }
}
