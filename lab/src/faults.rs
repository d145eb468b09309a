//! Making things go wrong, as the plan says, and whole again.
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    check::Happened,
    plan::{Act, Fault, Server},
    proxy::Condition,
    world::World,
};

/// Carries the plan out. What could not be done (the process had ended by itself, say) is an error: nothing may break by itself.
pub async fn carry_out(world: &mut World, plan: &[Act], began: Instant) -> Result<Vec<Happened>> {
    let mut happened = Vec::new();
    for act in plan {
        sleep_until(began + act.at).await;
        let from = began.elapsed();
        apply(world, &act.fault).await?;
        let until = began.elapsed();
        println!("{:>7.1} s  {}", from.as_secs_f64(), act.fault);
        happened.push(Happened { act: act.clone(), from, until });
    }
    Ok(happened)
}

async fn apply(world: &mut World, fault: &Fault) -> Result<()> {
    match fault {
        Fault::Kill { process, pause } => {
            let node = world.node_mut(*process);
            node.process.kill9()?;
            sleep(*pause).await;
            node.process.start()
        }
        Fault::Drain { process } => {
            let node = world.node_mut(*process);
            node.process.term()?;
            let status = node.process.exited().await?;
            ensure!(status.success(), "{process:?} was asked to end, and ended with {status}");
            node.process.start()
        }
        Fault::Freeze { process, length } => {
            let node = world.node_mut(*process);
            node.process.stop()?;
            sleep(*length).await;
            node.process.cont()
        }
        Fault::RestartPostgres => world.postgres.restart().await,
        Fault::Crash { server, pause } => crash(world, *server, *pause).await,
        Fault::FlushRedis => world.redis.command(&["FLUSHALL"]).await,
        Fault::Cut { process, server, length } => {
            let cut = Condition { cut: true, ..Condition::default() };
            disturb(world.node_mut(*process).link(*server), cut, *length).await
        }
        Fault::Delay { process, server, by, length } => {
            let slow = Condition { delay: *by, ..Condition::default() };
            disturb(world.node_mut(*process).link(*server), slow, *length).await
        }
        Fault::Skew { worker, by, reborn, length } => {
            let node = &mut world.workers[*worker];
            node.set_clock(*by)?;
            if *reborn {
                node.process.kill9()?;
                node.process.start()?;
            }
            sleep(*length).await;
            node.set_clock(0)
        }
        Fault::Full { length } => {
            world.s3.set_full(true);
            sleep(*length).await;
            world.s3.set_full(false);
            Ok(())
        }
    }
}

async fn crash(world: &mut World, server: Server, pause: Duration) -> Result<()> {
    match server {
        Server::Postgres => {
            world.postgres.kill9()?;
            sleep(pause).await;
            world.postgres.launch().await
        }
        Server::Redis => {
            world.redis.kill()?;
            sleep(pause).await;
            world.redis.restart().await
        }
        Server::Storage => {
            world.s3.stop();
            sleep(pause).await;
            Ok(world.s3.restart()?)
        }
    }
}

async fn disturb(link: Option<&crate::proxy::Proxy>, condition: Condition, length: Duration) -> Result<()> {
    let Some(link) = link else { return Ok(()) };
    link.set(condition);
    sleep(length).await;
    link.set(Condition::default());
    Ok(())
}
