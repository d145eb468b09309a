use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Client, RedisResult, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::memory::Memory;
use crate::{
    clock::Timestamp,
    config::Config,
    error::{Error, Result},
};

/// After a failure each process counts for itself this long before it asks Redis again, so that no request waits for a dead server.
const PAUSE: Duration = Duration::from_secs(1);

/// The newest `limit` times at which a place was taken, newest first. Answers the microseconds to wait, 0 when one was free.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local limit, window, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local oldest = redis.call('LINDEX', KEYS[1], limit - 1)
        if oldest then
            local wait = tonumber(oldest) + window - now
            if wait > 0 then return wait end
        end
        redis.call('LPUSH', KEYS[1], ARGV[3])
        redis.call('LTRIM', KEYS[1], 0, limit - 1)
        redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
        return 0",
    )
});

/// Lazily: Redis need not be there yet.
pub(super) fn connect(config: &Config) -> Result<ConnectionManager> {
    let client = Client::open(config.redis.url.expose())
        .map_err(|e| Error::invalid("redis.url", "no Redis URL; write redis://host:port").because(e))?;
    let settings = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(config.redis.response_timeout))
        .set_response_timeout(Some(config.redis.response_timeout));
    Ok(ConnectionManager::new_lazy_with_config(client, settings)?)
}

#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    prefix: Arc<str>,
    meanwhile: Memory,
    away: Arc<Away>,
}

#[derive(Default)]
pub(super) struct Away {
    until: Mutex<Option<Instant>>,
    logged: AtomicBool,
}

impl Redis {
    pub fn open(config: &Config) -> Result<Self> {
        Ok(Self {
            connection: connect(config)?,
            prefix: config.redis.prefix.as_str().into(),
            meanwhile: Memory::default(),
            away: Arc::default(),
        })
    }

    /// How long to wait; `None` when a place was free.
    pub async fn take(&self, key: &str, limit: u32, window: Duration, now: Timestamp) -> Option<Duration> {
        if limit == 0 {
            return Some(window);
        }
        if self.away.is_now() {
            return self.meanwhile.take(key, limit, window, now);
        }
        match self.ask(key, limit, window, now).await {
            Ok(wait) => {
                self.away.over();
                (wait > 0).then(|| Duration::from_micros(wait))
            }
            Err(e) => {
                self.away.begin(&e);
                self.meanwhile.take(key, limit, window, now)
            }
        }
    }

    async fn ask(&self, key: &str, limit: u32, window: Duration, now: Timestamp) -> RedisResult<u64> {
        let mut connection = self.connection.clone();
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        TAKE.key(format!("{}:limit:{key}", self.prefix)).arg(limit).arg(window).arg(now.0).invoke_async(&mut connection).await
    }
}

impl Away {
    pub(super) fn is_now(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn begin(&self, error: &redis::RedisError) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        if !self.logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "Redis is away: limits are counted in this process alone");
        }
    }

    pub(super) fn over(&self) {
        if self.logged.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis is back: limits are counted across processes again");
        }
    }
}
