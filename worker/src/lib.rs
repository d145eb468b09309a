//! The worker: takes ready runs from the lanes, executes them, and keeps the database in order. `run` is all that a process calls.
pub mod asr;
mod engine;
mod executions;
mod jobs;
pub mod lanes;
mod lease;
pub mod models;
mod reconcile;
pub mod tools;

use std::{collections::BTreeMap, sync::Arc};

use runmill_shared::{App, Error, Result, domain::Lane, tasks};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Recorder,
    executions::{Executions, Stop},
    jobs::Jobs,
    lease::Leases,
    reconcile::Reconciler,
};

/// The built-in tools that work in this release.
pub fn builtin_tools(config: &runmill_shared::config::Config) -> Result<usize> {
    Ok(tools::Tools::builtin(config)?.names().len() + engine::TOOLS.len())
}

/// Executes runs until `shutdown`, then drains: nothing new is fetched, short work ends, the rest goes back to the queue with its
/// journal. Returns when nothing is held any more.
pub async fn run(app: App, shutdown: CancellationToken) -> Result<()> {
    let executions = Executions::default();
    let recorder = Recorder::start(&app, executions.clone());
    let leases = Leases::open(&app, executions.clone()).await?;
    let jobs = Arc::new(Jobs::new(&app, recorder.clone(), executions.clone(), leases.clone())?);
    let reconciler = Reconciler::start(&app, leases.clone(), executions.clone());
    listen_for_stops(&app, executions.clone());
    drain_on(&app, shutdown.clone(), executions);
    let outcome = lanes::run_lanes(app.queue.clone(), &lane_sizes(&app)?, reconciler.ready_rows(), jobs, shutdown).await;
    reconciler.stop().await;
    leases.close().await;
    outcome
}

fn lane_sizes(app: &App) -> Result<BTreeMap<Lane, usize>> {
    let size = |(name, permits): (&String, &usize)| {
        let lane = Lane::parse(name).ok_or_else(|| Error::invalid("lanes", format!("there is no lane {name:?}")))?;
        Ok((lane, *permits))
    };
    app.config.lanes.iter().map(size).collect()
}

/// Runs that somebody else has ended stop here at once; those whose notice was lost are found by the reconciler.
fn listen_for_stops(app: &App, executions: Executions) {
    let mut stopped = app.live.stopped();
    tasks::spawn("listen for stops", async move {
        loop {
            match stopped.recv().await {
                Ok(run_id) => executions.stop(run_id, Stop::Ended),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

fn drain_on(app: &App, shutdown: CancellationToken, executions: Executions) {
    let grace = app.config.worker.drain;
    tasks::spawn("drain", async move {
        shutdown.cancelled().await;
        let held = executions.len();
        tracing::info!(runs = held, "draining: nothing new is fetched; what does not end soon goes back to the queue");
        tokio::time::timeout(grace, executions.empty()).await.ok();
        executions.stop_all(Stop::Drain);
    });
}
