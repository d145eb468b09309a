//! The same work on Runmill and on what people would pick in its place: one run is one agent turn on a fake model. Each peer takes its turn
//! in each round, alone on the machine with the load generator and the model; figures are medians of the rounds.
pub mod apalis;
mod figures;
mod kills;
mod model;
mod peer;
mod program;
mod rows;
mod store;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use runmill_testkit::model_server::ModelServer;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use self::{figures::Table, model::Tally, peer::Peer};
use crate::system::Services;

/// Of one peer's turn, and of its kills.
const TURN_LIMIT: Duration = Duration::from_secs(300);
const KILLS_LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args, Clone)]
pub struct Args {
    /// Which to compare; all of them without it
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// What to measure; everything without it. Start-up and memory at rest are always measured
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Phase>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of each peer's worker
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Seconds after a kill; a run that has not ended by then counts as lost
    #[arg(long, default_value_t = 75)]
    bound: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    First,
    Finish,
    Crowd,
    Accept,
    Recovery,
}

/// What all peers share.
pub struct World {
    services: Services,
    model: ModelServer,
    tally: Tally,
}

pub async fn run(mut args: Args) -> Result<()> {
    if args.peers.is_empty() {
        args.peers = Peer::ALL.to_vec();
    }
    if args.rows.is_empty() {
        args.rows = Phase::value_variants().to_vec();
    }
    let services = Services::start().await?;
    let (model, tally) = model::start().await?;
    let world = World { services, model, tally };
    header(&args, &world)?;
    let mut table = Table::default();
    args.peers.retain(|peer| match peer.missing() {
        Some(why) => {
            table.failures.push((*peer, why));
            false
        }
        None => true,
    });
    let mut asked_to_end = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = compare(&world, &args, &mut table) => outcome?,
        // What was started ends with what is dropped here.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = asked_to_end.recv() => anyhow::bail!("told to end"),
    }
    table.print();
    Ok(())
}

async fn compare(world: &World, args: &Args, table: &mut Table) -> Result<()> {
    let turns = args.rows.iter().any(|phase| *phase != Phase::Recovery);
    for round in 0..if turns { args.rounds } else { 0 } {
        for peer in args.peers.iter().copied() {
            let begin = Instant::now();
            let turn = timeout(TURN_LIMIT, rows::turn(world, peer, round, &args.rows)).await;
            note(table, peer, turn.unwrap_or_else(|_| Err(anyhow::anyhow!("its turn took longer than {TURN_LIMIT:?}"))));
            eprintln!("round {}, {}: {:.0} s", round + 1, peer.name(), begin.elapsed().as_secs_f64());
        }
    }
    if args.rows.contains(&Phase::Recovery) {
        for peer in args.peers.iter().copied() {
            let begin = Instant::now();
            let kills = kills::measure(world, peer, args.kills, Duration::from_secs(args.bound));
            let kills = timeout(KILLS_LIMIT, kills).await;
            note(table, peer, kills.unwrap_or_else(|_| Err(anyhow::anyhow!("its kills took longer than {KILLS_LIMIT:?}"))));
            eprintln!("{} kills, {}: {:.0} s", args.kills, peer.name(), begin.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// A peer that fails is told, and the others go on.
fn note(table: &mut Table, peer: Peer, outcome: Result<figures::Figures>) {
    match outcome {
        Ok(figures) => table.peers.entry(peer).or_default().merge(figures),
        Err(e) => {
            eprintln!("{}: {e:#}", peer.name());
            table.failures.push((peer, format!("{e:#}").lines().next().unwrap_or_default().to_owned()));
        }
    }
}

fn header(args: &Args, world: &World) -> Result<()> {
    let profile = if cfg!(debug_assertions) { "DEV PROFILE: figures of Runmill and apalis are worthless" } else { "release" };
    let cores = std::thread::available_parallelism()?;
    println!("{cores} processors, {profile}, {}; rounds: {}; kills: {}", world.services.durability, args.rounds, args.kills);
    println!("A run is lost when it has not ended {} s after the kill.", args.bound);
    Ok(())
}
