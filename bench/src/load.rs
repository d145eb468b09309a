//! Closed loops: each client has a connection of its own and sends its next request when it has the answer to the last.
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::{
    http::Connection,
    process::{cpu, share},
};

/// Answers before this are not counted: connections open, caches fill.
const WARM_UP: Duration = Duration::from_millis(700);

/// Answers a second, seconds an answer (sorted), and the share of the machine's processor time that the generator took.
pub struct Load {
    pub rate: f64,
    pub latencies: Vec<f64>,
    pub generator: f64,
    /// From the first request to the last answer, warm-up included.
    pub seconds: f64,
}

impl Load {
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.latencies, q)
    }
}

/// `clients` send what `request(client, n)` says for `time`, after a warm-up.
pub async fn closed(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    request: impl Fn(usize, usize) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Load> {
    let request = Arc::new(request);
    let begin = Instant::now();
    let from = begin + WARM_UP;
    let until = from + time;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let request = request.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut latencies = Vec::new();
            for n in 0.. {
                let request = request(client, n);
                let start = Instant::now();
                if start >= until {
                    break;
                }
                connection.send(&request).await?;
                let end = Instant::now();
                if end >= from && end < until {
                    latencies.push((end - start).as_secs_f64());
                }
            }
            anyhow::Ok(latencies)
        });
    }
    tokio::time::sleep_until(from.into()).await;
    let before = cpu(std::process::id())?;
    tokio::time::sleep_until(until.into()).await;
    let generator = share(cpu(std::process::id())? - before, time.as_secs_f64());
    let mut latencies = Vec::new();
    while let Some(client) = tasks.join_next().await {
        latencies.extend(client??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    Ok(Load { rate: latencies.len() as f64 / time.as_secs_f64(), latencies, generator, seconds })
}

/// `sorted` ascending.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
