//! Runs of agents that call tools, in threads that have several; some are cancelled; readers come and go.
use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::history::Kind;

/// Of one thread.
const RUNS: usize = 3;

pub async fn offer(client: &Client, n: usize, mut random: StdRng, stop: &CancellationToken) {
    for thread in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let thread = format!("agents-{n}-{thread}");
        let mut last = None;
        for run in 0..random.random_range(1..=RUNS) {
            let name = format!("{thread}-{run}");
            let cancelled = random.random_bool(0.1);
            let calls = random.random_range(0..3);
            let kind = if cancelled { Kind::Cancelled } else { Kind::Agent { calls } };
            let id = client.run(&thread, &name, kind, calls, random.random_range(5..40)).await;
            if let Some(id) = id.filter(|_| cancelled) {
                sleep(Duration::from_millis(random.random_range(0..1500))).await;
                client.post(&format!("/api/v1/agent/runs/{id}/cancel"), &serde_json::Value::Null).await;
            }
            last = id.or(last);
        }
        // One reads to the end; the other comes and goes.
        let never = CancellationToken::new();
        let restless = random.random_range(3..12);
        tokio::join!(client.read(&thread, usize::MAX, &never), client.read(&thread, restless, &never));
    }
}
