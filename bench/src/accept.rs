//! From `POST /runs` to its answer. Every run begins a thread of its own: the dearest kind.
use std::time::Duration;

use anyhow::Result;

use crate::{
    floor::Floor,
    http::get,
    load::{Load, closed},
    process::share,
    system::{Services, System, start_run},
    table::{self, ms, percent, rate, ratio},
};

const CLIENTS: [usize; 3] = [1, 16, 64];
const TIME: Duration = Duration::from_secs(3);
/// Answered by the offline model.
pub const MESSAGE: &str = "/say 20 words";
/// Holds the only slot of a worker for as long as anybody measures.
const BLOCKER: &str = "/say 1000 words\\n/slow 60000 ms";

type Rows = Vec<Vec<String>>;

pub async fn run(services: &Services) -> Result<()> {
    let header = ["", "clients", "a second", "of floor", "p50", "p99", "p50 of floor", "load generator", "runmill"];
    let title = |on| format!("accept: POST /runs on {on}; the shares are of all processors");
    table::print(&title("SQLite"), &header, &embedded().await?);
    table::print(&title("Postgres and Redis"), &header, &distributed(services).await?);
    Ok(())
}

async fn embedded() -> Result<Rows> {
    let mut rows = Rows::new();
    let floor = floor(&mut rows, "floor: poem, one INSERT and COMMIT", Floor::sqlite().await?).await?;
    {
        let system = System::embedded(&[("RUNMILL_LANES__RUNS", "1")]).await?;
        system.accept("blocker", "blocker", BLOCKER, "{}").await?;
        health(&mut rows, &system).await?;
        accepts(&mut rows, "embedded, nothing else going on", &system, &floor).await?;
    }
    let system = System::embedded(&[]).await?;
    accepts(&mut rows, "embedded, executing the runs meanwhile", &system, &floor).await?;
    Ok(rows)
}

async fn distributed(services: &Services) -> Result<Rows> {
    let mut rows = Rows::new();
    let floor = floor(&mut rows, "floor: poem, one INSERT and COMMIT", Floor::postgres(services).await?).await?;
    let system = System::distributed(services, 0, &[]).await?;
    accepts(&mut rows, "api, no worker", &system, &floor).await?;
    drop(system);
    let system = System::distributed(services, 1, &[]).await?;
    accepts(&mut rows, "api, a worker executing the runs meanwhile", &system, &floor).await?;
    Ok(rows)
}

async fn floor(rows: &mut Rows, name: &str, floor: Floor) -> Result<Vec<Load>> {
    let mut loads = Vec::new();
    for clients in CLIENTS {
        let load = floor.commits(clients, TIME).await?;
        rows.push(row(name, clients, &load, &load, None));
        loads.push(load);
    }
    Ok(loads)
}

async fn health(rows: &mut Rows, system: &System) -> Result<()> {
    for clients in CLIENTS {
        let load = closed(system.address, clients, TIME / 3, |_, _| get("/health")).await?;
        let mut cells = row("GET /health: HTTP alone", clients, &load, &load, None);
        (cells[3], cells[6]) = (String::new(), String::new());
        rows.push(cells);
    }
    Ok(())
}

async fn accepts(rows: &mut Rows, name: &str, system: &System, floor: &[Load]) -> Result<()> {
    for (clients, base) in CLIENTS.into_iter().zip(floor) {
        let before = system.cpu()?;
        let load = closed(system.address, clients, TIME, move |client, n| {
            let id = format!("{clients}-{client}-{n}");
            start_run(&id, &id, MESSAGE, "{}")
        })
        .await?;
        let server = share(system.cpu()? - before, load.seconds);
        rows.push(row(name, clients, &load, base, Some(server)));
    }
    system.none_failed().await
}

fn row(name: &str, clients: usize, load: &Load, base: &Load, server: Option<f64>) -> Vec<String> {
    vec![
        name.to_owned(),
        clients.to_string(),
        rate(load.rate),
        ratio(load.rate, base.rate),
        ms(load.quantile(0.5)),
        ms(load.quantile(0.99)),
        ratio(load.quantile(0.5), base.quantile(0.5)),
        percent(load.generator),
        server.map(percent).unwrap_or_default(),
    ]
}
