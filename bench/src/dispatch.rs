//! From a ready hint to a running handler that does nothing. Each way takes its turn in each round, on one Redis of the benchmark's own;
//! rates are medians of the rounds, latencies are quantiles over all rounds. Takes under a minute.
mod ours;
mod raw;
mod stock;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use runmill_testkit::services::RedisServer;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
/// As the lane `runs` has by default.
const PERMITS: usize = 64;
const LIMIT: Duration = Duration::from_secs(15);
const BASELINE: &str = "stock apalis-redis, polling every 100 ms";

/// A way of dispatching. Handlers tell when they start.
#[async_trait]
trait Way: Send {
    fn name(&self) -> &'static str;
    /// How much of each a round measures: it must end in seconds, and the stock storage cannot take more than this.
    fn size(&self) -> Size;
    /// Puts `n` jobs in the queue, all due.
    async fn push(&mut self, n: usize) -> Result<()>;
    fn start(&self, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>>;
}

#[derive(Clone, Copy)]
struct Size {
    queued: usize,
    steady: usize,
    latencies: usize,
    /// Longest pause before a push that is timed, so that it meets an idle worker, at any moment of its polling.
    pause: Duration,
}

/// Jobs a second, and seconds from the push to the handler's start.
#[derive(Default)]
struct Figures {
    queued: Vec<f64>,
    steady: Vec<f64>,
    pickup: Vec<f64>,
}

pub async fn run() -> Result<()> {
    let server = RedisServer::start().await?;
    let mut rows: Vec<(&str, Figures)> = Vec::new();
    for round in 0..ROUNDS {
        let prefix = format!("bench{round}");
        let ways: [Box<dyn Way>; 4] = [
            Box::new(raw::Raw::connect(&server.url(), &prefix).await?),
            Box::new(ours::Ours::redis(&server.url(), &prefix).await?),
            Box::new(stock::Stock::connect(&server.url(), &prefix).await?),
            Box::new(ours::Ours::memory().await?),
        ];
        for (place, mut way) in ways.into_iter().enumerate() {
            if rows.len() == place {
                rows.push((way.name(), Figures::default()));
            }
            measure(&mut *way, &mut rows[place].1).await.with_context(|| format!("measuring {}", way.name()))?;
            server.command(&["FLUSHALL"]).await?;
        }
    }
    print(&rows);
    stock::print_limits(&server).await
}

async fn measure(way: &mut dyn Way, figures: &mut Figures) -> Result<()> {
    let size = way.size();
    let (sender, mut started) = unbounded_channel();
    let stop = CancellationToken::new();
    way.push(size.queued).await?;

    let start = Instant::now();
    let worker = way.start(sender, stop.clone());
    let last = wait_for(&mut started, size.queued).await?;
    figures.queued.push(size.queued as f64 / (last - start).as_secs_f64());

    let start = Instant::now();
    for _ in 0..size.steady {
        way.push(1).await?;
    }
    let last = wait_for(&mut started, size.steady).await?;
    figures.steady.push(size.steady as f64 / (last - start).as_secs_f64());

    for n in 0..size.latencies {
        sleep(Duration::from_millis(5) + size.pause.mul_f64(n as f64 / size.latencies as f64)).await;
        let start = Instant::now();
        way.push(1).await?;
        figures.pickup.push((wait_for(&mut started, 1).await? - start).as_secs_f64());
    }
    stop.cancel();
    timeout(LIMIT, worker).await.context("the worker did not stop")??
}

/// When the last of `n` handlers started.
async fn wait_for(started: &mut UnboundedReceiver<Instant>, n: usize) -> Result<Instant> {
    let mut last = Instant::now();
    for seen in 0..n {
        let next = timeout(LIMIT, started.recv()).await.with_context(|| format!("only {seen} of {n} handlers started"))?;
        last = next.context("the worker ended")?;
    }
    Ok(last)
}

fn print(rows: &[(&str, Figures)]) {
    let profile = if cfg!(debug_assertions) { "dev profile: build with --release for figures to keep" } else { "release" };
    println!("dispatch: {ROUNDS} rounds, {PERMITS} permits, {profile}\n");
    println!("{:<42}{:>18}{:>18}{:>20}{:>20}", "", "queued jobs/s", "one by one/s", "pickup p50", "pickup p99");
    let Some((_, base)) = rows.iter().find(|(name, _)| *name == BASELINE) else { return };
    for (name, figures) in rows {
        let rate = |of: fn(&Figures) -> &Vec<f64>| {
            let (own, stock) = (quantile(of(figures), 0.5), quantile(of(base), 0.5));
            format!("{own:>9.0} {:>6.2}x", own / stock)
        };
        let pickup = |q| {
            let (own, stock) = (quantile(&figures.pickup, q), quantile(&base.pickup, q));
            format!("{:>8.3} ms {:>6.4}x", own * 1e3, own / stock)
        };
        let (queued, steady) = (rate(|f| &f.queued), rate(|f| &f.steady));
        println!("{name:<42}{queued:>18}{steady:>18}{:>20}{:>20}", pickup(0.5), pickup(0.99));
    }
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::disallowed_methods, reason = "nothing here has a span to keep, and each way hands its task's end to `measure`")]
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(work)
}
