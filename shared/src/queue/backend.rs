//! A lane as an apalis `Backend`. A fetch loop takes permits first and then at most as many hints, so that a hint never waits in a
//! process that is busy. While the queue is away it reads ready rows instead. Its stream never ends for an error.
use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    layers::Identity,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use async_trait::async_trait;
use futures::task::AtomicWaker;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Consumer, Hint, Queue};
use crate::{Error, Result, domain::Lane};

/// How often ready rows are read while the queue is away, and how often a database that is unwell is looked at.
const POLL: Duration = Duration::from_millis(200);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// What the fetch loop asks of the database.
#[async_trait]
pub trait ReadyRows: Send + Sync {
    /// Ready, queued rows of a lane in order, for when the queue is away.
    async fn ready(&self, lane: Lane, limit: usize) -> Result<Vec<Hint>>;
    /// False: the database is unwell, stop fetching.
    fn healthy(&self) -> bool;
}

/// A hint on its way to a handler, with the permit that it may run under: dropping the ticket gives the permit back.
pub struct Ticket {
    pub hint: Hint,
    pub lane: Lane,
    queue: Queue,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    /// Gives the hint back to the queue, at its old place, because it could not be tried. The permit stays until the drop.
    pub async fn put_back(&self) -> Result<()> {
        self.queue.push(self.lane, &[self.hint]).await
    }
}

pub struct LaneBackend {
    fetch: Arc<Fetch>,
    running: Option<Running>,
}

impl LaneBackend {
    /// `permits`: how many tickets are out at once. `stop` ends the fetching; tickets that are out are left alone.
    pub fn new(queue: Queue, lane: Lane, permits: usize, fallback: Arc<dyn ReadyRows>, stop: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(permits));
        Self { fetch: Arc::new(Fetch { queue, lane, permits, fallback, stop, tasks: AtomicU64::new(0) }), running: None }
    }
}

impl Clone for LaneBackend {
    /// Shares the permits and has a fetch loop of its own.
    fn clone(&self) -> Self {
        Self { fetch: Arc::clone(&self.fetch), running: None }
    }
}

impl Backend for LaneBackend {
    type Task = Task<Ticket>;
    type Error = Error;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task>>> {
        let running = self.running.get_or_insert_with(|| Running::start(&self.fetch));
        running.fetched.waker.register(cx.waker());
        let mut state = running.fetched.lock();
        if let Some(ticket) = state.tickets.pop_front() {
            // Unique in the process and not the run's id: the same run may come twice.
            let id = TaskId::from_int(self.fetch.tasks.fetch_add(1, Ordering::Relaxed));
            return Poll::Ready(Some(Ok(TaskBuilder::new(ticket).task_id(id).build())));
        }
        match (state.ended, self.fetch.stop.is_cancelled()) {
            (false, _) => Poll::Pending,
            (true, true) => Poll::Ready(None),
            // Only a panic ends it otherwise; the monitor makes a new worker from this error.
            (true, false) => Poll::Ready(Some(Err(Error::internal("the fetch loop of a lane ended")))),
        }
    }

    /// Ends the fetching and waits until what was fetched and not handed out is back in the queue.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<()>> {
        let Some(running) = &self.running else { return Poll::Ready(Ok(())) };
        running.stop.cancel();
        running.fetched.waker.register(cx.waker());
        if running.fetched.lock().ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl BackendConfig for LaneBackend {
    type Args = Ticket;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        Identity::new()
    }
}

/// One fetch loop; dropping it stops it.
struct Running {
    fetched: Arc<Fetched>,
    stop: CancellationToken,
    _on_drop: DropGuard,
}

impl Running {
    fn start(fetch: &Arc<Fetch>) -> Self {
        let stop = fetch.stop.child_token();
        let fetched = Arc::new(Fetched::default());
        let end = End(Arc::clone(&fetched));
        let (fetch, token) = (Arc::clone(fetch), stop.clone());
        spawn(async move {
            fetch.run(&end.0, &token).await;
            fetch.give_back(&end.0).await;
        });
        Self { fetched, _on_drop: stop.clone().drop_guard(), stop }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loop has no request's span to keep, and its end, by panic too, is seen by `End`"
)]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// Tickets between the fetch loop and the worker that polls for them.
#[derive(Default)]
struct Fetched {
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct State {
    tickets: VecDeque<Ticket>,
    ended: bool,
}

impl Fetched {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct End(Arc<Fetched>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.waker.wake();
    }
}

struct Fetch {
    queue: Queue,
    lane: Lane,
    permits: Arc<Semaphore>,
    fallback: Arc<dyn ReadyRows>,
    stop: CancellationToken,
    tasks: AtomicU64,
}

impl Fetch {
    async fn run(&self, fetched: &Fetched, stop: &CancellationToken) {
        let mut consumer = self.queue.consumer(self.lane).await;
        let mut failures = 0;
        while let Some(permits) = stop.run_until_cancelled(self.free_permits()).await {
            match consumer.pop_until(permits.num_permits(), stop.cancelled()).await {
                Ok(hints) => {
                    if failures > 0 {
                        tracing::info!(lane = self.lane.as_str(), "the queue is back");
                    }
                    failures = 0;
                    self.hand_out(hints, permits, fetched);
                }
                Err(e) => {
                    drop(permits);
                    if failures == 0 {
                        tracing::warn!(lane = self.lane.as_str(), error = %e, "the queue is away: reading ready rows instead");
                    }
                    tokio::select! {
                        () = self.reconnect(&mut consumer, &mut failures) => {}
                        () = self.live_on_rows(fetched) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Every permit that is free, at least one, and none while the database is unwell.
    async fn free_permits(&self) -> OwnedSemaphorePermit {
        loop {
            let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX).max(1);
            let taken = match Arc::clone(&self.permits).try_acquire_many_owned(free) {
                Ok(all) => Ok(all),
                Err(_) => Arc::clone(&self.permits).acquire_owned().await,
            };
            match taken {
                Ok(permits) if self.fallback.healthy() => return permits,
                _ => sleep(jittered(POLL)).await,
            }
        }
    }

    /// Backs off, longer after each failure, until the queue answers. A connection alone is no success: `failures` goes down when a
    /// pop succeeds.
    async fn reconnect(&self, consumer: &mut Consumer, failures: &mut u32) {
        loop {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << (*failures).min(16)).min(MAX_BACKOFF);
            *failures = failures.saturating_add(1);
            sleep(jittered(backoff)).await;
            match consumer.reconnect().await {
                Ok(()) => return,
                Err(e) => tracing::debug!(lane = self.lane.as_str(), error = %e, "the queue is still away"),
            }
        }
    }

    async fn live_on_rows(&self, fetched: &Fetched) {
        loop {
            sleep(jittered(POLL)).await;
            let permits = self.free_permits().await;
            match self.fallback.ready(self.lane, permits.num_permits()).await {
                Ok(hints) => self.hand_out(hints, permits, fetched),
                Err(e) => tracing::debug!(lane = self.lane.as_str(), error = %e, "ready rows could not be read"),
            }
        }
    }

    fn hand_out(&self, hints: Vec<Hint>, mut permits: OwnedSemaphorePermit, fetched: &Fetched) {
        if hints.is_empty() {
            return;
        }
        let mut state = fetched.lock();
        for hint in hints {
            let Some(permit) = permits.split(1) else { break };
            state.tickets.push_back(Ticket { hint, lane: self.lane, queue: self.queue.clone(), _permit: permit });
        }
        drop(state);
        fetched.waker.wake();
    }

    /// What was fetched and will not be handed out.
    async fn give_back(&self, fetched: &Fetched) {
        let left = std::mem::take(&mut fetched.lock().tickets);
        let hints: Vec<_> = left.iter().map(|ticket| ticket.hint).collect();
        if let Err(e) = self.queue.push(self.lane, &hints).await {
            tracing::debug!(lane = self.lane.as_str(), error = %e, "hints left to the reconciler");
        }
    }
}

/// Between half of it and all of it.
fn jittered(d: Duration) -> Duration {
    d.mul_f64(rand::random_range(0.5..=1.0))
}
