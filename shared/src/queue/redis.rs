//! The queue in Redis (7 or newer): a lane is a sorted set, its members are run ids as text, so that pushing twice is pushing once.
//! One connection is shared by everything that does not wait; each consumer has its own, because a waiting BZMPOP blocks its connection.
use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cmd,
    io::tcp::TcpSettings,
};
use tokio::time::sleep;
use uuid::Uuid;

use super::Hint;
use crate::{Error, Result, config, domain::Lane};

/// Members of one ZADD: a big push does not hold up the server.
const CHUNK: usize = 1000;
/// How often a stopped consumer asks the server to end its wait.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(50);

/// What BZMPOP answers: the key and its (member, score), or nothing in time.
type Popped = Option<(String, Vec<(String, f64)>)>;

#[derive(Clone)]
pub struct RedisQueue(Arc<Inner>);

struct Inner {
    client: Client,
    shared: ConnectionManager,
    prefix: String,
    block: Duration,
    response_timeout: Duration,
}

impl RedisQueue {
    /// Connects lazily. Needs a tokio runtime.
    pub fn new(config: &config::Redis) -> Result<Self> {
        let bad = |e: ::redis::RedisError| Error::invalid("redis.url", format!("no Redis URL: {}", e.category()));
        let info = config.url.expose().into_connection_info().map_err(bad)?;
        let client = Client::open(info.set_tcp_settings(tcp_settings())).map_err(bad)?;
        // No retries inside: a caller hears of an outage at once, and the next call tries again.
        let manager = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(config.response_timeout))
            .set_response_timeout(Some(config.response_timeout));
        Ok(Self(Arc::new(Inner {
            shared: ConnectionManager::new_lazy_with_config(client.clone(), manager)?,
            client,
            prefix: config.prefix.clone(),
            // Zero would wait for ever.
            block: config.block.max(Duration::from_millis(10)),
            response_timeout: config.response_timeout,
        })))
    }

    pub(super) async fn push(&self, lane: Lane, hints: &[Hint]) -> Result<()> {
        for chunk in hints.chunks(CHUNK) {
            let mut zadd = cmd("ZADD");
            zadd.arg(self.key(lane)).arg("NX");
            for hint in chunk {
                zadd.arg(hint.score).arg(member(hint.run_id));
            }
            self.query::<()>(&zadd).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, lane: Lane, run_id: Uuid) -> Result<bool> {
        self.query(cmd("ZREM").arg(self.key(lane)).arg(member(run_id))).await
    }

    pub(super) async fn depth(&self, lane: Lane) -> Result<u64> {
        self.query(cmd("ZCARD").arg(self.key(lane))).await
    }

    pub(super) async fn place(&self, lane: Lane, run_id: Uuid) -> Result<Option<u64>> {
        self.query(cmd("ZRANK").arg(self.key(lane)).arg(member(run_id))).await
    }

    pub(super) async fn min_score(&self, lane: Lane) -> Result<Option<i64>> {
        let first: Vec<(String, f64)> = self.query(cmd("ZRANGE").arg(self.key(lane)).arg(0).arg(0).arg("WITHSCORES")).await?;
        Ok(first.first().map(|(_, score)| *score as i64))
    }

    pub(super) async fn ping(&self) -> Result<()> {
        self.query(&cmd("PING")).await
    }

    pub(super) async fn info(&self) -> Result<String> {
        self.query(&cmd("INFO")).await
    }

    /// Every command here may be sent twice without harm, so one that meets a severed connection is tried on the new one.
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut shared = self.0.shared.clone();
        match command.query_async(&mut shared).await {
            Err(e) if e.is_connection_dropped() => Ok(command.query_async(&mut shared).await?),
            answer => Ok(answer?),
        }
    }

    fn key(&self, lane: Lane) -> String {
        format!("{}:lane:{}", self.0.prefix, lane.as_str())
    }
}

pub(super) struct RedisConsumer {
    queue: RedisQueue,
    key: String,
    connection: Option<Dedicated>,
}

/// A connection and the id that the server knows it by.
struct Dedicated {
    connection: MultiplexedConnection,
    id: i64,
}

impl RedisConsumer {
    pub fn new(queue: RedisQueue, lane: Lane) -> Self {
        Self { key: queue.key(lane), queue, connection: None }
    }

    pub async fn pop_until(&mut self, max: usize, stop: impl Future<Output = ()>) -> Result<Vec<Hint>> {
        if self.connection.is_none() {
            self.reconnect().await?;
        }
        // Taken out for the wait: an error, or a caller that gives up, closes it, and the server forgets the wait instead of
        // sending a hint to nobody.
        let Some(mut dedicated) = self.connection.take() else { return Ok(Vec::new()) };
        let block = self.queue.0.block.as_secs_f64();
        let mut pop = cmd("BZMPOP");
        pop.arg(block).arg(1).arg(&self.key).arg("MIN").arg("COUNT").arg(max);
        let popped = self.wait(&pop, &mut dedicated, stop).await?;
        self.connection = Some(dedicated);
        Ok(popped.map(|(_, members)| hints(members)).unwrap_or_default())
    }

    pub async fn reconnect(&mut self) -> Result<()> {
        let Inner { client, block, response_timeout, .. } = &*self.queue.0;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(*response_timeout))
            .set_response_timeout(Some(*response_timeout));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let id = cmd("CLIENT").arg("ID").query_async(&mut connection).await?;
        connection.set_response_timeout(*block + *response_timeout);
        self.connection = Some(Dedicated { connection, id });
        Ok(())
    }

    /// On `stop` the server is asked to end the wait, again and again, since the first word may overtake the command itself.
    async fn wait(&self, pop: &Cmd, dedicated: &mut Dedicated, stop: impl Future<Output = ()>) -> RedisResult<Popped> {
        let mut answer = pin!(pop.query_async(&mut dedicated.connection));
        tokio::select! {
            popped = &mut answer => return popped,
            () = stop => {}
        }
        loop {
            // Whether it helped shows in the answer; without it the wait ends by itself.
            let _ = self.queue.query::<i64>(cmd("CLIENT").arg("UNBLOCK").arg(dedicated.id)).await;
            tokio::select! {
                popped = &mut answer => return popped,
                () = sleep(UNBLOCK_AGAIN) => {}
            }
        }
    }
}

fn member(run_id: Uuid) -> String {
    run_id.hyphenated().to_string()
}

fn hints(members: Vec<(String, f64)>) -> Vec<Hint> {
    let parse = |(member, score): (String, f64)| match Uuid::try_parse(&member) {
        Ok(run_id) => Some(Hint { run_id, score: score as i64 }),
        Err(_) => {
            tracing::warn!(member, "a lane held something that is no run id");
            None
        }
    };
    members.into_iter().filter_map(parse).collect()
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    // A peer that vanished without a word is noticed after this long, not after the kernel's quarter of an hour.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
}
