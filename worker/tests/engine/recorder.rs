//! One recorder a process: flushes are shared, deltas joined, a run that cannot be written fails alone, and nothing is lost or out
//! of order while the database is away.
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use runmill_shared::{
    domain::{event::kind, run::RunState, run_input::RunOptions},
    store::db::{Class, Db, Sql, query},
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};

use super::told::{check, count, has_text, of_kind, started, text, until_state};

async fn sql(db: &Db, sql: Sql) {
    query(sql).write::<()>(db, Class::Request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_stream_at_once_share_flushes() {
    const RUNS: usize = 30;
    const WORDS: usize = 120;
    for database in databases().await {
        let said: String = (0..WORDS).map(|n| format!("word{n} ")).collect();
        let (gate, script) = (Gate::new(), said.clone());
        let slow = gate.clone();
        let answer = move |_: &_| Reply::text(&script).delay_per_token(Duration::from_millis(2)).hold_until(&slow);
        let model = ModelServer::with(answer).await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        for n in 0..RUNS {
            app.say(&format!("t{n}"), "hello", RunOptions::default()).await.unwrap();
        }
        model.until(|c| c.received == RUNS).await.unwrap();
        gate.open();
        let (mut deltas, mut flushes) = (0, HashSet::new());
        for n in 0..RUNS {
            let events = app.events(&format!("t{n}")).await.unwrap();
            check(&events);
            assert_eq!(text(&events, &started(&events)[0]), said);
            deltas += count(&events, kind::TEXT_DELTA);
            // All events of a flush carry its time.
            flushes.extend(of_kind(&events, kind::TEXT_DELTA).iter().map(|e| e.at));
        }
        eprintln!("{}: {} words, {deltas} events, {} flushes", app.name(), RUNS * WORDS, flushes.len());
        // How much is joined depends on the machine's speed; that runs share flushes does not.
        assert!(flushes.len() * 2 < deltas, "{}: {} flushes for {deltas} events", app.name(), flushes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbouring_deltas_become_one_event() {
    const WORDS: usize = 1000;
    for database in databases().await {
        let said: String = (0..WORDS).map(|n| format!("word{n} ")).collect();
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        model.script(Reply::text(&said).reasoning("let me think about it"));
        app.say("t", "hello", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(text(&events, &started(&events)[0]), said);
        let thought: String = of_kind(&events, kind::REASONING_DELTA).iter().filter_map(|e| e.data["delta"].as_str()).collect();
        assert_eq!(thought, "let me think about it");
        let deltas = count(&events, kind::TEXT_DELTA);
        // How much is joined depends on the machine's speed.
        assert!(deltas < WORDS, "{}: {deltas} events for {WORDS} words", app.name());
    }
}

/// A rule of the database refuses what one run says.
async fn refuse_poison(db: &Db) {
    if db.is_postgres() {
        sql(
            db,
            Sql::both(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF NEW.data LIKE '%poison%' THEN RAISE EXCEPTION 'refused'; END IF; RETURN NEW; END $$",
            ),
        )
        .await;
        sql(db, Sql::both("CREATE TRIGGER refuse BEFORE INSERT ON run_events FOR EACH ROW EXECUTE FUNCTION refuse()")).await;
    } else {
        sql(
            db,
            Sql::both(
                "CREATE TRIGGER refuse BEFORE INSERT ON run_events WHEN NEW.data LIKE '%poison%'
                 BEGIN SELECT RAISE(ABORT, 'refused'); END",
            ),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_events_cannot_be_written_fails_alone() {
    for database in databases().await {
        let (gate, db) = (Gate::new(), database.db());
        let hold = gate.clone();
        let answer = move |request: &runmill_testkit::model_server::Request| {
            let said = format!("{} and {} and more", request.user(), request.user());
            Reply::text(&said).hold_after(2, &hold)
        };
        let model = ModelServer::with(answer).await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        refuse_poison(&db).await;
        let bad = app.say("bad", "poison", RunOptions::default()).await.unwrap();
        for n in 0..8 {
            app.say(&format!("good{n}"), "bread", RunOptions::default()).await.unwrap();
        }
        model.until(|c| c.received == 9).await.unwrap();
        let run = until_state(&app, bad.id, RunState::Failed).await;
        assert_eq!(run.error.unwrap().code, "UNWRITABLE", "{}", app.name());
        gate.open();
        for n in 0..8 {
            let events = app.events(&format!("good{n}")).await.unwrap();
            check(&events);
            assert_eq!(events.last().unwrap().kind, kind::RUN_FINISHED, "{}", app.name());
        }
        let events = app.events("bad").await.unwrap();
        check(&events);
        assert_eq!(count(&events, kind::RUN_FAILED), 1);
        assert_eq!(model.counts().received, 9, "it is not tried again");
    }
}

/// Waits until so many statements of the app have met a lock: each is given up after its timeout and tried again.
async fn until_tried(db: &Db, tries: usize) {
    let waiting = Sql::both(
        "SELECT (EXTRACT(EPOCH FROM query_start) * 1000000)::BIGINT AS at FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    let (mut seen, begun) = (HashSet::new(), Instant::now());
    while seen.len() < tries {
        assert!(begun.elapsed() < Duration::from_secs(30), "only {} statements met the lock", seen.len());
        if let Some(row) = query(waiting).optional(db).await.unwrap() {
            seen.insert(row.time("at").unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Holds the answer after `held` words, takes the database away, lets the answer go on, and gives the database back.
async fn answered_while_away(held: usize) {
    let Some(database) = TestDatabase::postgres_from_env().await else { return };
    let gate = Gate::new();
    let model = ModelServer::start().await.unwrap();
    // Writes run into the timeout, as on a database that does not answer.
    let app = TestApp::with_model(database, &model, |c| c.database.statement_timeout = Duration::from_millis(150)).await.unwrap();
    let words: Vec<_> = (0..40).map(|n| format!("w{n}")).collect();
    let said = words.join(" ");
    model.script(Reply::text(&said).hold_after(held, &gate));
    app.say("t", "hello", RunOptions::default()).await.unwrap();
    let last = words[held - 1].clone();
    app.events_until("t", |e| has_text(e, &last)).await.unwrap();
    let mut lock = app.app.db.begin().await.unwrap();
    query(Sql::both("LOCK TABLE run_events IN EXCLUSIVE MODE")).execute(&mut lock).await.unwrap();
    gate.open();
    model.until(|c| c.finished == 1).await.unwrap();
    until_tried(&app.app.db, 3).await;
    drop(lock);
    let events = app.events("t").await.unwrap();
    check(&events);
    assert_eq!(events.last().unwrap().kind, kind::RUN_FINISHED);
    let ids = started(&events);
    assert_eq!((ids.len(), model.counts().received), (1, 1), "the answer is not paid twice: {events:?}");
    assert_eq!(text(&events, &ids[0]), said);
    if held == 1 {
        let deltas = count(&events, kind::TEXT_DELTA);
        assert!(deltas <= 10, "what waits for the database is joined, but {deltas} events were written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_while_the_database_is_away_is_kept_in_order() {
    answered_while_away(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_while_the_database_is_away_keeps_its_answer() {
    answered_while_away(40).await;
}
