//! A thousand schedules fire each second while schedulers are killed and the clock is set: each instant once, none left out.
use std::time::Duration;

use runmill_shared::store::db::{Db, Row, Sql, query};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    eventually,
    model::{Call, words},
    world::{Setup, World},
};

const SCHEDULES: i64 = 1000;
const WORKERS: usize = 3;
const SHOWN: Duration = Duration::from_secs(20);

/// The database's clock is the one clock: its own function is hidden behind one that adds what a table says.
const CLOCK: [Sql; 4] = [
    Sql::both("CREATE TABLE public.clock_offset (seconds INTEGER NOT NULL)"),
    Sql::both("INSERT INTO public.clock_offset VALUES (0)"),
    Sql::both(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
         'SELECT pg_catalog.clock_timestamp() + (SELECT seconds FROM public.clock_offset) * interval ''1 second'''",
    ),
    Sql::both("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$"),
];
const SET_CLOCK: Sql = Sql::both("UPDATE public.clock_offset SET seconds = seconds + $1");
const FIRST: Sql = Sql::both(
    "INSERT INTO schedules (id, owner, name, target_kind, target_id, spec, enabled, failures, fired_until, next_at, version, created_at,
         updated_at)
     SELECT gen_random_uuid(), 'local', 'each second', 'agent', 'demo', $1, TRUE, 0, $2, $2, 1, $2, $2 FROM generate_series(1, $3)",
);
const STOP: Sql = Sql::both("UPDATE schedules SET enabled = FALSE");
/// Of each schedule: how many instants, over how many seconds, and how far they have come at least.
const COVERED: Sql = Sql::both(
    "SELECT COUNT(*) AS schedules, MIN(n) AS fewest, MAX(n) AS most, MIN(first) AS first, MAX(first) AS latest_first, MIN(last) AS last,
         COUNT(*) FILTER (WHERE n <> (last - first) / 1000000 + 1) AS with_holes
     FROM (SELECT schedule_id, COUNT(*) AS n, MIN(scheduled_for) AS first, MAX(scheduled_for) AS last
           FROM schedule_fires GROUP BY schedule_id) AS one",
);
/// Fires without a run of their own, and runs without a fire.
const WRONG: Sql = Sql::both(
    "SELECT (SELECT COUNT(*) FROM schedule_fires f LEFT JOIN runs r ON r.id = f.run_id
             AND r.external_id = 'schedule-' || f.schedule_id || '-' || f.scheduled_for WHERE r.id IS NULL) AS fires,
         (SELECT COUNT(*) FROM runs r WHERE NOT EXISTS (SELECT 1 FROM schedule_fires f WHERE f.run_id = r.id)) AS runs,
         (SELECT COUNT(*) FROM schedule_fires WHERE status IN ('missed', 'skipped', 'buffered') OR scheduled_for % 1000000 <> 0) AS others",
);

struct Numbers(Vec<(&'static str, i64)>);

impl Numbers {
    fn of(&self, name: &str) -> i64 {
        self.0.iter().find(|(n, _)| *n == name).unwrap().1
    }
}

async fn numbers(db: &Db, sql: Sql, names: &[&'static str]) -> Numbers {
    let row: Row = query(sql).one(db).await.unwrap();
    Numbers(names.iter().map(|name| (*name, row.get::<Option<i64>>(name).unwrap().unwrap_or(0))).collect())
}

async fn execute(db: &Db, sql: Sql) {
    query(sql).all::<()>(db).await.unwrap();
}

async fn set_clock(db: &Db, seconds: i64) {
    query(SET_CLOCK).bind(seconds).all::<()>(db).await.unwrap();
}

fn spec() -> Value {
    json!({ "cron": "* * * * * *", "timezone": "UTC", "input": "go on", "overlap": "allow" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instant_fires_once_whatever_dies_and_whatever_the_clock_does() {
    let settings = vec![("RUNMILL_LANES__RUNS", "1".to_owned()), ("RUNMILL_SCHEDULES__MAX_PER_USER", "2000".to_owned())];
    let setup = Setup { workers: 0, settings, prepare: &CLOCK, ..Setup::default() };
    let mut world = World::start(setup, |_: &Call| words(1)).await;
    let started = world.db.now().await.unwrap().unwrap();
    query(FIRST).bind(spec().to_string()).bind(started).bind(SCHEDULES).all::<()>(&world.db).await.unwrap();
    for _ in 0..WORKERS {
        world.add_worker();
    }
    let began = Instant::now();
    let mut killed = 0;
    while began.elapsed() < SHOWN {
        // Killed wherever it is, and started again; of three, two go on.
        sleep(Duration::from_secs(3)).await;
        let worker = &mut world.workers[killed % WORKERS];
        worker.kill9().unwrap();
        worker.start().unwrap();
        killed += 1;
        match killed {
            2 => set_clock(&world.db, 5).await,
            4 => set_clock(&world.db, -3).await,
            _ => {}
        }
    }
    let until = world.db.now().await.unwrap().unwrap();
    let names = ["schedules", "fewest", "most", "first", "latest_first", "last", "with_holes"];
    eventually("all have come as far as the clock", || async {
        let covered = numbers(&world.db, COVERED, &names).await;
        (covered.of("schedules") == SCHEDULES && covered.of("last") >= until.0 - 1_000_000).then_some(())
    })
    .await;
    execute(&world.db, STOP).await;
    let covered = numbers(&world.db, COVERED, &names).await;
    let wrong = numbers(&world.db, WRONG, &["fires", "runs", "others"]).await;
    println!("schedules | {killed} schedulers killed, the clock set by +5 s and -3 s | {:?} | {:?}", covered.0, wrong.0);
    assert_eq!((covered.of("schedules"), covered.of("with_holes")), (SCHEDULES, 0), "an instant was left out");
    let second = 1_000_000;
    let first = started.0 / second * second + second;
    assert_eq!((covered.of("first"), covered.of("latest_first")), (first, first), "the first instant of each");
    assert!(covered.of("fewest") >= 20, "{:?}", covered.0);
    assert_eq!(wrong.0, [("fires", 0), ("runs", 0), ("others", 0)], "each fire has one run, and each run its fire");
}
