//! Measurements that hold a design decision up to its alternatives, in one run and with the ratio to a baseline.
mod dispatch;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runmill's benchmarks; build with --release")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Ready hint to running handler: raw Redis, ours on Redis and in memory, stock apalis-redis (the baseline)
    Dispatch,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().bench {
        Bench::Dispatch => dispatch::run().await,
    }
}
