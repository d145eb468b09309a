//! Whoever watches a run is told that it has ended, in a transaction of its own: the run's end holds the lock of its thread, and what it
//! sets off needs locks of others.
use uuid::Uuid;

use super::after::After;
use crate::{
    app::App,
    clock::Timestamp,
    domain::run::Watcher,
    error::Result,
    services::notifications,
    store::{db::Tx, runs::view},
};

/// Tells who watches the run, once; nothing is done for one that is gone.
pub async fn tell(_app: &App, tx: &mut Tx, _after: &mut After, id: Uuid, now: Timestamp) -> Result<()> {
    let Some(run) = view::any_by_id(&mut *tx, id).await? else { return Ok(()) };
    match run.watcher {
        Some(Watcher::Owner) => notifications::run_ended(tx, &run, now).await,
        None | Some(Watcher::Task | Watcher::Plan | Watcher::Schedule) => Ok(()),
    }
}
