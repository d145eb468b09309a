//! One turn of one peer: everything but the kills.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Phase, World,
    figures::{Figures, Row},
    model::Shape,
    peer::{Installation, Peer},
};
use crate::{
    http::Connection,
    load::{closed, quantile},
    process::{cpu, share},
};

const CLIENTS: usize = 16;
/// Runs until their ends, at the most for so long.
const RUNS: usize = 1000;
const CROWD: usize = 500;
const LIMIT: Duration = Duration::from_secs(60);
const ACCEPT: Duration = Duration::from_secs(4);
/// Runs whose first event is waited for, one by one; so many that it is not what a cold start is like.
const FIRST: usize = 60;
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at the memory.
const SAMPLE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the peer, measures what is wanted, and ends it.
pub async fn turn(world: &World, peer: Peer, round: usize, wanted: &[Phase]) -> Result<Figures> {
    let mut figures = Figures::default();
    let name = |what: &str| format!("{peer:?}-{round}-{what}");
    let begin = Instant::now();
    let mut installation = Installation::start(peer, &world.services, &world.model.base_url()).await?;
    if round == 0 {
        let commands: Vec<_> = installation.commands().iter().map(|command| format!("`{command}`")).collect();
        println!("- {} {}: {}", peer.name(), peer.version(), commands.join(" and "));
    }
    installation.accept(Shape::Quick, &name("start-0")).await?;
    ended(&mut installation, 1, PATIENCE).await?;
    figures.put(Row::Start, begin.elapsed().as_secs_f64());
    // What start-up has used is given back by now, where anything is.
    sleep(Duration::from_secs(1)).await;
    figures.put(Row::Rest, installation.memory());
    let mut before = 1;
    if wanted.contains(&Phase::First) && peer.no_events().is_none() {
        figures.put(Row::First, first(&installation, &name("first")).await?);
        before += FIRST;
        ended(&mut installation, before, PATIENCE).await?;
    }
    if wanted.contains(&Phase::Finish) {
        let all = finish(&mut installation, &name("finish"), before, &mut figures).await?;
        before += RUNS;
        if all < before {
            // What is left of them would disturb what comes next.
            installation = Installation::start(peer, &world.services, &world.model.base_url()).await?;
            installation.accept(Shape::Quick, &name("start-1")).await?;
            before = ended(&mut installation, 1, PATIENCE).await?;
        }
    }
    if wanted.contains(&Phase::Crowd) {
        crowd(&mut installation, &name("crowd"), before, &mut figures).await?;
    }
    if wanted.contains(&Phase::Accept) {
        accept(&installation, &name("accept"), &mut figures).await?;
    }
    installation.check()?;
    world.tally.forget();
    Ok(figures)
}

async fn first(installation: &Installation, name: &str) -> Result<f64> {
    let mut seconds = Vec::new();
    for n in 0..FIRST {
        let run = format!("{name}-{n}");
        let one = timeout(PATIENCE, installation.first_event(&run));
        seconds.push(one.await.with_context(|| format!("no first event: {}", installation.log_tail()))??);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(quantile(&seconds, 0.5))
}

/// Answers how many have ended by then.
async fn finish(installation: &mut Installation, name: &str, before: usize, figures: &mut Figures) -> Result<usize> {
    let ([own, databases], generator, begin) = (installation.cpu(), cpu(std::process::id())?, Instant::now());
    post_all(installation, Shape::Quick, name, RUNS, CLIENTS).await?;
    let all = ended(installation, before + RUNS, LIMIT.saturating_sub(begin.elapsed())).await?;
    let (done, seconds) = (all.saturating_sub(before), begin.elapsed().as_secs_f64());
    ensure!(done > 0, "none of {RUNS} runs ended within {LIMIT:?}\n{}", installation.log_tail());
    let [own, databases] = [installation.cpu()[0] - own, installation.cpu()[1] - databases];
    figures.put(Row::Finished, done as f64 / seconds);
    figures.put(Row::Cpu, own / done as f64);
    figures.put(Row::CpuAll, (own + databases) / done as f64);
    figures.put(Row::Generator, share(cpu(std::process::id())? - generator, seconds));
    let failed = installation.store.outcome().await?.failed;
    ensure!(failed == 0, "{failed} runs have failed\n{}", installation.log_tail());
    Ok(all)
}

async fn crowd(installation: &mut Installation, name: &str, before: usize, figures: &mut Figures) -> Result<()> {
    let (begin, mut peak) = (Instant::now(), 0_f64);
    let posted = post_all(installation, Shape::Slow, name, CROWD, CROWD / 10).await?;
    while installation.store.ended().await?.all() < before + CROWD {
        peak = peak.max(installation.memory());
        if !posted || begin.elapsed() > LIMIT {
            figures.put(Row::Crowd, f64::INFINITY);
            figures.put(Row::CrowdMemory, peak);
            return Ok(());
        }
        sleep(SAMPLE).await;
    }
    figures.put(Row::Crowd, begin.elapsed().as_secs_f64());
    figures.put(Row::CrowdMemory, peak);
    Ok(())
}

async fn accept(installation: &Installation, name: &str, figures: &mut Figures) -> Result<()> {
    let (peer, name) = (installation.peer, name.to_owned());
    let load = closed(installation.address, CLIENTS, ACCEPT, move |client, n| {
        peer.request(Shape::Quick, &format!("{name}-{client}-{n}"))
    });
    let load = timeout(LIMIT, load).await.context("accepts take too long")??;
    figures.put(Row::Accepted, load.rate);
    figures.put(Row::AcceptP99, load.quantile(0.99));
    Ok(())
}

/// Answers whether all were accepted within the limit.
async fn post_all(installation: &Installation, shape: Shape, name: &str, runs: usize, clients: usize) -> Result<bool> {
    let (address, peer, name) = (installation.address, installation.peer, Arc::new(name.to_owned()));
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let name = name.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            for n in (client..runs).step_by(clients) {
                connection.send(&peer.request(shape, &format!("{name}-{n}"))).await?;
            }
            anyhow::Ok(())
        });
    }
    let all = async {
        while let Some(client) = tasks.join_next().await {
            client??;
        }
        anyhow::Ok(())
    };
    // The clients that are not through end with their set.
    timeout(LIMIT, all).await.map_or(Ok(false), |posted| posted.map(|()| true))
}

/// Waits until so many have ended, or for the limit; answers how many have.
async fn ended(installation: &mut Installation, wanted: usize, limit: Duration) -> Result<usize> {
    let begin = Instant::now();
    loop {
        let now = installation.store.ended().await?.all();
        if now >= wanted || begin.elapsed() > limit {
            return Ok(now);
        }
        sleep(LOOK).await;
    }
}
