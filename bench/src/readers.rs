//! What 1,000 readers of event streams cost the API process, idle and active, and that each gets everything.
use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::{
    floor::Floor,
    http::{Connection, Events},
    process::{cpu, memory, share},
    system::{Services, System, events},
    table::{self, percent, rate, ratio},
};

const READERS: usize = 1000;
/// Active readers share threads: as many as the runs that a worker executes at once.
const THREADS: usize = 50;
const MESSAGE: &str = "/say 400 words\\n/slow 10 ms";
const LATER: &str = r#"{"runAt":"2100-01-01T00:00:00Z"}"#;

pub async fn run(services: &Services) -> Result<()> {
    let base = bare().await?;
    let mut rows = vec![row("floor: streams of poem that say one thing", base, base)];
    rows.push(row("idle, a thread each", idle(services).await?, base));
    let active = active(services).await?;
    rows.push(row(&format!("active, {THREADS} streaming runs"), active.bytes, base));
    let header = ["", "bytes a reader", "of floor"];
    table::print(&format!("readers: resident memory of one API process for {READERS} readers"), &header, &rows);
    println!(
        "\nactive: {} events delivered in {:.1} s, {} a second, without a hole or a duplicate at any reader;\n\
         the API took {} of all processors, the readers {}",
        active.delivered,
        active.seconds,
        rate(active.delivered as f64 / active.seconds),
        percent(active.api),
        percent(active.generator),
    );
    Ok(())
}

fn row(name: &str, bytes: f64, base: f64) -> Vec<String> {
    vec![name.to_owned(), rate(bytes), ratio(bytes, base)]
}

/// Opens a stream for each path and reads its first event.
async fn open(address: SocketAddr, paths: impl Iterator<Item = String>) -> Result<Vec<Events>> {
    let mut streams = Vec::new();
    for path in paths {
        let mut stream = Connection::open(address).await?.follow(&path).await?.context("a stream")?;
        ensure!(stream.next().await?.context("an event")?.id == 1, "the first event is not the first");
        streams.push(stream);
    }
    Ok(streams)
}

fn each(bytes: u64) -> f64 {
    bytes as f64 / READERS as f64
}

async fn bare() -> Result<f64> {
    let floor = Floor::sqlite().await?;
    let before = memory(floor.pid()?)?.now;
    let _streams = open(floor.address, (0..READERS).map(|_| "/sse".to_owned())).await?;
    Ok(each(memory(floor.pid()?)?.now - before))
}

async fn idle(services: &Services) -> Result<f64> {
    let system = System::distributed(services, 0, &[]).await?;
    for n in 0..READERS {
        system.accept(&format!("t{n}"), &format!("r{n}"), "hello", LATER).await?;
    }
    let before = memory(system.api()?)?.now;
    let _streams = open(system.address, (0..READERS).map(|n| events(&format!("t{n}")))).await?;
    Ok(each(memory(system.api()?)?.now.saturating_sub(before)))
}

struct Active {
    bytes: f64,
    delivered: usize,
    seconds: f64,
    api: f64,
    generator: f64,
}

async fn active(services: &Services) -> Result<Active> {
    let system = System::distributed(services, 1, &[("RUNMILL_LANES__RUNS", &THREADS.to_string())]).await?;
    // A delayed run makes each thread known, and keeps its streams open, before the run that streams is accepted.
    for n in 0..THREADS {
        system.accept(&format!("t{n}"), &format!("later{n}"), "hello", LATER).await?;
    }
    let before = memory(system.api()?)?.now;
    let streams = open(system.address, (0..READERS).map(|n| events(&format!("t{}", n % THREADS)))).await?;
    let (api, generator, start) = (cpu(system.api()?)?, cpu(std::process::id())?, Instant::now());
    let mut readers = JoinSet::new();
    for stream in streams {
        readers.spawn(read_all(stream));
    }
    for n in 0..THREADS {
        system.accept(&format!("t{n}"), &format!("r{n}"), MESSAGE, "{}").await?;
    }
    let mut delivered = 0;
    while let Some(reader) = readers.join_next().await {
        delivered += reader??;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Active {
        bytes: each(memory(system.api()?)?.peak.saturating_sub(before)),
        delivered,
        seconds,
        api: share(cpu(system.api()?)? - api, seconds),
        generator: share(cpu(std::process::id())? - generator, seconds),
    })
}

/// Until the run has finished; answers how many events came after the first.
async fn read_all(mut stream: Events) -> Result<usize> {
    let mut last = 1;
    while let Some(frame) = stream.next().await? {
        ensure!(frame.id == last + 1, "event {} came after {last}", frame.id);
        last = frame.id;
        if frame.kind == "run.finished" {
            return Ok(usize::try_from(last)? - 1);
        }
    }
    anyhow::bail!("a stream ended before its run")
}
