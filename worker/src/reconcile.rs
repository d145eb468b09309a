//! The reconciler, in every worker: what a lost hint, a dead worker or a passed time has left behind is found in the database.
//! Ticks are staggered by chance; each does bounded, idempotent batches.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rand::Rng;
use runmill_shared::{
    App, Error, Result,
    domain::Lane,
    queue::{Hint, Queue, backend::ReadyRows},
    services::{
        approvals, attachments, notifications,
        runs::{execution, sweep},
        schedules, tasks as goal_tasks,
    },
    tasks,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    executions::{Executions, Stop},
    lease::Leases,
};

/// Between two looks at what only has to happen some time.
const SELDOM: Duration = Duration::from_secs(60);
/// Between two samples of depth and age.
const MEASURE: Duration = Duration::from_secs(5);

pub struct Reconciler {
    work: Arc<Work>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Work {
    app: App,
    leases: Leases,
    executions: Executions,
    healthy: AtomicBool,
}

impl Reconciler {
    /// Works until `stop`.
    pub fn start(app: &App, leases: Leases, executions: Executions, stop: CancellationToken) -> Self {
        let work = Arc::new(Work { app: app.clone(), leases, executions, healthy: AtomicBool::new(true) });
        let task = tasks::spawn("reconcile", work.clone().run(stop.clone()));
        Self { work, stop, task }
    }

    pub fn ready_rows(&self) -> Arc<dyn ReadyRows> {
        self.work.clone()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.ok();
    }
}

impl Work {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let period = self.app.config.worker.reconcile;
        let started = Instant::now();
        let mut seldom = started;
        let mut measured = started;
        let mut unknown = Vec::new();
        self.refill().await;
        loop {
            self.app.pulse.beat("reconciler");
            let failed = self.tick(&mut unknown).await.err();
            if let Some(e) = &failed {
                tracing::warn!(error = %e, "the reconciler's tick failed");
            }
            let healthy = failed.is_none_or(|e| e.code != "DATABASE_UNAVAILABLE");
            self.healthy.store(healthy, Ordering::Relaxed);
            if measured.elapsed() > MEASURE {
                measured = Instant::now();
                self.measure().await.ok();
            }
            if seldom.elapsed() > SELDOM {
                seldom = Instant::now();
                self.seldom().await;
            }
            let pause = period.mul_f64(rand::rng().random_range(0.75..1.25));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                self.app.pulse.rest("reconciler");
                return;
            }
        }
    }

    /// Whoever holds an expired session has stopped before it expired, for whatever reason it was not renewed: what it held is taken
    /// at once, also after the database was away.
    async fn tick(&self, unknown: &mut Vec<(Uuid, i64)>) -> Result<()> {
        let app = &self.app;
        if let Some(mine) = self.leases.current() {
            self.compare(mine, unknown).await?;
            sweep::dead_workers(app, mine).await?;
        }
        // Each by itself: what one of them cannot do must not keep the others from their work.
        let swept = [
            sweep::notices(app).await,
            sweep::due(app).await,
            sweep::deadlines(app).await,
            sweep::strays(app).await,
            goal_tasks::lapsed(app).await,
        ];
        swept.into_iter().collect::<Result<Vec<_>>>()?;
        // What has to be decided or told may set off what has to be sent.
        let told = [approvals::sweep(app).await, notifications::dispatch(app).await];
        told.into_iter().collect::<Result<Vec<_>>>()?;
        for lane in Lane::ALL {
            // Without the queue the workers read the rows themselves.
            match sweep::lost_hints(app, lane).await {
                Err(e) if e.code == "REDIS_UNAVAILABLE" => break,
                outcome => outcome?,
            };
        }
        Ok(())
    }

    /// Compares what the database says that this worker executes with what it does execute.
    async fn compare(&self, mine: Uuid, unknown: &mut Vec<(Uuid, i64)>) -> Result<()> {
        let executed = self.executions.running();
        let rows = execution::held_by(&self.app, mine).await?;
        rows.iter().filter(|row| row.paused).for_each(|row| self.executions.look(row.held.id));
        let rows: Vec<_> = rows.into_iter().map(|row| (row.held.id, row.held.fence)).collect();
        for (run_id, fence) in executed {
            if !rows.contains(&(run_id, fence))
                && self.executions.is_executed(run_id, fence)
                && !self.is_held(mine, run_id, fence).await?
            {
                self.executions.stop(run_id, fence, Stop::Ended);
            }
        }
        // A claim whose answer was lost: the row is ours and nobody executes it. Twice seen, so that one that has just ended is not meant.
        let idle: Vec<_> = rows.into_iter().filter(|(id, fence)| !self.executions.is_known(*id, *fence)).collect();
        for (run_id, fence) in idle.iter().filter(|held| unknown.contains(held)) {
            tracing::warn!(run = %run_id, "the database names this worker for a run that it does not execute: given back");
            execution::disown(&self.app, *run_id, *fence).await?;
        }
        *unknown = idle;
        Ok(())
    }

    /// A second look: the run may have been claimed after the rows were read.
    async fn is_held(&self, mine: Uuid, run_id: Uuid, fence: i64) -> Result<bool> {
        Ok(execution::held_by(&self.app, mine).await?.iter().any(|row| (row.held.id, row.held.fence) == (run_id, fence)))
    }

    /// A queue in memory starts empty.
    async fn refill(&self) {
        if !matches!(self.app.queue, Queue::Memory(_)) {
            return;
        }
        for lane in Lane::ALL {
            if let Err(e) = sweep::refill(&self.app, lane).await {
                tracing::warn!(error = %e, lane = lane.as_str(), "the queue is filled by the reconciler instead");
            }
        }
    }

    async fn measure(&self) -> Result<()> {
        for lane in Lane::ALL {
            let (depth, age) = sweep::backlog(&self.app, lane).await?;
            metrics::gauge!("runmill_queue_depth", "lane" => lane.as_str())
                .set(f64::from(u32::try_from(depth).unwrap_or(u32::MAX)));
            metrics::gauge!("runmill_queue_age_seconds", "lane" => lane.as_str()).set(age.as_secs_f64());
        }
        Ok(())
    }

    async fn seldom(&self) {
        let outcomes: [Result<usize, Error>; 4] = [
            sweep::retention(&self.app).await,
            attachments::sweep(&self.app).await,
            schedules::retention(&self.app).await,
            notifications::forget(&self.app).await,
        ];
        for e in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %e, "a sweep failed; the next one goes on");
        }
    }
}

#[async_trait]
impl ReadyRows for Work {
    async fn ready(&self, lane: Lane, limit: usize) -> Result<Vec<Hint>> {
        sweep::ready(&self.app, lane, limit).await
    }

    fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}
