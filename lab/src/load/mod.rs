//! The offered load: clients of every kind, each doing one thing after another until the time is up. They are careful: what was not
//! answered is asked again under the same name, and everything that they see is kept.
mod agents;
mod client;
mod files;
mod goals;
mod people;
mod retries;
mod schedules;

use std::time::Duration;

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::client::Client;

/// How much of what is offered.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub agents: usize,
    pub goals: usize,
    pub schedules: usize,
    pub uploads: usize,
    pub transcriptions: usize,
}

/// Whatever a client still waits for at the end: nothing of the system may take longer to recover.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Load {
    clients: JoinSet<()>,
    stop: CancellationToken,
    schedules: schedules::Schedules,
}

impl Load {
    /// Makes the schedules, and lets all clients begin.
    pub async fn start(client: &Client, mix: Mix, seed: u64) -> Result<Self> {
        let stop = CancellationToken::new();
        let schedules = schedules::Schedules::start(client, mix.schedules).await?;
        let mut random = StdRng::seed_from_u64(seed);
        let mut clients = JoinSet::new();
        for n in 0..mix.agents {
            let (client, stop, random) = (client.clone(), stop.clone(), StdRng::from_rng(&mut random));
            clients.spawn(async move { agents::offer(&client, n, random, &stop).await });
        }
        for n in 0..mix.goals {
            let (client, stop, random) = (client.clone(), stop.clone(), StdRng::from_rng(&mut random));
            clients.spawn(async move { goals::offer(&client, n, random, &stop).await });
        }
        for n in 0..mix.uploads {
            let (client, stop, random) = (client.clone(), stop.clone(), StdRng::from_rng(&mut random));
            clients.spawn(async move { files::uploads(&client, n, random, &stop).await });
        }
        for n in 0..mix.transcriptions {
            let (client, stop) = (client.clone(), stop.clone());
            clients.spawn(async move { files::transcriptions(&client, n, &stop).await });
        }
        Ok(Self { clients, stop, schedules })
    }

    /// Nothing new is asked for; answers once everybody has what they asked for, or has waited too long.
    pub async fn finish(self, client: &Client) -> Result<()> {
        let Self { mut clients, stop, schedules } = self;
        stop.cancel();
        let ended = async {
            schedules.stop(client).await?;
            while let Some(ended) = clients.join_next().await {
                ended.context("a client broke off")?;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(ended) => ended,
            Err(_) => {
                client.history.wrong(format!("clients still wait {PATIENCE:?} after the load has ended"));
                Ok(())
            }
        }
    }
}
