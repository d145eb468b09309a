//! The worker: takes ready runs from the lanes, executes them, and keeps the database in order. `run` is all that a process calls.
pub mod asr;
mod deliveries;
mod engine;
mod executions;
mod jobs;
pub mod lanes;
mod lease;
pub mod models;
pub mod plugins;
mod reconcile;
pub mod sandbox;
mod schedule;
pub mod tools;
mod yaml;

use std::{collections::BTreeMap, sync::Arc};

use runmill_shared::{
    App, Error, Result,
    domain::{Lane, tool::ToolDescriptor},
    events::live::Order,
    tasks,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Recorder,
    executions::{Executions, Stop},
    jobs::Jobs,
    lease::Leases,
    reconcile::Reconciler,
    schedule::Scheduler,
};

/// The built-in tools that work with these settings, by name.
pub fn builtin_tools(config: &runmill_shared::config::Config) -> Result<Vec<ToolDescriptor>> {
    let mut all = tools::Tools::builtin(config)?.descriptors();
    all.extend(engine::tool_descriptors());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Executes runs until `shutdown`, then drains: nothing new is fetched, short work ends, the rest goes back to the queue with its
/// journal. Returns when nothing is held any more. Dropped before that, it leaves its runs as a worker that dies: nothing more is
/// written, and the lease lapses.
pub async fn run(app: App, shutdown: CancellationToken) -> Result<()> {
    let executions = Executions::default();
    let alive = Alive { executions: executions.clone(), ended: CancellationToken::new() };
    let leases = Leases::open(&app, executions.clone(), alive.ended.child_token()).await?;
    let recorder = Recorder::start(&app, executions.clone(), alive.ended.clone());
    let jobs = Arc::new(Jobs::new(&app, recorder.clone(), executions.clone(), leases.clone())?);
    let reconciler = Reconciler::start(&app, leases.clone(), executions.clone(), alive.ended.child_token());
    let scheduler = Scheduler::start(&app, alive.ended.child_token());
    listen_for_orders(&app, executions.clone(), alive.ended.clone());
    drain_on(&app, shutdown.clone(), executions, alive.ended.clone());
    let outcome = lanes::run_lanes(app.queue.clone(), &lane_sizes(&app)?, reconciler.ready_rows(), jobs, shutdown).await;
    scheduler.stop().await;
    reconciler.stop().await;
    leases.close().await;
    outcome
}

/// While it lives, so do the worker's background tasks.
struct Alive {
    executions: Executions,
    ended: CancellationToken,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.ended.cancel();
        self.executions.close(Stop::LeaseLost);
    }
}

fn lane_sizes(app: &App) -> Result<BTreeMap<Lane, usize>> {
    let size = |(name, permits): (&String, &usize)| {
        let lane = Lane::parse(name).ok_or_else(|| Error::invalid("lanes", format!("there is no lane {name:?}")))?;
        Ok((lane, *permits))
    };
    app.config.lanes.iter().map(size).collect()
}

/// Runs that somebody else has ended stop here at once, and those that are to be held look; whose order was lost is found by the
/// reconciler.
fn listen_for_orders(app: &App, executions: Executions, ended: CancellationToken) {
    let mut orders = app.live.orders();
    tasks::spawn("listen for orders", async move {
        while let Some(order) = ended.run_until_cancelled(orders.recv()).await {
            match order {
                Ok(Order::Stop(run_id)) => executions.ended(run_id),
                Ok(Order::Look(run_id)) => executions.look(run_id),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

fn drain_on(app: &App, shutdown: CancellationToken, executions: Executions, ended: CancellationToken) {
    let grace = app.config.worker.drain;
    tasks::spawn("drain", async move {
        if ended.run_until_cancelled(shutdown.cancelled()).await.is_none() {
            return;
        }
        let held = executions.len();
        tracing::info!(runs = held, "draining: nothing new is fetched; what does not end soon goes back to the queue");
        tokio::time::timeout(grace, executions.empty()).await.ok();
        executions.close(Stop::Drain);
    });
}
