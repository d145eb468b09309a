//! The dispatcher. The database row of a run is the truth; the queue only holds hints that a run is ready, one ordered set a lane.
//! A hint may be lost, doubled or stale: claiming the row decides, and the reconciler finds what was lost.
//! Redis serves several processes, memory serves one; both keep the same order (score, then run id).
pub mod backend;
mod memory;
mod redis;

use std::future::{Future, pending};

use uuid::Uuid;

pub use self::{memory::MemoryQueue, redis::RedisQueue};
use crate::{Result, config, domain::Lane};

/// A hint that a run is ready: the row is the truth, a hint may be lost, doubled or stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    pub run_id: Uuid,
    /// Microseconds since 1970, minus a bonus for priority: lower is sooner. Exact below 2^53.
    pub score: i64,
}

#[derive(Clone)]
pub enum Queue {
    Redis(RedisQueue),
    Memory(MemoryQueue),
}

impl Queue {
    /// Redis when `config.url` names one, else memory. A bad URL is an error; a server that is away is not: see `ping`.
    pub async fn connect(config: &config::Redis) -> Result<Self> {
        if config.url.is_empty() {
            return Ok(Self::Memory(MemoryQueue::new(config.block)));
        }
        RedisQueue::new(config).map(Self::Redis)
    }

    /// Adds hints; a run that already has one keeps its place.
    pub async fn push(&self, lane: Lane, hints: &[Hint]) -> Result<()> {
        match self {
            Self::Redis(queue) => queue.push(lane, hints).await,
            Self::Memory(queue) => {
                queue.push(lane, hints);
                Ok(())
            }
        }
    }

    /// Takes a run's hint away, as after a cancel; whether there was one.
    pub async fn remove(&self, lane: Lane, run_id: Uuid) -> Result<bool> {
        match self {
            Self::Redis(queue) => queue.remove(lane, run_id).await,
            Self::Memory(queue) => Ok(queue.remove(lane, run_id)),
        }
    }

    /// Number of hints in the lane.
    pub async fn depth(&self, lane: Lane) -> Result<u64> {
        match self {
            Self::Redis(queue) => queue.depth(lane).await,
            Self::Memory(queue) => Ok(queue.depth(lane)),
        }
    }

    /// How many hints are before the run's; None when it has none.
    pub async fn place(&self, lane: Lane, run_id: Uuid) -> Result<Option<u64>> {
        match self {
            Self::Redis(queue) => queue.place(lane, run_id).await,
            Self::Memory(queue) => Ok(queue.place(lane, run_id)),
        }
    }

    /// Score of the first hint; None when the lane is empty.
    pub async fn min_score(&self, lane: Lane) -> Result<Option<i64>> {
        match self {
            Self::Redis(queue) => queue.min_score(lane).await,
            Self::Memory(queue) => Ok(queue.min_score(lane)),
        }
    }

    /// Whether the queue answers.
    pub async fn ping(&self) -> Result<()> {
        match self {
            Self::Redis(queue) => queue.ping().await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// What Redis says of itself (`INFO`, one `key:value` a line); none in memory.
    pub async fn info(&self) -> Result<Option<String>> {
        match self {
            Self::Redis(queue) => queue.info().await.map(Some),
            Self::Memory(_) => Ok(None),
        }
    }

    /// A reader of the lane. On Redis it has a connection of its own, made at the first `pop` and again after an error.
    pub async fn consumer(&self, lane: Lane) -> Consumer {
        Consumer(match self {
            Self::Redis(queue) => Source::Redis(redis::RedisConsumer::new(queue.clone(), lane)),
            Self::Memory(queue) => Source::Memory(queue.clone(), lane),
        })
    }
}

pub struct Consumer(Source);

enum Source {
    Redis(redis::RedisConsumer),
    Memory(MemoryQueue, Lane),
}

impl Consumer {
    /// Waits up to `redis.block`; at most `max` hints, lowest score first; none when the time is over.
    /// An error says that the queue is away; the next call connects again.
    pub async fn pop(&mut self, max: usize) -> Result<Vec<Hint>> {
        self.pop_until(max, pending()).await
    }

    /// As `pop`, but `stop` ends the wait early, and no hint is lost by it.
    pub async fn pop_until(&mut self, max: usize, stop: impl Future<Output = ()>) -> Result<Vec<Hint>> {
        match &mut self.0 {
            _ if max == 0 => Ok(Vec::new()),
            Source::Redis(consumer) => consumer.pop_until(max, stop).await,
            Source::Memory(queue, lane) => Ok(queue.pop_until(*lane, max, stop).await),
        }
    }

    /// Makes a new connection now and asks the server whether it is there.
    pub async fn reconnect(&mut self) -> Result<()> {
        match &mut self.0 {
            Source::Redis(consumer) => consumer.reconnect().await,
            Source::Memory(..) => Ok(()),
        }
    }
}
