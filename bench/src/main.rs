//! Measurements of the release build, and of design decisions against their alternatives: each in one run with its baseline. All on
//! loopback, in processes and databases of their own.
mod accept;
mod agents;
mod compare;
mod dispatch;
mod events;
mod floor;
mod http;
mod load;
mod pickup;
mod process;
mod readers;
mod runs;
mod system;
mod table;
mod waiting;

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::system::Services;

#[derive(Parser)]
#[command(about = "Runmill's benchmarks, all of them without a command; build with --release, `runmill` too")]
struct Args {
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Subcommand, Clone)]
enum Bench {
    /// POST /runs to its answer: rates and latencies, beside one INSERT and COMMIT behind the same HTTP server (the baseline)
    Accept,
    /// POST /runs to run.started as a reader of the events sees it, beside a Redis message (the baseline)
    Pickup,
    /// Offline runs from the first POST to the last end, beside single commits (the baseline)
    Runs,
    /// Events of streams that are written and read at once, beside single commits (the baseline)
    Events,
    /// Model and tool calls of agents, and 500 agents at once, beside a plain asyncio loop (the baseline)
    Agents,
    /// Memory of 1,000 readers of event streams, beside bare streams of the same HTTP server (the baseline)
    Readers,
    /// Active runs beside ten thousand that wait, and beside none (the baseline)
    Waiting,
    /// Ready hint to running handler: raw Redis, ours on Redis and in memory, stock apalis-redis (the baseline)
    Dispatch,
    /// The same work on Runmill and on what people would pick in its place, in turn; `make compare` installs those first
    Compare(compare::Args),
    /// The front of the stock apalis-redis that is compared with
    #[command(hide = true)]
    ApalisFront(compare::apalis::Args),
    /// Its worker
    #[command(hide = true)]
    ApalisWorker(compare::apalis::Args),
    /// The baseline's server
    #[command(hide = true)]
    Floor {
        #[arg(env = "RUNMILL_OPS_ADDR")]
        listen: SocketAddr,
    },
}

const ALL: [Bench; 8] =
    [Bench::Dispatch, Bench::Accept, Bench::Pickup, Bench::Runs, Bench::Events, Bench::Agents, Bench::Waiting, Bench::Readers];

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().bench {
        Some(Bench::Floor { listen }) => floor::serve(listen).await,
        Some(Bench::Compare(args)) => compare::run(args).await,
        Some(Bench::ApalisFront(args)) => compare::apalis::front(args).await,
        Some(Bench::ApalisWorker(args)) => compare::apalis::worker(args).await,
        Some(bench) => measure(&[bench]).await,
        None => measure(&ALL).await,
    }
}

async fn measure(all: &[Bench]) -> Result<()> {
    let services = Services::start().await?;
    let cores = std::thread::available_parallelism()?;
    let profile = if cfg!(debug_assertions) { "dev profile: build with --release for figures to keep" } else { "release" };
    println!("{cores} processors, {profile}, {}, SQLite synchronous FULL", services.durability);
    for bench in all {
        match bench {
            Bench::Accept => accept::run(&services).await?,
            Bench::Pickup => pickup::run(&services).await?,
            Bench::Runs => runs::run(&services).await?,
            Bench::Events => events::run(&services).await?,
            Bench::Agents => agents::run(&services).await?,
            Bench::Readers => readers::run(&services).await?,
            Bench::Waiting => waiting::run(&services).await?,
            Bench::Dispatch => dispatch::run().await?,
            Bench::Compare(_) | Bench::ApalisFront(_) | Bench::ApalisWorker(_) | Bench::Floor { .. } => {}
        }
    }
    Ok(())
}
