//! One campaign: start everything, offer load, break things by the plan, let everything end, and judge.
use std::time::Duration;

use anyhow::{Context, Result};
use runmill_shared::clock::Clock;
use runmill_testkit::ledger::Ledger;
use tokio::time::{Instant, sleep};

use crate::{
    check::{self, Evidence, Work},
    evidence, faults,
    history::History,
    load::{Client, Load, Mix},
    plan::{self, Act, Shape},
    report,
    world::World,
};

const SHAPE: Shape = Shape { apis: 2, workers: 4, skewed: 2, lease: Duration::from_secs(6) };
const MIX: Mix = Mix { agents: 6, goals: 2, schedules: 5, uploads: 1, transcriptions: 1 };
/// After the load, for all to come to rest: sweeps of files look once a minute.
const REST: Duration = Duration::from_secs(150);
const LOOK: Duration = Duration::from_millis(500);

/// Answers whether nothing was wrong.
pub async fn campaign(seed: u64, length: Duration) -> Result<bool> {
    let plan = plan::plan(seed, length, &SHAPE);
    println!("seed {seed}: {} faults in {} s", plan.len(), length.as_secs());
    let mut world = World::start(&SHAPE).await?;
    let outcome = endure(&mut world, &plan, seed, length).await;
    if !matches!(outcome, Ok(true)) {
        println!("Run it again with SEED={seed}. Logs: {}", world.logs.path().display());
        world.logs.disable_cleanup(true);
    }
    outcome
}

async fn endure(world: &mut World, plan: &[Act], seed: u64, length: Duration) -> Result<bool> {
    let history = History::new();
    let client = Client::new(world.addresses(), history.clone(), world.model.forgiven.clone())?;
    let began_at = Clock::real().now().0;
    let load = Load::start(&client, MIX, seed).await?;
    let happened = faults::carry_out(world, plan, history.began).await.context("carrying out the plan")?;
    tokio::time::sleep_until(history.began + length.saturating_sub(plan::CALM_AFTER / 2)).await;
    heal(world).await?;
    load.finish(&client).await?;
    let (ledger, work) = rest(world).await?;
    // Whatever was broken, everything runs on, and nothing has panicked.
    heal(world).await?;
    world.panics()?.into_iter().for_each(|what| history.wrong(what));
    let hints = world.hints().await?.len();
    let (seen, tool_calls) = (history.lock(), world.tool_calls());
    let evidence = Evidence { seen: &seen, ledger: &ledger, work: &work, faults: &happened, tool_calls: &tool_calls, hints };
    let wrong = check::check(&evidence);
    report::print(&seen, &ledger, &happened, &report::recoveries(&ledger, &happened, began_at));
    println!("{} changes of rows and {} of statuses were replayed against the protocol.", work.moves.len(), work.statuses.len());
    for what in &wrong {
        println!("WRONG: {what}");
    }
    Ok(wrong.is_empty())
}

async fn heal(world: &mut World) -> Result<()> {
    for node in world.apis.iter_mut().chain(&mut world.workers) {
        node.heal().await?;
    }
    Ok(())
}

/// Waits until nothing moves any more, or too long; what has not come to rest the checker will see.
async fn rest(world: &World) -> Result<(Ledger, Work)> {
    let deadline = Instant::now() + REST;
    loop {
        let (ledger, work) = (Ledger::read(&world.db).await?, evidence::work(&world.db, &world.s3).await?);
        let active = ledger.runs.iter().filter(|run| ["queued", "running", "waiting"].contains(&run.state.as_str())).count();
        let hints = world.hints().await?.len();
        let mut sides = [work.attachments.iter().collect::<Vec<_>>(), work.objects.iter().collect()];
        sides.iter_mut().for_each(|side| side.sort());
        let at_rest = active == 0 && ledger.outbox == 0 && hints == 0 && sides[0] == sides[1];
        if at_rest || Instant::now() > deadline {
            return Ok((ledger, work));
        }
        sleep(LOOK).await;
    }
}
