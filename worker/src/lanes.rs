//! One apalis worker a lane. A lane's concurrency is its permits; a run's time limit is its own (`runs.run_timeout`, with waiting not
//! counted), so there is no timeout layer here, and apalis retries nothing: the row says what happens next.
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use apalis::{
    layers::tracing::{DefaultOnFailure, OnRequest, TraceLayer},
    prelude::{Monitor, ParallelizeExt, Task, WorkerBuilder, WorkerBuilderExt},
};
use async_trait::async_trait;
use runmill_shared::{
    Error, ErrorKind, Result,
    domain::Lane,
    queue::{
        Hint, Queue,
        backend::{LaneBackend, ReadyRows, Ticket},
    },
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// How long a hint that was put back still holds its permit, so that a worker that cannot try anything does not spin.
const AFTER_PUT_BACK: Duration = Duration::from_millis(200);

/// What became of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its run was tried, or the claim matched nothing: the hint is used up.
    Done,
    /// It could not be tried, since the database did not answer: the hint goes back.
    PutBack,
}

/// What a lane does with a hint: claim the run, execute it, end it.
#[async_trait]
pub trait Handle: Send + Sync + 'static {
    /// `Unavailable` counts as `Outcome::PutBack`; any other error, and a panic, is logged and uses the hint up.
    async fn handle(&self, hint: Hint, lane: Lane) -> Result<Outcome>;
}

/// Runs every lane with as many runs at once as `lanes` says. After `shutdown` nothing is fetched any more, and it returns when
/// the last handler has returned: ending those that take too long is the caller's.
pub async fn run_lanes(
    queue: Queue,
    lanes: &BTreeMap<Lane, usize>,
    fallback: Arc<dyn ReadyRows>,
    handler: Arc<dyn Handle>,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut monitor = Monitor::new().should_restart(|lane, error| {
        tracing::error!(lane = lane.name(), %error, "a lane's worker ended and is started again");
        true
    });
    for (&lane, &permits) in lanes {
        let backend = LaneBackend::new(queue.clone(), lane, permits, fallback.clone(), shutdown.clone());
        let (handler, shutdown) = (handler.clone(), shutdown.clone());
        monitor = monitor.register(move |_restarts| {
            let (handler, shutdown) = (handler.clone(), shutdown.clone());
            WorkerBuilder::new(lane.as_str())
                .backend(backend.clone())
                .parallelize(spawn)
                .layer(tracing_layer())
                .catch_panic()
                .build(move |ticket: Ticket| attempt(handler.clone(), ticket, shutdown.clone()))
        });
    }
    let signal = async {
        shutdown.cancelled().await;
        Ok(())
    };
    monitor.run_with_signal(signal).await.map_err(Error::internal)
}

async fn attempt(handler: Arc<dyn Handle>, ticket: Ticket, shutdown: CancellationToken) {
    let put_back = match handler.handle(ticket.hint, ticket.lane).await {
        Ok(outcome) => outcome == Outcome::PutBack,
        Err(e) if e.kind == ErrorKind::Unavailable => {
            tracing::warn!(error = %e, "the hint goes back");
            true
        }
        Err(e) => {
            tracing::error!(error = %e, "the handler failed");
            false
        }
    };
    if put_back {
        if let Err(e) = ticket.put_back().await {
            tracing::debug!(error = %e, "the hint is left to the reconciler");
        }
        shutdown.run_until_cancelled(sleep(AFTER_PUT_BACK)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the span is the trace layer's, and panics are caught by the layer inside")]
fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(work)
}

type MakeSpan = fn(&Task<Ticket>) -> Span;

/// A span a hint; the trace that the run's row carries is joined when the run is claimed.
fn tracing_layer() -> TraceLayer<MakeSpan, Quiet, (), DefaultOnFailure> {
    let span: MakeSpan = |task| tracing::info_span!("hint", lane = task.args.lane.as_str(), run_id = %task.args.hint.run_id);
    TraceLayer::new().make_span_with(span).on_request(Quiet).on_response(())
}

#[derive(Clone, Copy)]
struct Quiet;

impl<Args> OnRequest<Args> for Quiet {
    fn on_request(&mut self, _: &Task<Args>, _: &Span) {}
}
