//! Streams at full speed: how much of what models say is appended, and delivered to those who follow.
use std::{net::SocketAddr, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    floor::Floor,
    http::Connection,
    process::{cpu, share},
    system::{Services, System, events},
    table::{self, percent, rate, ratio},
};

const RUNS: usize = 64;
const WORDS: usize = 2000;
const LATER: &str = r#"{"runAt":"2100-01-01T00:00:00Z"}"#;

pub async fn run(services: &Services) -> Result<()> {
    let mut rows = Vec::new();
    let floor = floor(&mut rows, "floor: commits of one row on SQLite", Floor::sqlite().await?).await?;
    for readers in [1, 10] {
        measure(&mut rows, "embedded", &System::embedded(&[]).await?, readers, floor).await?;
    }
    let base = Floor::postgres(services).await?;
    let floor = self::floor(&mut rows, "floor: commits of one row on Postgres", base).await?;
    for readers in [1, 10] {
        measure(&mut rows, "api and worker", &System::distributed(services, 1, &[]).await?, readers, floor).await?;
    }
    let header = [
        "",
        "readers a run",
        "words a second",
        "of floor",
        "events appended",
        "delivered",
        "words an event",
        "readers",
        "runmill",
    ];
    let title = format!(
        "events: {RUNS} runs of {WORDS} words at once, followed from before they start; a second, shares of all processors"
    );
    table::print(&title, &header, &rows);
    Ok(())
}

async fn floor(rows: &mut Vec<Vec<String>>, name: &str, floor: Floor) -> Result<f64> {
    let load = floor.commits(16, std::time::Duration::from_secs(2)).await?;
    let mut cells = vec![name.to_owned(), String::new(), rate(load.rate), ratio(1.0, 1.0)];
    cells.resize(9, String::new());
    rows.push(cells);
    Ok(load.rate)
}

async fn measure(rows: &mut Vec<Vec<String>>, name: &str, system: &System, readers: usize, floor: f64) -> Result<()> {
    for n in 0..RUNS {
        system.accept(&format!("t{n}"), &format!("later{n}"), "hello", LATER).await?;
    }
    let following = Arc::new(Barrier::new(RUNS * readers + 1));
    let mut tasks = JoinSet::new();
    for n in 0..RUNS * readers {
        tasks.spawn(follow(system.address, n % RUNS, following.clone()));
    }
    following.wait().await;
    let (generator, server, start) = (cpu(std::process::id())?, system.cpu()?, Instant::now());
    for n in 0..RUNS {
        system.accept(&format!("t{n}"), &format!("r{n}"), &format!("/say {WORDS} words"), "{}").await?;
    }
    let mut delivered = 0;
    while let Some(events) = tasks.join_next().await {
        delivered += events??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (words, appended) = ((RUNS * WORDS) as f64, delivered as f64 / readers as f64);
    rows.push(vec![
        name.to_owned(),
        readers.to_string(),
        rate(words / seconds),
        ratio(words / seconds, floor),
        rate(appended / seconds),
        rate(delivered as f64 / seconds),
        format!("{:.1}", words / appended),
        percent(share(cpu(std::process::id())? - generator, seconds)),
        percent(share(system.cpu()? - server, seconds)),
    ]);
    Ok(())
}

#[derive(Deserialize)]
struct Envelope {
    data: Delta,
}

#[derive(Deserialize)]
struct Delta {
    delta: String,
}

/// Reads until the run has finished, checks that every event and every word came, and answers how many events there were.
async fn follow(address: SocketAddr, thread: usize, following: Arc<Barrier>) -> Result<usize> {
    let mut stream = Connection::open(address).await?.follow(&events(&format!("t{thread}"))).await?.context("a stream")?;
    ensure!(stream.next().await?.context("an event")?.id == 1, "the first event is not the first");
    following.wait().await;
    let (mut last, mut words) = (1, 0);
    while let Some(frame) = stream.next().await? {
        ensure!(frame.id == last + 1, "event {} came after {last}", frame.id);
        last = frame.id;
        match frame.kind {
            "text.delta" => words += serde_json::from_str::<Envelope>(frame.data)?.data.delta.matches("word-").count(),
            "run.finished" => {
                ensure!(words == WORDS, "{words} of {WORDS} words came");
                return Ok(usize::try_from(last)? - 1);
            }
            _ => {}
        }
    }
    anyhow::bail!("a stream ended before its run")
}
