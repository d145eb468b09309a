//! Leases and drains, on Postgres: a worker that loses its session fences itself, and one that is asked to stop puts everything back.
use std::time::{Duration, Instant};

use runmill_shared::{
    config::Config,
    domain::{event::kind, run::RunState, run_input::RunOptions},
    store::db::{Class, Sql, query},
};
use runmill_testkit::{
    app::{TestApp, TestWorker, quick_recovery},
    database::TestDatabase,
    model_server::{Gate, ModelServer, Reply},
};

use super::told::{check, count, has_text, is_discarded, started, text, until};

fn quick(config: &mut Config) {
    quick_recovery(config);
    config.worker.drain = Duration::ZERO;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_its_session_stops_and_another_goes_on() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    model.script(Reply::text("one two three").hold_after(2, &gate)).script(Reply::text("whole")).script(Reply::text("next"));
    let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
    app.events_until("t", |e| has_text(e, "two")).await.unwrap();
    query(Sql::both("DELETE FROM worker_sessions")).write::<()>(&app.app.db, Class::Request).await.unwrap();
    let other = app.another().await.unwrap();
    let worker = TestWorker::start(&other);
    // The gate stays closed: the first worker can only let go of the run, and one of the two takes it over.
    let events = app.events("t").await.unwrap();
    check(&events);
    gate.open();
    model.until(|c| c.open == 0).await.unwrap();
    assert_eq!(model.counts().received, 2);
    let run = app.run(accepted.id).await.unwrap();
    assert_eq!((run.state, run.attempt, run.crashes), (RunState::Succeeded, 0, 1));
    assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
    let ids = started(&events);
    assert_eq!((text(&events, &ids[0]).trim(), text(&events, &ids[1]).as_str()), ("one two", "whole"));
    // The first has a new session, under which it works again.
    worker.drain().await.unwrap();
    app.say("u", "hello", RunOptions::default()).await.unwrap();
    check(&app.events("u").await.unwrap());
    app.stop_worker().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_runs_are_taken_over_when_its_lease_has_lapsed() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    model.script(Reply::text("one two three").hold_after(2, &gate)).script(Reply::text("whole"));
    let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
    app.events_until("t", |e| has_text(e, "two")).await.unwrap();
    let other = app.another().await.unwrap();
    let worker = TestWorker::start(&other);
    let begun = Instant::now();
    app.kill_worker().await;
    let events = app.events("t").await.unwrap();
    check(&events);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(app.run(accepted.id).await.unwrap().crashes, 1);
    assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
    worker.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_puts_a_long_stream_back_at_once() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    model.script(Reply::text("one two three").hold_after(2, &gate)).script(Reply::text("whole"));
    let accepted = app.say("t", "hello", RunOptions::default()).await.unwrap();
    app.events_until("t", |e| has_text(e, "two")).await.unwrap();
    let begun = Instant::now();
    app.stop_worker().await.unwrap();
    let drained = begun.elapsed();
    let run = app.run(accepted.id).await.unwrap();
    assert_eq!((run.state, run.attempt, run.crashes), (RunState::Queued, 0, 0));
    assert!(drained < Duration::from_secs(3), "{drained:?}");
    let other = app.another().await.unwrap();
    let worker = TestWorker::start(&other);
    let events = app.events("t").await.unwrap();
    check(&events);
    assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
    assert_eq!(text(&events, &started(&events)[1]), "whole");
    worker.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_fifty_runs_loses_none_and_keeps_their_places() {
    const RUNS: usize = 50;
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let gate = Gate::new();
    let hold = gate.clone();
    let model = ModelServer::with(move |_| Reply::text("one two three").hold_after(2, &hold)).await.unwrap();
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    let mut runs = Vec::new();
    for n in 0..RUNS {
        runs.push(app.say(&format!("t{n}"), "hello", RunOptions::default()).await.unwrap().id);
    }
    model.until(|c| c.received == RUNS).await.unwrap();
    let begun = Instant::now();
    app.stop_worker().await.unwrap();
    eprintln!("{RUNS} runs were put back in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for id in &runs {
        assert_eq!(app.run(*id).await.unwrap().state, RunState::Queued);
    }
    gate.open();
    let other = app.another().await.unwrap();
    let worker = TestWorker::start(&other);
    for (n, id) in runs.iter().enumerate() {
        let events = app.events(&format!("t{n}")).await.unwrap();
        check(&events);
        assert_eq!(count(&events, kind::RUN_FINISHED), 1);
        let run = until(&app, *id, |r| r.state.is_ended()).await;
        assert_eq!((run.attempt, run.crashes), (0, 0));
    }
    assert_eq!(model.counts().received, 2 * RUNS);
    worker.drain().await.unwrap();
}

/// Nobody can be asked for a new session, and the worker has to stop all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_session_can_still_be_stopped() {
    let Some(database) = TestDatabase::distributed_from_env().await else { return };
    let model = ModelServer::start().await.unwrap();
    let mut app = TestApp::with_model(database, &model, quick).await.unwrap();
    let db = app.app.db.clone();
    app.say("t", "hello", RunOptions::default()).await.unwrap();
    app.events("t").await.unwrap();
    query(Sql::both("ALTER TABLE worker_sessions RENAME TO gone")).write::<()>(&db, Class::Request).await.unwrap();
    let accepted = app.say("u", "hello", RunOptions::default()).await.unwrap();
    app.stop_worker().await.unwrap();
    query(Sql::both("ALTER TABLE gone RENAME TO worker_sessions")).write::<()>(&db, Class::Request).await.unwrap();
    app.start_worker();
    check(&app.events("u").await.unwrap());
    assert_eq!(app.run(accepted.id).await.unwrap().state, RunState::Succeeded);
}
