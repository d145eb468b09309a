//! The storage that comes with apalis-redis: the baseline, measured again with each new version of it.
use std::time::{Duration, Instant};

use anyhow::Result;
use apalis::prelude::{BackendExt, ParallelizeExt, TaskSink, WorkerBuilder, WorkerBuilderExt, WorkerError};
use apalis_redis::{Config, RedisStorage};
use async_trait::async_trait;
use futures::FutureExt;
use runmill_shared::domain::new_id;
use runmill_testkit::services::RedisServer;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{BASELINE, PERMITS, Size, Way, spawn};

/// Batches as its own tests have them; its default of 10 is slower.
const BATCH: usize = 100;
const POLL: Duration = Duration::from_millis(100);
/// How long the checks of its limits watch a worker.
const WATCH: Duration = Duration::from_secs(3);

pub struct Stock(RedisStorage<String>);

impl Stock {
    pub async fn connect(url: &str, queue: &str) -> Result<Self> {
        let connection = apalis_redis::connect(url).await?;
        Ok(Self(RedisStorage::new(connection).with_config(Config::default().queue(queue).batch_size(BATCH))))
    }

    /// The worker of its README, which is woken by its own work only.
    fn start_unpolled(&self, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>> {
        let worker = WorkerBuilder::new("unpolled").backend(self.0.clone()).parallelize(spawn).build(tell(started));
        let run = worker.run_until(stopped(stop)).boxed();
        spawn(async move { Ok(run.await?) })
    }

    fn start_named(&self, name: &str, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>> {
        let storage = self.0.clone().poll_with_interval(POLL);
        let worker = WorkerBuilder::new(name).backend(storage).concurrency(PERMITS).parallelize(spawn).build(tell(started));
        let run = worker.run_until(stopped(stop)).boxed();
        spawn(async move { Ok(run.await?) })
    }
}

#[async_trait]
impl Way for Stock {
    fn name(&self) -> &'static str {
        BASELINE
    }

    fn size(&self) -> Size {
        Size { queued: 5_000, steady: 1_000, latencies: 40, pause: POLL }
    }

    async fn push(&mut self, n: usize) -> Result<()> {
        let jobs: Vec<_> = (0..n).map(|_| new_id().to_string()).collect();
        for chunk in jobs.chunks(500) {
            self.0.push_bulk(chunk.to_vec()).await?;
        }
        Ok(())
    }

    fn start(&self, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>> {
        self.start_named("bench", started, stop)
    }
}

fn tell(started: UnboundedSender<Instant>) -> impl FnMut(String) -> std::future::Ready<()> + Clone {
    move |_job| {
        // The measuring side may be gone already when the last jobs run.
        let _ = started.send(Instant::now());
        std::future::ready(())
    }
}

async fn stopped(stop: CancellationToken) -> Result<(), WorkerError> {
    stop.cancelled().await;
    Ok(())
}

/// What a table of rates does not show, as it happens in this run.
pub async fn print_limits(server: &RedisServer) -> Result<()> {
    println!("\nstock apalis-redis, its limits:");
    let mut stock = Stock::connect(&server.url(), "unpolled").await?;
    let (sender, mut started) = unbounded_channel();
    let stop = CancellationToken::new();
    let _worker = stock.start_unpolled(sender, stop.clone());
    stock.push(1).await?;
    count(&mut started, 1).await;
    sleep(POLL * 5).await;
    stock.push(1).await?;
    let picked = count(&mut started, 1).await;
    println!("- no polling: {picked} of 1 job pushed to an idle worker started within {WATCH:?}");
    stop.cancel();

    for due in [7_000, 8_000] {
        server.command(&["FLUSHALL"]).await?;
        let mut stock = Stock::connect(&server.url(), "due").await?;
        stock.push(due).await?;
        for name in ["first", "second", "first"] {
            let handled = print_attempt(&stock, name, due).await?;
            if handled == due {
                break;
            }
        }
    }
    Ok(())
}

async fn print_attempt(stock: &Stock, name: &str, due: usize) -> Result<usize> {
    let (sender, mut started) = unbounded_channel();
    let stop = CancellationToken::new();
    let worker = stock.start_named(name, sender, stop.clone());
    let handled = count(&mut started, due).await;
    stop.cancel();
    let end = match timeout(WATCH, worker).await {
        Ok(end) => end?.map_or_else(|e| format!("it ended with: {e:#}"), |()| "it ended when told to".to_owned()),
        Err(_) => "it did not end when told to".to_owned(),
    };
    println!("- {due} jobs due: worker `{name}` started {handled}; {end}");
    Ok(handled)
}

/// How many handlers start until it is `n`, the worker ends, or nothing comes any more.
async fn count(started: &mut UnboundedReceiver<Instant>, n: usize) -> usize {
    let mut seen = 0;
    while seen < n && timeout(WATCH, started.recv()).await.is_ok_and(|at| at.is_some()) {
        seen += 1;
    }
    seen
}
