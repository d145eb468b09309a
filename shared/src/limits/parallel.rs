//! How many may do something at once, counted over all processes through Redis, or in this process when there is none. A place is
//! a lease: its holder renews it, and gives it back when it is dropped; the place of a process that died comes back when its lease
//! has run out. While Redis is away each process counts for itself.
//!
//! Fair: within a process whoever asks first is served first, and one waiter of each process stands in a queue in Redis, where each
//! asks again every [`ASK_AGAIN`] and loses its turn when it does not.
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use redis::{RedisResult, Script, aio::ConnectionManager};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::redis::{Away, connect};
use crate::{config::Config, domain::new_id, error::Result, tasks};

/// How soon a place that another process gave back is seen.
const ASK_AGAIN: Duration = Duration::from_millis(40);
/// A waiter that has not asked for this long has gone.
const WAITER_GONE: Duration = Duration::from_secs(2);

/// A cheap clone; clones count together.
#[derive(Clone)]
pub struct Parallel {
    shared: Option<Shared>,
    here: Arc<Mutex<HashMap<String, Here>>>,
    lease: Duration,
}

/// What one process knows of one kind of work.
#[derive(Clone)]
struct Here {
    /// Its own limit, whatever Redis says.
    places: Arc<Semaphore>,
    /// Whose turn it is to ask Redis.
    turn: Arc<Semaphore>,
    freed: Arc<Notify>,
}

#[derive(Clone)]
struct Shared {
    connection: ConnectionManager,
    prefix: Arc<str>,
    away: Arc<Away>,
}

/// A place, until it is dropped.
pub struct Permit {
    _here: Option<OwnedSemaphorePermit>,
    /// Ends the renewals, which gives the place back to the other processes.
    _lease: Option<DropGuard>,
}

impl Parallel {
    /// Connects lazily: Redis need not be there yet.
    pub fn open(config: &Config) -> Result<Self> {
        let shared = config.is_distributed().then(|| {
            let prefix = format!("{}:parallel:", config.redis.prefix).into();
            Ok::<_, crate::error::Error>(Shared { connection: connect(config)?, prefix, away: Arc::default() })
        });
        Ok(Self { shared: shared.transpose()?, here: Arc::default(), lease: config.models.parallel_lease })
    }

    /// Waits for one of the `most` places of `key`. Dropping the future gives the place in the queue up.
    pub async fn acquire(&self, key: &str, most: u32) -> Permit {
        let here = self.here(key, most);
        // Nobody closes these semaphores.
        let place = here.places.acquire_owned().await.ok();
        let Some(shared) = &self.shared else { return Permit { _here: place, _lease: None } };
        let turn = here.turn.acquire_owned().await;
        let id = new_id().simple().to_string();
        // From here on the place in Redis' queue, or among its holders, is given up by whoever drops this.
        let held = CancellationToken::new();
        let guard = held.clone().drop_guard();
        let lease = Lease { shared: shared.clone(), key: key.to_owned(), id, lease: self.lease, freed: here.freed.clone() };
        let taken = Arc::new(Notify::new());
        tasks::spawn("hold a place", lease.clone().hold(held, taken.clone()));
        let granted = lease.wait(most).await;
        drop(turn);
        taken.notify_one();
        Permit { _here: place, _lease: granted.then_some(guard) }
    }

    fn here(&self, key: &str, most: u32) -> Here {
        let mut all = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || Here { places: Arc::new(Semaphore::new(most as usize)), turn: Arc::new(Semaphore::new(1)), freed: Arc::default() };
        all.entry(key.to_owned()).or_insert_with(new).clone()
    }
}

#[derive(Clone)]
struct Lease {
    shared: Shared,
    key: String,
    id: String,
    lease: Duration,
    freed: Arc<Notify>,
}

impl Lease {
    /// `false`: Redis is away, and this process counts alone.
    async fn wait(&self, most: u32) -> bool {
        loop {
            if self.shared.away.is_now() {
                return false;
            }
            match self.ask(most).await {
                Ok(granted) => {
                    self.shared.away.over();
                    if granted {
                        return true;
                    }
                }
                Err(e) => {
                    self.shared.away.begin(&e);
                    return false;
                }
            }
            tokio::time::timeout(ASK_AGAIN, self.freed.notified()).await.ok();
        }
    }

    /// Renews once the place is taken, and gives it back at the end, whether it was taken or only waited for.
    async fn hold(self, held: CancellationToken, taken: Arc<Notify>) {
        if held.run_until_cancelled(taken.notified()).await.is_some() {
            while held.run_until_cancelled(tokio::time::sleep(self.lease / 3)).await.is_some() {
                // A renewal that fails is tried again; a call that goes on is counted again as soon as it can be.
                if let Err(error) = self.renew().await {
                    tracing::debug!(%error, key = self.key, "a place was not renewed");
                }
            }
        }
        if let Err(error) = self.give_back().await {
            tracing::debug!(%error, key = self.key, "a place is left to its lease");
        }
        self.freed.notify_one();
    }

    fn keys(&self) -> [String; 4] {
        let base = format!("{}{{{}}}", self.shared.prefix, self.key);
        [format!("{base}:held"), format!("{base}:waiting"), format!("{base}:seen"), format!("{base}:ticket")]
    }

    async fn ask(&self, most: u32) -> RedisResult<bool> {
        let mut connection = self.shared.connection.clone();
        let mut script = ASK.prepare_invoke();
        self.keys().into_iter().for_each(|key| {
            script.key(key);
        });
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        script.arg(&self.id).arg(most).arg(ms(self.lease)).arg(ms(WAITER_GONE)).invoke_async(&mut connection).await
    }

    async fn renew(&self) -> RedisResult<()> {
        let [held, ..] = self.keys();
        let ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        RENEW.key(held).arg(&self.id).arg(ms).invoke_async(&mut self.shared.connection.clone()).await
    }

    async fn give_back(&self) -> RedisResult<()> {
        let [held, waiting, seen, _] = self.keys();
        let mut pipe = redis::pipe();
        for key in [held, waiting, seen] {
            pipe.zrem(key, &self.id).ignore();
        }
        pipe.query_async(&mut self.shared.connection.clone()).await
    }
}

/// Takes a place when one is free and nobody who is still there asked earlier; else stands in the queue. Redis' own clock decides.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held, waiting, seen, ticket = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local id, most, lease, gone = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
        for _, lost in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - gone)) do
            redis.call('ZREM', waiting, lost)
            redis.call('ZREM', seen, lost)
        end
        local free = most - redis.call('ZCARD', held)
        local place = redis.call('ZRANK', waiting, id) or redis.call('ZCARD', waiting)
        local keep = lease + gone
        if redis.call('ZSCORE', held, id) or place < free then
            redis.call('ZADD', held, now + lease, id)
            redis.call('PEXPIRE', held, keep)
            redis.call('ZREM', waiting, id)
            redis.call('ZREM', seen, id)
            return 1
        end
        if not redis.call('ZSCORE', waiting, id) then
            redis.call('ZADD', waiting, redis.call('INCR', ticket), id)
        end
        redis.call('ZADD', seen, now, id)
        redis.call('PEXPIRE', waiting, keep)
        redis.call('PEXPIRE', seen, keep)
        redis.call('PEXPIRE', ticket, 86400000)
        return 0",
    )
});

/// A place whose lease had run out is taken again: its call does go on.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
        redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 2)
        return 0",
    )
});

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn here() -> Parallel {
        Parallel::open(&Config::defaults().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn places_are_limited_come_back_and_are_given_in_order() {
        let parallel = here();
        let first = parallel.acquire("openai", 1).await;
        assert!(parallel.acquire("gemini", 1).now_or_never().is_some(), "another key has places of its own");
        let mut second = Box::pin(parallel.acquire("openai", 1));
        let mut third = Box::pin(parallel.acquire("openai", 1));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the second asked first");
        drop(second);
        third.await;
    }
}
