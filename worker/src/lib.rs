//! The worker.
pub mod asr;
pub mod lanes;
pub mod models;
pub mod tools;

use runmill_shared::{App, Result};
use tokio_util::sync::CancellationToken;

/// Works until `shutdown`, and returns after the drain.
pub async fn run(_app: App, shutdown: CancellationToken) -> Result<()> {
    shutdown.cancelled().await;
    Ok(())
}
