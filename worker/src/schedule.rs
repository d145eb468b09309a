//! Schedules fire here, in every worker: each looks for what is due, staggered by chance, and takes what no other is at. A look computes
//! everything from the database and keeps nothing, so that a worker may die in any of them.
use rand::Rng;
use runmill_shared::{App, services::schedules, tasks};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Scheduler {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Scheduler {
    /// Works until `stop`.
    pub fn start(app: &App, stop: CancellationToken) -> Self {
        let task = tasks::spawn("schedules", run(app.clone(), stop.clone()));
        Self { stop, task }
    }

    /// Lets the look under way end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.ok();
    }
}

async fn run(app: App, stop: CancellationToken) {
    loop {
        app.pulse.beat("schedules");
        if let Err(e) = schedules::tick(&app).await {
            // Nothing is lost: what was due is due at the next look.
            tracing::warn!(error = %e, "schedules could not be looked at");
        }
        let pause = app.config.worker.reconcile.mul_f64(rand::rng().random_range(0.75..1.25));
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            app.pulse.rest("schedules");
            return;
        }
    }
}
