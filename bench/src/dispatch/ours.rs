//! Our queue through `run_lanes`, as a worker process runs it.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_trait::async_trait;
use runmill_shared::{
    config::{self, Secret},
    domain::{Lane, new_id},
    queue::{Hint, Queue, backend::ReadyRows},
};
use runmill_worker::lanes::{Handle, Outcome, run_lanes};
use tokio::{sync::mpsc::UnboundedSender, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{PERMITS, Size, Way, spawn};

pub struct Ours {
    queue: Queue,
    name: &'static str,
    pushed: i64,
}

impl Ours {
    pub async fn redis(url: &str, prefix: &str) -> Result<Self> {
        Self::connect(url, prefix, "ours on Redis").await
    }

    pub async fn memory() -> Result<Self> {
        Self::connect("", "", "ours in memory").await
    }

    async fn connect(url: &str, prefix: &str, name: &'static str) -> Result<Self> {
        let (block, response_timeout) = (Duration::from_secs(2), Duration::from_millis(500));
        let config = config::Redis { url: Secret::new(url), prefix: prefix.to_owned(), block, response_timeout };
        Ok(Self { queue: Queue::connect(&config).await?, name, pushed: 0 })
    }
}

#[async_trait]
impl Way for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn size(&self) -> Size {
        Size { queued: 20_000, steady: 5_000, latencies: 200, pause: Duration::from_millis(10) }
    }

    async fn push(&mut self, n: usize) -> Result<()> {
        let scores = self.pushed..self.pushed + n as i64;
        self.pushed = scores.end;
        let hints: Vec<_> = scores.map(|score| Hint { run_id: new_id(), score }).collect();
        Ok(self.queue.push(Lane::Runs, &hints).await?)
    }

    fn start(&self, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>> {
        let queue = self.queue.clone();
        spawn(async move {
            let lanes = BTreeMap::from([(Lane::Runs, PERMITS)]);
            Ok(run_lanes(queue, &lanes, Arc::new(NoRows), Arc::new(Tell(started)), stop).await?)
        })
    }
}

struct Tell(UnboundedSender<Instant>);

#[async_trait]
impl Handle for Tell {
    async fn handle(&self, _: Hint, _: Lane) -> runmill_shared::Result<Outcome> {
        self.0.send(Instant::now()).map_err(runmill_shared::Error::internal)?;
        Ok(Outcome::Done)
    }
}

struct NoRows;

#[async_trait]
impl ReadyRows for NoRows {
    async fn ready(&self, _: Lane, _: usize) -> runmill_shared::Result<Vec<Hint>> {
        Ok(Vec::new())
    }

    fn healthy(&self) -> bool {
        true
    }
}
