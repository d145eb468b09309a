//! Every bad day of a model ends in the right events and state, and none hangs.
use std::time::Duration;

use runmill_shared::{
    config::Config,
    domain::{event::kind, run::RunState, run_input::RunOptions},
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::json;

use super::told::{check, count, is_discarded, of_kind, started, text, until};

fn quick(config: &mut Config) {
    config.runs.backoff = Duration::from_millis(10);
    config.runs.model_idle_timeout = Duration::from_millis(400);
    config.worker.reconcile = Duration::from_millis(20);
}

async fn start(database: TestDatabase, model: &ModelServer) -> TestApp {
    TestApp::with_model(database, model, quick).await.unwrap()
}

/// The day, the code that the failure is told with, and what was said before it.
fn days() -> Vec<(&'static str, Reply, &'static str, &'static str)> {
    let never = Gate::new();
    vec![
        ("too many requests", Reply::status(429), "MODEL_RATE_LIMITED", ""),
        ("a server error", Reply::status(500), "MODEL_OVERLOADED", ""),
        ("overloaded", Reply::status(503), "MODEL_OVERLOADED", ""),
        ("no end frame", Reply::no_done("not quite all"), "MODEL_TRUNCATED", "not quite all"),
        ("cut", Reply::truncated_after(2, "one two three"), "MODEL_TRUNCATED", "one two "),
        ("closed early", Reply::unfinished_after(2, "one two three"), "MODEL_TRUNCATED", "one two "),
        ("silence", Reply::silence(Duration::from_secs(600)), "MODEL_IDLE_TIMEOUT", ""),
        ("silence in the middle", Reply::text("one two three").hold_after(2, &never), "MODEL_IDLE_TIMEOUT", "one two "),
        ("an error in the stream", Reply::mid_stream_error(), "MODEL_OVERLOADED", "this will not"),
        ("reset", Reply::reset(), "", ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_is_tried_again_under_a_new_message() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model).await;
        for (day, reply, code, said) in days() {
            let before = model.counts().received;
            model.script(reply);
            let accepted = app.say(day, "hello", RunOptions::default()).await.unwrap();
            let events = app.events(day).await.unwrap();
            let run = app.run(accepted.id).await.unwrap();
            assert_eq!((run.state, run.attempt), (RunState::Succeeded, 1), "{} {day}: {:?}", app.name(), run.error);
            assert_eq!(model.counts().received - before, 2, "{day}");
            check(&events);
            let failed = of_kind(&events, kind::RUN_FAILED);
            assert_eq!(failed.len(), 1, "{day}");
            assert_eq!(failed[0].data["willRetry"], true);
            assert_eq!(failed[0].data["error"]["retryable"], true);
            let told = failed[0].data["error"]["code"].as_str().unwrap();
            assert!(code.is_empty() || told == code, "{day}: {told}");
            let ids = started(&events);
            assert!(ids.len() == 2 && ids[0] != ids[1], "{day}: {ids:?}");
            assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1, "{day}");
            assert_eq!((text(&events, &ids[0]).as_str(), text(&events, &ids[1]).as_str()), (said, "ok"), "{day}");
            let attempts: Vec<_> = of_kind(&events, kind::RUN_STARTED).iter().map(|e| e.data["attempt"].clone()).collect();
            assert_eq!(attempts, [1, 2], "{day}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_tried_as_often_as_its_policy_says_and_fails_once() {
    for database in databases().await {
        let model = ModelServer::with(|_| Reply::mid_stream_error()).await.unwrap();
        let app = start(database, &model).await;
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Failed, "{}", app.name());
        assert_eq!(run.error.unwrap().code, "MODEL_OVERLOADED");
        assert_eq!(model.counts().received, 3);
        check(&events);
        let retries: Vec<_> = of_kind(&events, kind::RUN_FAILED).iter().map(|e| e.data["willRetry"].clone()).collect();
        assert_eq!(retries, [json!(true), json!(true), json!(false)]);
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_get_better_is_not_tried_again() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model).await;
        for (reply, code) in [
            (Reply::context_overflow(), "MODEL_CONTEXT_OVERFLOW"),
            (Reply::status(401), "MODEL_AUTH"),
            (Reply::status(400), "MODEL_INVALID_REQUEST"),
        ] {
            let before = model.counts().received;
            model.script(reply);
            let accepted = app.say(code, "hello", RunOptions::default()).await.unwrap();
            let events = app.events(code).await.unwrap();
            let run = app.run(accepted.id).await.unwrap();
            assert_eq!(run.error.as_ref().map(|e| e.code.as_str()), Some(code), "{}", app.name());
            assert_eq!(model.counts().received - before, 1, "{code}");
            check(&events);
            let failed = of_kind(&events, kind::RUN_FAILED);
            assert!(failed.len() == 1 && failed[0].data["willRetry"] == false, "{failed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_retry_after_is_the_least_that_is_waited() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model).await;
        model.script(Reply::status(429).retry_after(3600));
        let asked = app.app.clock.now();
        let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
        let run = until(&app, accepted.id, |run| run.attempt == 1).await;
        assert_eq!(run.state, RunState::Queued);
        let waits = run.due_at.unwrap().since(asked);
        assert!((3600..3630).contains(&waits.as_secs()), "{}: due in {waits:?}", app.name());
        assert_eq!(run.error.unwrap().code, "MODEL_RATE_LIMITED");
        assert_eq!(model.counts().received, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_no_json_are_told_to_the_model_which_goes_on() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model).await;
        model.script(Reply::half_json_tool_arguments()).script(Reply::text("sorry"));
        let accepted = app.say("t", "what is 2+2", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        check(&events);
        let finished = of_kind(&events, kind::TOOL_FINISHED);
        assert_eq!(finished[0].data["error"]["code"], "INVALID_ARGUMENTS", "{finished:?}");
        let told = model.requests()[1].tool_results();
        assert!(told.len() == 1 && told[0].contains("INVALID_ARGUMENTS"), "{told:?}");
        assert_eq!(run.result.unwrap()["content"], "sorry");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_an_index_and_with_the_same_ids_again_are_told_apart() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model).await;
        let calls = |a: &str, b: &str| {
            Reply::missing_index([("calculator", json!({ "expression": a })), ("calculator", json!({ "expression": b }))])
        };
        model.script(calls("6*7", "40+1")).script(calls("3*3", "2*5")).script(Reply::text("done"));
        let accepted = app.say("t", "count", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        check(&events);
        assert_eq!(count(&events, kind::TOOL_FINISHED), 4);
        let results = model.requests()[2].tool_results();
        let has = |n: &str| results.iter().any(|r| r.contains(n));
        assert!(results.len() == 4 && ["42", "41", "9", "10"].into_iter().all(has), "{results:?}");
    }
}
