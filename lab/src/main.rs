//! The laboratory: `chaos` breaks a whole installation by a plan that follows from a seed, and then checks everything that it has
//! promised, against the whole history.

mod chaos;
mod check;
mod clock;
mod evidence;
mod faults;
mod history;
mod load;
mod model;
mod moves;
mod plan;
mod proxy;
mod report;
mod world;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "runmill-lab", about = "Breaks Runmill, and checks what it promises")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Postgres, Redis, S3, two APIs and four workers under load, broken by a plan that follows from the seed
    Chaos {
        /// how long load is offered
        #[arg(long, default_value_t = 3.0)]
        minutes: f64,
        /// the first campaign's; drawn when left out
        #[arg(long)]
        seed: Option<u64>,
        /// campaigns, one after another, each with the next seed
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        campaigns: u64,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Command::Chaos { minutes, seed, campaigns } = Arguments::parse().command;
    let first = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let all = async {
        let mut clean = 0;
        for seed in first..first + campaigns {
            clean += u64::from(chaos::campaign(seed, Duration::from_secs_f64(minutes * 60.0)).await?);
        }
        println!("{clean} of {campaigns} campaigns were clean");
        Ok(if clean == campaigns { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    let mut terminated = signal(SignalKind::terminate())?;
    // Broken off, a campaign still ends what it has started.
    tokio::select! {
        outcome = all => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}
