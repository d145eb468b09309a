//! Runs that their owner holds: between two steps, without a worker, until they are let go on.
use std::time::{Duration, Instant};

use runmill_shared::{
    config::Config,
    domain::{
        event::kind,
        run::{RunState, Waiting},
        run_input::RunOptions,
    },
    services::executions,
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::json;

use super::told::{check, has_text, of_kind, until, until_state};

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        config.worker.reconcile = Duration::from_millis(20);
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_held_after_the_step_it_is_at_and_goes_on_with_the_next_whatever_dies_in_between() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let mut app = start(database, &model, |_| {}).await;
        model
            .script(Reply::tool_calls([("calculator", json!({ "expression": "6*7" }))]).hold_after(1, &gate))
            .script(Reply::text("forty-two"));
        let run = app.say("t", "hello", RunOptions::default()).await.unwrap().id;
        model.until(|c| c.received == 1).await.unwrap();
        let held = executions::pause(&app.app, &app.caller, run).await.unwrap().run;
        assert_eq!((held.state, held.paused), (RunState::Running, true), "{}: a step is not broken off", app.name());
        gate.open();
        let held = until(&app, run, |r| r.state == RunState::Waiting).await;
        assert_eq!(held.waiting, Some(Waiting::Paused { until: None }));
        let steps = executions::get(&app.app, &app.caller, run).await.unwrap().details.unwrap().steps;
        assert!(steps.iter().all(|s| s.finished_at.is_some() && !s.key.starts_with("tool:")), "the tool was not called");
        app.kill_worker().await;
        app.start_worker();
        executions::resume(&app.app, &app.caller, run).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let row = app.run(run).await.unwrap();
        // A claim that the first worker had sent when it died may have taken it with it.
        assert!(row.crashes <= 1, "{}: {row:?}", app.name());
        assert_eq!((row.state, row.attempt), (RunState::Succeeded, 0), "{}: {:?}", app.name(), row.error);
        assert_eq!(model.counts().received, 2, "the answer it was held after is not asked for again");
        assert_eq!(of_kind(&events, kind::RUN_WAITING)[0].data["reason"], "paused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_child_asks_nobody_when_it_has_ended_while_it_is_held() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |_| {}).await;
        // Delegation: the parent waits for its child; held meanwhile, it asks its model nothing when the child has ended.
        model
            .script(Reply::tool_calls([("delegate_to_agent", json!({ "task": "dig" }))]))
            .script(Reply::text("a hole").hold_after(1, &gate))
            .script(Reply::text("it is dug"));
        let run = app.say("t", "hello", RunOptions::default()).await.unwrap().id;
        model.until(|c| c.received == 2).await.unwrap();
        until_state(&app, run, RunState::Waiting).await;
        let marked = executions::pause(&app.app, &app.caller, run).await.unwrap().run;
        assert!(matches!(marked.waiting, Some(Waiting::Children { .. })), "{}: {:?}", app.name(), marked.waiting);
        gate.open();
        until(&app, run, |r| r.waiting == Some(Waiting::Paused { until: None })).await;
        assert_eq!(model.counts().received, 2, "{}", app.name());
        executions::resume(&app.app, &app.caller, run).await.unwrap();
        check(&app.events("t").await.unwrap());
        assert_eq!((app.run(run).await.unwrap().state, model.counts().received), (RunState::Succeeded, 3));
    }
}

/// One slot, and many that wait: the slot is free, and what is active ends while they wait.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_wait_leave_the_only_slot_to_those_that_work() {
    for database in databases().await {
        let model = ModelServer::with(|request| {
            if request.user().contains("wait") {
                Reply::tool_calls([("wait", json!({ "seconds": 3600 }))])
            } else {
                Reply::text("done")
            }
        })
        .await
        .unwrap();
        let app = start(database, &model, |c| _ = c.lanes.insert("runs".into(), 1)).await;
        let mut waiting = Vec::new();
        for n in 0..100 {
            waiting.push(app.say(&format!("w{n}"), "wait", RunOptions::default()).await.unwrap().id);
        }
        for id in &waiting {
            until_state(&app, *id, RunState::Waiting).await;
        }
        let begun = Instant::now();
        let active = app.say("active", "work", RunOptions::default()).await.unwrap().id;
        check(&app.events("active").await.unwrap());
        assert_eq!(app.run(active).await.unwrap().state, RunState::Succeeded, "{}", app.name());
        assert!(begun.elapsed() < Duration::from_secs(10), "{}: {:?}", app.name(), begun.elapsed());
        assert_eq!(app.run(waiting[99]).await.unwrap().state, RunState::Waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_run_streams_to_the_end_of_its_answer() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = start(database, &model, |_| {}).await;
        model.script(Reply::text("one two three").hold_after(2, &gate));
        let run = app.say("t", "hello", RunOptions::default()).await.unwrap().id;
        app.events_until("t", |e| has_text(e, "two")).await.unwrap();
        executions::pause(&app.app, &app.caller, run).await.unwrap();
        gate.open();
        // Its last step was its last: there is nothing left to be held before.
        check(&app.events("t").await.unwrap());
        assert_eq!(app.run(run).await.unwrap().state, RunState::Succeeded, "{}", app.name());
    }
}
