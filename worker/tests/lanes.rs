//! Lanes on both queues, and through outages of Redis and of the database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use runmill_shared::{
    Error, Result,
    config::{self, Secret},
    domain::{Lane, new_id},
    queue::{Hint, Queue, backend::ReadyRows},
};
use runmill_testkit::services::RedisServer;
use runmill_worker::lanes::{Handle, Outcome, run_lanes};
use tokio::{sync::Semaphore, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LANE: Lane = Lane::Runs;
const LIMIT: Duration = Duration::from_secs(60);

/// The rows that the queue gives hints of.
#[derive(Default)]
struct Rows {
    ready: Mutex<BTreeMap<(i64, Uuid), ()>>,
    claimed: Mutex<HashMap<Uuid, usize>>,
    unwell: AtomicBool,
    looks: AtomicUsize,
    panic_once: AtomicBool,
}

impl Rows {
    fn add(&self, hint: Hint) {
        self.ready.lock().unwrap().insert((hint.score, hint.run_id), ());
    }

    /// As the claim does: whoever finds the row has it.
    fn claim(&self, hint: Hint) -> Outcome {
        if self.ready.lock().unwrap().remove(&(hint.score, hint.run_id)).is_some() {
            *self.claimed.lock().unwrap().entry(hint.run_id).or_default() += 1;
        }
        Outcome::Done
    }

    fn claimed(&self) -> usize {
        self.claimed.lock().unwrap().values().sum()
    }
}

#[async_trait]
impl ReadyRows for Rows {
    async fn ready(&self, _: Lane, limit: usize) -> Result<Vec<Hint>> {
        let ready = self.ready.lock().unwrap();
        Ok(ready.keys().take(limit).map(|(score, run_id)| Hint { run_id: *run_id, score: *score }).collect())
    }

    fn healthy(&self) -> bool {
        assert!(!self.panic_once.swap(false, SeqCst), "the fetch loop of this test panics once");
        self.looks.fetch_add(1, SeqCst);
        !self.unwell.load(SeqCst)
    }
}

struct With<F>(F);

#[async_trait]
impl<F, Fut> Handle for With<F>
where
    F: Fn(Hint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome>> + Send + 'static,
{
    async fn handle(&self, hint: Hint, _: Lane) -> Result<Outcome> {
        (self.0)(hint).await
    }
}

struct Bed {
    queue: Queue,
    rows: Arc<Rows>,
    server: Option<RedisServer>,
}

impl Bed {
    async fn redis() -> Self {
        let server = RedisServer::start().await.unwrap();
        let queue = Queue::connect(&settings(server.url())).await.unwrap();
        Self { queue, rows: Arc::default(), server: Some(server) }
    }

    async fn both() -> [Self; 2] {
        let queue = Queue::connect(&settings(String::new())).await.unwrap();
        [Self { queue, rows: Arc::default(), server: None }, Self::redis().await]
    }

    /// Rows with hints, as after an accept.
    async fn accept(&self, n: usize) -> Vec<Hint> {
        let hints: Vec<_> = (0..n).map(|score| Hint { run_id: new_id(), score: score as i64 }).collect();
        hints.iter().for_each(|hint| self.rows.add(*hint));
        self.queue.push(LANE, &hints).await.unwrap();
        hints
    }

    fn run<F, Fut>(&self, permits: usize, handle: F) -> Running
    where
        F: Fn(Hint) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome>> + Send + 'static,
    {
        let (queue, rows, shutdown) = (self.queue.clone(), self.rows.clone(), CancellationToken::new());
        let token = shutdown.clone();
        let lanes = BTreeMap::from([(LANE, permits), (Lane::Bulk, 1)]);
        let task = spawn(async move { run_lanes(queue, &lanes, rows, Arc::new(With(handle)), token).await });
        Running { shutdown, task }
    }

    /// Lanes whose handler only claims.
    fn run_claims(&self) -> Running {
        let rows = self.rows.clone();
        self.run(8, move |hint| std::future::ready(Ok(rows.claim(hint))))
    }

    async fn claimed(&self, n: usize) {
        eventually(&format!("{n} claims"), || self.rows.claimed() >= n).await;
        assert_eq!(self.rows.claimed(), n);
    }
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test holds the handle")]
fn spawn(work: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<Result<()>> {
    tokio::spawn(work)
}

fn settings(url: String) -> config::Redis {
    let (block, response_timeout) = (Duration::from_secs(1), Duration::from_millis(300));
    config::Redis { url: Secret::new(url), prefix: "test".to_owned(), block, response_timeout }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_there_are_permits() {
    for bed in Bed::both().await {
        bed.accept(500).await;
        let (now, most, rows) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), bed.rows.clone());
        let seen = most.clone();
        let running = bed.run(7, move |hint| {
            let (now, most, rows) = (now.clone(), most.clone(), rows.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, SeqCst);
                Ok(rows.claim(hint))
            }
        });
        bed.claimed(500).await;
        assert_eq!(seen.load(SeqCst), 7);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_ends_nothing() {
    for bed in Bed::both().await {
        bed.accept(40).await;
        let rows = bed.rows.clone();
        // More panics than permits: each must give its permit back.
        let running = bed.run(2, move |hint| {
            let rows = rows.clone();
            async move {
                rows.claim(hint);
                assert!(hint.score % 2 == 0, "this handler panics for every other hint");
                Err(Error::internal("and fails for the rest"))
            }
        });
        bed.claimed(40).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_what_runs_and_starts_nothing() {
    for bed in Bed::both().await {
        bed.accept(100).await;
        let (gate, started, rows) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), bed.rows.clone());
        let (open, count) = (gate.clone(), started.clone());
        let running = bed.run(3, move |hint| {
            let (gate, rows) = (gate.clone(), rows.clone());
            started.fetch_add(1, SeqCst);
            async move {
                let _pass = gate.acquire().await.unwrap();
                Ok(rows.claim(hint))
            }
        });
        eventually("three run", || count.load(SeqCst) == 3).await;
        running.shutdown.cancel();
        let Running { shutdown, mut task } = running;
        let early = tokio::time::timeout(Duration::from_millis(100), &mut task).await;
        assert!(early.is_err(), "it returned while three handlers were running");
        open.add_permits(100);
        Running { shutdown, task }.stop().await;
        assert_eq!(bed.rows.claimed(), 3);
        assert_eq!(bed.queue.depth(LANE).await.unwrap(), 97, "the rest is where it was");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_the_same_name_goes_on() {
    for bed in Bed::both().await {
        for round in 1..=3 {
            let running = bed.run_claims();
            bed.accept(50).await;
            bed.claimed(50 * round).await;
            // No farewell: as when the process dies.
            running.task.abort();
            assert!(running.task.await.unwrap_err().is_cancelled());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_that_could_not_be_tried_comes_again() {
    for bed in Bed::both().await {
        bed.accept(2).await;
        let (rows, tries) = (bed.rows.clone(), Arc::new(AtomicUsize::new(0)));
        let running = bed.run(1, move |hint| {
            let answer = match tries.fetch_add(1, SeqCst) {
                0 => Ok(Outcome::PutBack),
                1 => Err(Error::unavailable("DATABASE_UNAVAILABLE", "the database does not answer")),
                _ => Ok(rows.claim(hint)),
            };
            std::future::ready(answer)
        });
        bed.claimed(2).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fetched_while_the_database_is_unwell() {
    for bed in Bed::both().await {
        bed.rows.unwell.store(true, SeqCst);
        let running = bed.run_claims();
        bed.accept(10).await;
        let looks = bed.rows.looks.load(SeqCst);
        eventually("it looks again and again", || bed.rows.looks.load(SeqCst) > looks + 4).await;
        assert_eq!((bed.rows.claimed(), bed.queue.depth(LANE).await.unwrap()), (0, 10));
        bed.rows.unwell.store(false, SeqCst);
        bed.claimed(10).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_loop_that_panics_is_started_again() {
    for bed in Bed::both().await {
        bed.rows.panic_once.store(true, SeqCst);
        let running = bed.run_claims();
        bed.accept(10).await;
        bed.claimed(10).await;
        assert!(!bed.rows.panic_once.load(SeqCst));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_severed_or_paused_server_loses_no_row() {
    let bed = Bed::redis().await;
    let running = bed.run_claims();
    let server = bed.server.as_ref().unwrap();
    bed.accept(10).await;
    bed.claimed(10).await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    bed.accept(10).await;
    bed.claimed(20).await;
    server.command(&["CLIENT", "PAUSE", "1500", "ALL"]).await.unwrap();
    let late = Hint { run_id: new_id(), score: 1 };
    bed.rows.add(late);
    let start = Instant::now();
    while bed.queue.push(LANE, &[late]).await.is_err() {
        assert!(start.elapsed() < LIMIT, "never pushed");
    }
    bed.claimed(21).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_the_server_is_away_for_ten_seconds() {
    let mut bed = Bed::redis().await;
    let running = bed.run_claims();
    bed.accept(10).await;
    bed.claimed(10).await;
    bed.server.as_mut().unwrap().kill().unwrap();
    let (away, mut rows, mut slowest) = (Instant::now(), 10, Duration::ZERO);
    while away.elapsed() < Duration::from_secs(10) {
        let start = Instant::now();
        bed.rows.add(Hint { run_id: new_id(), score: rows as i64 });
        rows += 1;
        bed.claimed(rows).await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a row waited {slowest:?}");
    bed.server.as_mut().unwrap().restart().await.unwrap();
    // Back on the queue: a hint without a row is popped, which polling of rows would never do.
    let stale = Hint { run_id: new_id(), score: 0 };
    let start = Instant::now();
    while bed.queue.push(LANE, &[stale]).await.is_err() || bed.queue.depth(LANE).await.unwrap_or(1) > 0 {
        assert!(start.elapsed() < LIMIT, "the lane did not come back to the queue");
        sleep(Duration::from_millis(20)).await;
    }
    bed.accept(10).await;
    bed.claimed(rows + 10).await;
    running.stop().await;
}
