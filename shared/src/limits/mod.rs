//! How often somebody may do something: `limit` times in any window of a given length, counted over all processes through
//! Redis, or in this process when there is none. While Redis is away each process counts for itself: still a limit, if a looser one.
mod memory;
mod parallel;
mod redis;

use std::time::Duration;

pub use self::parallel::{Parallel, Permit};
use self::{memory::Memory, redis::Redis};
use crate::{
    clock::Clock,
    config::Config,
    error::{Error, Result},
};

/// A cheap clone; clones count together.
#[derive(Clone)]
pub enum Limiter {
    Memory(Memory),
    Redis(Redis),
}

impl Limiter {
    /// Connects lazily: Redis need not be there yet.
    pub fn open(config: &Config) -> Result<Self> {
        if config.is_distributed() { Ok(Self::Redis(Redis::open(config)?)) } else { Ok(Self::memory()) }
    }

    /// Counts in this process alone.
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    /// Takes one of the `limit` places that `key` has in any stretch of `window`. With none free it is `RATE_LIMITED`, with the
    /// time until the oldest place is given back; an attempt that is refused takes no place.
    pub async fn take(&self, key: &str, limit: u32, window: Duration, clock: &Clock) -> Result<()> {
        let now = clock.now();
        let wait = match self {
            Self::Memory(memory) => memory.take(key, limit, window, now),
            Self::Redis(redis) => redis.take(key, limit, window, now).await,
        };
        match wait {
            None => Ok(()),
            Some(wait) => {
                let seconds = wait.as_micros().div_ceil(1_000_000).max(1);
                let message = format!("too many requests; try again in {seconds} s");
                Err(Error::limited("RATE_LIMITED", message, wait))
            }
        }
    }
}
