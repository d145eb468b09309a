//! The two Redis commands alone: what no dispatcher over Redis can beat at one hint a fetch.
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, aio::MultiplexedConnection, cmd, io::tcp::TcpSettings};
use runmill_shared::domain::new_id;
use tokio::{sync::mpsc::UnboundedSender, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Size, Way, spawn};

pub struct Raw {
    push: MultiplexedConnection,
    pop: MultiplexedConnection,
    key: String,
}

impl Raw {
    pub async fn connect(url: &str, prefix: &str) -> Result<Self> {
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
        Ok(Self {
            push: client.get_multiplexed_async_connection_with_config(&config).await?,
            pop: client.get_multiplexed_async_connection_with_config(&config).await?,
            key: format!("{prefix}:raw"),
        })
    }
}

#[async_trait]
impl Way for Raw {
    fn name(&self) -> &'static str {
        "raw ZADD and BZMPOP COUNT 1"
    }

    fn size(&self) -> Size {
        Size { queued: 20_000, steady: 5_000, latencies: 200, pause: Duration::from_millis(10) }
    }

    async fn push(&mut self, n: usize) -> Result<()> {
        let mut zadd = cmd("ZADD");
        zadd.arg(&self.key).arg("NX");
        for score in 0..n {
            zadd.arg(score).arg(new_id().hyphenated().to_string());
        }
        Ok(zadd.exec_async(&mut self.push).await?)
    }

    fn start(&self, started: UnboundedSender<Instant>, stop: CancellationToken) -> JoinHandle<Result<()>> {
        let (mut pop, key) = (self.pop.clone(), self.key.clone());
        spawn(async move {
            let mut command = cmd("BZMPOP");
            command.arg(1).arg(1).arg(key).arg("MIN").arg("COUNT").arg(1);
            while let Some(popped) =
                stop.run_until_cancelled(command.query_async::<Option<(String, Vec<(String, f64)>)>>(&mut pop)).await
            {
                if popped?.is_some() {
                    started.send(Instant::now())?;
                }
            }
            Ok(())
        })
    }
}
