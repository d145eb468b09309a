//! Whole offline runs: many are accepted at once, and the clock stops when all have ended.
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    accept::MESSAGE,
    floor::Floor,
    http::Connection,
    process::{cpu, share},
    system::{Services, System, start_run},
    table::{self, percent, rate, ratio},
};

const RUNS: usize = 3000;
const CLIENTS: usize = 16;
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

pub async fn run(services: &Services) -> Result<()> {
    let mut rows = Vec::new();
    let floor = floor(&mut rows, "floor: commits of one row on SQLite", Floor::sqlite().await?).await?;
    measure(&mut rows, "embedded", &System::embedded(&[]).await?, floor).await?;
    let base = Floor::postgres(services).await?;
    let floor = self::floor(&mut rows, "floor: commits of one row on Postgres", base).await?;
    for workers in [1, 2] {
        let name = format!("api and {workers} worker{}", if workers == 1 { "" } else { "s" });
        measure(&mut rows, &name, &System::distributed(services, workers, &[]).await?, floor).await?;
    }
    let title = format!("runs: {RUNS} runs of {MESSAGE:?}, a thread each, {CLIENTS} clients; until the last has ended");
    let header = ["", "accepted a second", "finished a second", "of floor", "load generator", "runmill"];
    table::print(&title, &header, &rows);
    Ok(())
}

async fn floor(rows: &mut Vec<Vec<String>>, name: &str, floor: Floor) -> Result<f64> {
    let load = floor.commits(CLIENTS, Duration::from_secs(2)).await?;
    let cells = [name.to_owned(), String::new(), rate(load.rate), ratio(1.0, 1.0), percent(load.generator), String::new()];
    rows.push(cells.into());
    Ok(load.rate)
}

async fn measure(rows: &mut Vec<Vec<String>>, name: &str, system: &System, floor: f64) -> Result<()> {
    let (generator, server) = (cpu(std::process::id())?, system.cpu()?);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(accept(system.address, client));
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let accepted = start.elapsed().as_secs_f64();
    let mut connection = Connection::open(system.address).await?;
    for state in ["queued", "running"] {
        while system.has(&mut connection, state).await? {
            ensure!(start.elapsed() < LIMIT, "{name}: runs were still {state} after {LIMIT:?}");
            sleep(LOOK).await;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    system.none_failed().await?;
    let finished = RUNS as f64 / seconds;
    rows.push(vec![
        name.to_owned(),
        rate(RUNS as f64 / accepted),
        rate(finished),
        ratio(finished, floor),
        percent(share(cpu(std::process::id())? - generator, seconds)),
        percent(share(system.cpu()? - server, seconds)),
    ]);
    Ok(())
}

async fn accept(address: SocketAddr, client: usize) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    for n in (client..RUNS).step_by(CLIENTS) {
        connection.send(&start_run(&format!("t{n}"), &format!("r{n}"), MESSAGE, "{}")).await?;
    }
    Ok(())
}
