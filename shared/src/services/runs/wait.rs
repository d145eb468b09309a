//! Waiting for a run as a caller does: by its log, so that it costs no polling whoever executes it.
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::control;
use crate::{
    app::App,
    domain::{caller::Caller, run::Run},
    error::Result,
    services::stream::{self, From, Item},
};

/// Waits until the run has ended, at most for `limit`, and answers how it stands then. `thread` is the client's name of its thread.
///
/// # Errors
/// `NotFound` for a run or a thread that is not the caller's.
pub async fn ended(app: &App, caller: &Caller, thread: &str, id: Uuid, limit: Duration) -> Result<Run> {
    if let Ok(ended) = timeout(limit, follow(app, caller, thread, id)).await {
        ended?;
    }
    control::get(app, caller, id).await
}

async fn follow(app: &App, caller: &Caller, thread: &str, id: Uuid) -> Result<()> {
    let mut follow = stream::follow(app, caller, thread, From::Run(id)).await?;
    while let Some(item) = follow.next().await? {
        if matches!(item, Item::Event(event) if event.run_id == id && event.is_terminal()) {
            break;
        }
    }
    Ok(())
}
