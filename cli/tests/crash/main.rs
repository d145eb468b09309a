//! What a crash leaves behind. Real processes of the real binary are killed, frozen and asked to stop in the middle of their work,
//! and so are the servers that they depend on; `check` then reads the database past the product. With `--nocapture` each scenario
//! prints how long the recovery took.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod check;
mod client;
mod embedded;
mod frozen;
mod goals;
mod model;
mod schedules;
mod servers;
mod workers;
mod world;

use std::time::Duration;

use tokio::time::Instant;

/// For whatever has to happen without anybody's doing.
const LIMIT: Duration = Duration::from_secs(120);

/// One scenario at a time: each has processes enough for the machine, and measures.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks until `done` answers something; `what` says what did not happen in time.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut done: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = done().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
