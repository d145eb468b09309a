//! What runs that wait cost those that work: active runs from the first accept to the last end, beside none and beside many that wait
//! for a person. API and worker are in this process, so that nothing but the waiting rows is different.
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use runmill_shared::{
    clock::Timestamp,
    domain::{
        new_id,
        run::{RetryPolicy, Waiting},
        run_input::RunOptions,
    },
    store::db::{Db, Sql, query},
};
use runmill_testkit::{app::TestApp, database::TestDatabase};
use tokio::time::sleep;

use crate::{
    accept::MESSAGE,
    system::Services,
    table::{self, ms, ratio},
};

const WAITING: i64 = 10_000;
const ACTIVE: usize = 100;
/// Of each kind; the median counts.
const ROUNDS: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

const FINISHED: Sql = Sql::both("SELECT COUNT(*) AS n FROM runs WHERE finished_at >= $1");
const HOW_MANY: Sql = Sql::both("SELECT COUNT(*) AS n FROM runs WHERE state = 'waiting' AND lease_owner IS NULL");
const THREADS: Sql = Sql::each(
    "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
     SELECT gen_random_uuid(), 'local', 'waiting-' || i, TRUE, $2::BIGINT, $2::BIGINT FROM generate_series(1, $1::BIGINT) AS i",
    "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
     SELECT randomblob(16), 'local', 'waiting-' || i, TRUE, $2, $2 FROM n",
);
/// A thread and its run have one id: that saves a look.
const HEADS: Sql = Sql::both(
    "INSERT INTO thread_heads (thread_id, last_seq, first_seq, last_message_seq, last_order, head_run_id)
     SELECT id, 0, 1, 0, 1, id FROM threads WHERE external_id LIKE 'waiting-%'",
);
const RUNS: Sql = Sql::both(
    "INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score, hinted_at,
         fence, attempt, crashes, wake_seq, wake_at, waiting_for, run_left, policy, input, input_hash, created_at, started_at)
     SELECT id, owner, id, external_id, 'agent', 'runs', 'waiting', FALSE, 1, 0, created_at, created_at, 2, 0, 0, 0, $1, $2, 600000000,
         $3, '{}', '', created_at, created_at FROM threads WHERE external_id LIKE 'waiting-%'",
);
const APPROVALS: Sql = Sql::both(
    "INSERT INTO approvals (id, owner, run_id, kind, status, reason, subject, created_at, expires_at)
     SELECT id, owner, id, 'tool', 'pending', 'may it?', '{}', created_at, $1 FROM runs WHERE external_id LIKE 'waiting-%'",
);

pub async fn run(services: &Services) -> Result<()> {
    let mut rows = Vec::new();
    measure(&mut rows, "embedded", TestDatabase::sqlite().await).await?;
    let database = TestDatabase::distributed(&services.postgres.url(), &services.redis.url()).await?;
    measure(&mut rows, "Postgres and Redis", database).await?;
    let title =
        format!("waiting: {ACTIVE} runs of {MESSAGE:?} until the last has ended, beside {WAITING} that wait for a person");
    table::print(&title, &["", "waiting", "p50", "best", "of none"], &rows);
    Ok(())
}

async fn measure(rows: &mut Vec<Vec<String>>, name: &str, database: TestDatabase) -> Result<()> {
    let mut app = TestApp::start(database, |_| {}).await?;
    round(&app, "warm").await?;
    let none = rounds(&app, "none").await?;
    wait(&app, WAITING).await?;
    let many = rounds(&app, "many").await?;
    let counted: i64 = query(HOW_MANY).one(&app.app.db).await?.get("n")?;
    ensure!(counted == WAITING, "{counted} wait, and hold nothing");
    for (waiting, times) in [(0, &none), (WAITING, &many)] {
        let (p50, best) = (times[ROUNDS / 2], times[0]);
        rows.push(vec![name.to_owned(), waiting.to_string(), ms(p50), ms(best), ratio(p50, none[ROUNDS / 2])]);
    }
    app.stop_worker().await
}

/// Sorted, in seconds.
async fn rounds(app: &TestApp, name: &str) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for n in 0..ROUNDS {
        times.push(round(app, &format!("{name}-{n}")).await?.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

async fn round(app: &TestApp, name: &str) -> Result<Duration> {
    let (from, begun) = (app.app.clock.now(), Instant::now());
    try_join_all((0..ACTIVE).map(|n| {
        let thread = format!("{name}-{n}");
        async move { app.say(&thread, MESSAGE, RunOptions::default()).await }
    }))
    .await?;
    while finished(&app.app.db, from).await? < i64::try_from(ACTIVE)? {
        ensure!(begun.elapsed() < LIMIT, "{name}: runs have not ended after {LIMIT:?}");
        sleep(LOOK).await;
    }
    Ok(begun.elapsed())
}

async fn finished(db: &Db, from: Timestamp) -> Result<i64> {
    Ok(query(FINISHED).bind(from).one(db).await?.get("n")?)
}

/// Runs that wait for a decision, as parking leaves them.
async fn wait(app: &TestApp, count: i64) -> Result<()> {
    let now = app.app.clock.now();
    let until = now.after(Duration::from_secs(7 * 24 * 3600));
    let waiting = Waiting::Approval { approvals: vec![new_id()], until: Some(until) };
    let policy = serde_json::to_string(&RetryPolicy::of(&app.app.config.runs))?;
    let mut tx = app.app.db.begin().await?;
    query(THREADS).bind(count).bind(now).execute(&mut tx).await?;
    query(HEADS).execute(&mut tx).await?;
    query(RUNS).bind(until).bind_json(&waiting)?.bind(policy).execute(&mut tx).await?;
    query(APPROVALS).bind(until).execute(&mut tx).await?;
    Ok(tx.commit().await?)
}
