//! `kill -9` of the worker in the middle of runs; it is started again at once, as a supervisor does. Each kill has an installation of its
//! own, so that waiting for one does not disturb another; several take place side by side.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::sleep;

use super::{
    World,
    figures::{Figures, Row},
    model::Shape,
    peer::{Installation, Peer},
};
use crate::load::quantile;

/// Installations at once.
const BESIDE: usize = 10;
/// Of each installation.
const RUNS: usize = 5;
const LOOK: Duration = Duration::from_millis(50);
const BEGIN_LIMIT: Duration = Duration::from_secs(60);
/// Between the first run's last call and the last one's.
const SPREAD: Duration = Duration::from_secs(1);

/// What became of the runs of one kill.
struct Outcome {
    /// Seconds from the kill to the end, of the runs that it interrupted.
    recovered: Vec<f64>,
    lost: usize,
    failed: usize,
}

pub async fn measure(world: &World, peer: Peer, kills: usize, bound: Duration) -> Result<Figures> {
    let (mut recovered, mut interrupted, mut lost, mut failed) = (Vec::new(), 0, 0, 0);
    let mut begun = 0;
    while begun < kills {
        let wave = begun..kills.min(begun + BESIDE);
        begun = wave.end;
        let installations =
            try_join_all(wave.map(async |n| anyhow::Ok((n, ready(world, peer, &format!("kill-{n}-")).await?)))).await?;
        let outcomes = try_join_all(installations.into_iter().map(|(n, installation)| kill(world, installation, n, bound)));
        for outcome in outcomes.await? {
            interrupted += outcome.recovered.len() + outcome.lost;
            lost += outcome.lost;
            failed += outcome.failed;
            recovered.extend(outcome.recovered);
        }
    }
    ensure!(interrupted > 0, "no kill has met a run");
    // What has not ended within the bound took longer than everything that did.
    recovered.extend(std::iter::repeat_n(f64::INFINITY, lost));
    recovered.sort_by(f64::total_cmp);
    let mut figures = Figures::default();
    figures.put(Row::RecoveryP50, quantile(&recovered, 0.5));
    figures.put(Row::RecoveryP99, quantile(&recovered, 0.99));
    figures.put(Row::Interrupted, interrupted as f64);
    figures.put(Row::Lost, (lost + failed) as f64);
    figures.put(Row::Doubled, world.tally.doubled("kill-") as f64);
    let (begun, finished) = world.tally.calls("kill-");
    figures.put(Row::AskedAgain, begun.saturating_sub(finished) as f64);
    world.tally.forget();
    Ok(figures)
}

/// An installation that has ended a run.
async fn ready(world: &World, peer: Peer, name: &str) -> Result<Installation> {
    let mut installation = Installation::start(peer, &world.services, &world.model.base_url()).await?;
    installation.accept(Shape::Quick, &format!("{name}first")).await?;
    let begin = Instant::now();
    while installation.store.ended().await?.all() < 1 {
        ensure!(begin.elapsed() < BEGIN_LIMIT, "{} does not execute\n{}", peer.name(), installation.log_tail());
        sleep(LOOK).await;
    }
    Ok(installation)
}

/// Waits until all runs are in their last call. A peer that begins them slowly is not waited for until the first of them has ended.
async fn in_the_middle(world: &World, installation: &Installation, prefix: &str) -> Result<()> {
    let begin = Instant::now();
    while world.tally.at_last_call(prefix) == 0 {
        ensure!(begin.elapsed() < BEGIN_LIMIT, "the runs do not begin\n{}", installation.log_tail());
        sleep(LOOK).await;
    }
    let first = Instant::now();
    while world.tally.at_last_call(prefix) < RUNS && first.elapsed() < SPREAD {
        sleep(LOOK).await;
    }
    Ok(())
}

async fn kill(world: &World, mut installation: Installation, n: usize, bound: Duration) -> Result<Outcome> {
    let prefix = format!("kill-{n}-run-");
    for run in 0..RUNS {
        installation.accept(Shape::Steps, &format!("{prefix}{run}")).await?;
    }
    in_the_middle(world, &installation, &prefix).await?;
    // Many phases of the two seconds, but for their end.
    sleep(Duration::from_millis(40 * (n as u64 % 20))).await;
    let before = installation.store.ended().await?.all();
    installation.crash_worker().context("killing the worker")?;
    let killed = Instant::now();
    let mut outcome = Outcome { recovered: Vec::new(), lost: 0, failed: 0 };
    let interrupted = (RUNS + 1).saturating_sub(before);
    while outcome.recovered.len() < interrupted && killed.elapsed() < bound {
        sleep(LOOK).await;
        let ended = installation.store.ended().await?.all().saturating_sub(before).min(interrupted);
        outcome.recovered.resize(ended, killed.elapsed().as_secs_f64());
    }
    outcome.lost = interrupted - outcome.recovered.len();
    outcome.failed = installation.store.outcome().await?.failed;
    Ok(outcome)
}
