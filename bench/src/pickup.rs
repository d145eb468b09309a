//! From `POST /runs` to `run.started` as a reader of the thread's events sees it, one run at a time on an idle system.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    http::{Connection, Events},
    load::quantile,
    system::{Services, System, events, start_run},
    table::{self, ms, ratio},
};

const RUNS: usize = 300;
const LIMIT: Duration = Duration::from_secs(10);
/// A run that never comes due: as long as it waits the reader's stream stays open.
const LATER: &str = r#"{"runAt":"2100-01-01T00:00:00Z"}"#;

/// Seconds, sorted: from the request's first byte, and from the answer.
struct Figures {
    request: Vec<f64>,
    answer: Vec<f64>,
}

pub async fn run(services: &Services) -> Result<()> {
    let redis = messages(services).await?;
    let base = quantile(&redis, 0.5);
    let mut rows = vec![vec![
        "floor: Redis PUBLISH to its subscriber".to_owned(),
        ms(base),
        ms(quantile(&redis, 0.99)),
        "1.00x".to_owned(),
        String::new(),
        String::new(),
    ]];
    let embedded = measure(&System::embedded(&[]).await?).await?;
    let distributed = measure(&System::distributed(services, 1, &[]).await?).await?;
    for (name, figures) in [("embedded", embedded), ("api and worker on Postgres and Redis", distributed)] {
        let p50 = quantile(&figures.answer, 0.5);
        rows.push(vec![
            name.to_owned(),
            ms(p50),
            ms(quantile(&figures.answer, 0.99)),
            ratio(p50, base),
            ms(quantile(&figures.request, 0.5)),
            ms(quantile(&figures.request, 0.99)),
        ]);
    }
    let header = ["", "p50 from answer", "p99", "of floor", "p50 from request", "p99"];
    table::print(&format!("pickup: accepted to run.started at a reader, {RUNS} runs one by one"), &header, &rows);
    Ok(())
}

async fn messages(services: &Services) -> Result<Vec<f64>> {
    let client = redis::Client::open(services.redis.url())?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe("bench").await?;
    let mut publisher = client.get_multiplexed_async_connection().await?;
    let mut messages = subscriber.on_message();
    let mut times = Vec::new();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("bench").arg("x");
    for _ in 0..RUNS {
        sleep(Duration::from_millis(2)).await;
        let start = Instant::now();
        let (sent, _) = tokio::join!(publish.exec_async(&mut publisher), messages.next());
        sent?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// When a reader saw an event of that kind.
type Seen = (&'static str, Instant);

async fn measure(system: &System) -> Result<Figures> {
    system.accept("pickup", "later", "hello", LATER).await?;
    let stream = Connection::open(system.address).await?.follow(&events("pickup")).await?.context("a stream")?;
    let (sender, mut seen) = unbounded_channel();
    let mut reader = JoinSet::new();
    reader.spawn(read(stream, sender));
    let mut connection = Connection::open(system.address).await?;
    let mut figures = Figures { request: Vec::new(), answer: Vec::new() };
    for n in 0..RUNS {
        // Every phase of whatever ticks in there.
        sleep(Duration::from_millis(2 + n as u64 % 25)).await;
        let request = start_run("pickup", &format!("r{n}"), "/say 1 words", "{}");
        let start = Instant::now();
        connection.send(&request).await?;
        let answered = Instant::now();
        let started = until(&mut seen, STARTED).await?;
        figures.request.push((started - start).as_secs_f64());
        // A reader can be faster than the one who asked.
        figures.answer.push(started.saturating_duration_since(answered).as_secs_f64());
        until(&mut seen, FINISHED).await?;
    }
    figures.request.sort_by(f64::total_cmp);
    figures.answer.sort_by(f64::total_cmp);
    Ok(figures)
}

const STARTED: &str = "run.started";
const FINISHED: &str = "run.finished";

async fn read(mut stream: Events, seen: UnboundedSender<Seen>) -> Result<()> {
    while let Some(frame) = stream.next().await? {
        if let Some(kind) = [STARTED, FINISHED].into_iter().find(|kind| *kind == frame.kind) {
            seen.send((kind, Instant::now())).ok();
        }
    }
    Ok(())
}

async fn until(seen: &mut UnboundedReceiver<Seen>, kind: &str) -> Result<Instant> {
    let next = timeout(LIMIT, seen.recv()).await.with_context(|| format!("no {kind} within {LIMIT:?}"))?;
    let (was, at) = next.context("the stream has ended")?;
    anyhow::ensure!(was == kind, "{was} came before {kind}");
    Ok(at)
}
