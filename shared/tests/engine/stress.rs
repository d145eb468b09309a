//! Everything at once, seeded: workers that write, wait, fail, stop and die, callers that cancel, and the reconciler. Every run
//! ends exactly once.
use std::{
    collections::HashMap,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use runmill_shared::{
    domain::{
        Lane,
        event::kind,
        run::{RunError, Waiting},
        step::{StepKind, StepWrite},
    },
    error::ErrorKind,
    services::runs::{
        execution::{Child, Parked},
        sweep,
    },
    store::{runs::sweep as rows, sessions},
};

use super::*;

const RUNS: usize = 48;

struct Stress<'a> {
    w: &'a World,
    children: Mutex<HashMap<Uuid, Vec<Uuid>>>,
    deaths: AtomicUsize,
    parks: AtomicUsize,
    woken: AtomicUsize,
}

/// What an execution may be told: that the run is no longer its own.
fn lost_or<T>(outcome: runmill_shared::Result<T>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(e) if e.kind == ErrorKind::Conflict && e.code == execution::LOST => None,
        Err(e) => panic!("{e}"),
    }
}

impl Stress<'_> {
    async fn live(&self) -> i64 {
        self.w.count("runs WHERE state IN ('queued', 'running', 'waiting')").await
    }

    async fn session(&self) -> Uuid {
        let id = new_id();
        sessions::open(&self.w.app.db, id, "w", START, START.after(MINUTE * 60 * 24)).await.unwrap();
        id
    }

    async fn worker(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut session = self.session().await;
        while self.live().await > 0 {
            let ready = rows::ready(&self.w.app.db, Lane::Runs, 8).await.unwrap();
            let Some(run) = ready.choose(&mut rng) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let Some(run) = self.w.try_claim(run.id, session).await else { continue };
            if !self.execute(&mut rng, &run).await {
                sessions::expire(&self.w.app.db, session).await.unwrap();
                session = self.session().await;
                // What it held may have been taken back already, and then this writes nothing.
                lost_or(finish(&self.w.app, &run).await);
            }
        }
    }

    /// `false`: the worker dies.
    async fn execute(&self, rng: &mut StdRng, run: &Claimed) -> bool {
        let app = &self.w.app;
        let events = (0..rng.random_range(0..4)).map(|n| delta(&format!("{n}"))).collect();
        if lost_or(execution::flush(app, vec![unit(run, events)], &mut execution::Doubt::default()).await)
            .is_none_or(|lost| !lost.is_empty())
        {
            return true;
        }
        match rng.random_range(0..12) {
            0 => {
                self.deaths.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            1 => _ = lost_or(execution::release(app, run).await),
            2 => {
                let error = RunError::new("X", "x", true);
                let _ = lost_or(execution::back_off(app, run, &error, Duration::from_secs(1), Writes::default()).await);
            }
            3 => {
                let until = app.clock.now().after(Duration::from_secs(1));
                let _ = lost_or(execution::park(app, run, run.wake_seq, &Waiting::Timer { until }, Writes::default()).await);
            }
            4..=6 if run.parent_run_id.is_none_or(|_| rng.random_bool(0.2)) => self.start_child(run).await,
            _ => self.look_and_park_or_finish(run).await,
        }
        if rng.random_bool(0.05) {
            control::end(app, run.id, "a caller has had enough").await.unwrap();
        }
        true
    }

    async fn start_child(&self, run: &Claimed) {
        let id = new_id();
        self.children.lock().unwrap().entry(run.id).or_default().push(id);
        let child =
            Child { id, kind: RunKind::Agent, input: "{}".into(), messages: vec![], agent_id: None, model: None, watcher: None };
        let step =
            StepWrite::Start { key: id.to_string(), ordinal: 1, kind: StepKind::Child, name: "c".into(), intent: json!({}) };
        if lost_or(execution::start_child(&self.w.app, run, child, step).await).is_some() {
            self.look_and_park_or_finish(run).await;
        }
    }

    async fn look_and_park_or_finish(&self, run: &Claimed) {
        let children = self.children.lock().unwrap().get(&run.id).cloned().unwrap_or_default();
        let mut seen = run.wake_seq;
        loop {
            let outcomes = execution::outcomes(&self.w.app, &children).await.unwrap();
            let runs: Vec<_> = outcomes.iter().filter(|o| !o.state.is_ended()).map(|o| o.id).collect();
            if runs.is_empty() {
                let _ = lost_or(finish(&self.w.app, run).await);
                return;
            }
            match lost_or(
                execution::park(&self.w.app, run, seen, &Waiting::Children { runs, until: None }, Writes::default()).await,
            ) {
                Some(Parked::Woken(count)) => {
                    self.woken.fetch_add(1, Ordering::Relaxed);
                    seen = count;
                }
                Some(Parked::Yes) => {
                    self.parks.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                None => return,
            }
        }
    }

    async fn reconcile(&self) {
        let start = Instant::now();
        while self.live().await > 0 {
            assert!(start.elapsed() < LIMIT * 3, "{}: {} runs never ended", self.w.name, self.live().await);
            self.w.later(Duration::from_millis(500));
            let app = &self.w.app;
            sweep::dead_workers(app, new_id()).await.unwrap();
            sweep::due(app).await.unwrap();
            sweep::notices(app).await.unwrap();
            sweep::strays(app).await.unwrap();
            sweep::lost_hints(app, Lane::Runs).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn callers(&self) {
        let me = owner();
        let all: Vec<_> = (0..RUNS)
            .map(|n| {
                let multitask = match n % 11 {
                    5 => Multitask::Interrupt,
                    7 => Multitask::Rollback,
                    _ => Multitask::Enqueue,
                };
                let run_at = (n % 9 == 2).then(|| START.after(Duration::from_secs(3)));
                Work { multitask, run_at, ..work(&format!("t{}", n % 8), &format!("r{n}")) }
            })
            .collect();
        for answer in join_all(all.iter().map(|work| accept(&self.w.app, &me, work))).await {
            answer.unwrap();
        }
    }
}

async fn one_end_each(w: &World) {
    let ended = format!("'{}', '{}', '{}'", kind::RUN_FINISHED, kind::RUN_CANCELLED, kind::RUN_FAILED);
    let wrong = format!(
        "runs r WHERE 1 <> (SELECT COUNT(*) FROM run_events e WHERE e.run_id = r.id AND e.kind IN ({ended})
             AND e.data NOT LIKE '%\"willRetry\":true%' AND e.seq = (SELECT MAX(l.seq) FROM run_events l WHERE l.run_id = r.id))"
    );
    assert_eq!(w.count(&wrong).await, 0, "{}: a run has not exactly one end, or tells something after it", w.name);
    let terminal = format!("run_events WHERE kind IN ({ended}) AND data NOT LIKE '%\"willRetry\":true%'");
    assert_eq!(w.count(&terminal).await, w.count("runs").await, "{}", w.name);
}

async fn storm(seed: u64) {
    for w in worlds_with(|c| (c.runs.max_crashes, c.worker.batch) = (3, 5)).await {
        let stress = Stress {
            w: &w,
            children: Mutex::default(),
            deaths: AtomicUsize::new(0),
            parks: AtomicUsize::new(0),
            woken: AtomicUsize::new(0),
        };
        w.accept("t0", "first").await;
        let workers = join_all((0..4).map(|n| stress.worker(seed * 100 + n)));
        tokio::join!(stress.callers(), workers, stress.reconcile());
        until("every notice is applied", async || {
            sweep::notices(&w.app).await.unwrap();
            w.count("outbox").await == 0
        })
        .await;
        assert!(stress.deaths.into_inner() > 0 && stress.parks.into_inner() > 0, "{}: nothing went wrong in it", w.name);
        assert_eq!(w.count("runs WHERE parent_run_id IS NULL").await, i64::try_from(RUNS).unwrap() + 1);
        one_end_each(&w).await;
        w.check().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_ends_once_whatever_happens_to_its_workers() {
    storm(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_ends_once_in_another_order_too() {
    storm(2).await;
}
