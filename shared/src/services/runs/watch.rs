//! Whoever watches a run is told that it has ended, in a transaction of its own: the run's end holds the lock of its thread, and what it
//! sets off needs locks of others.
use uuid::Uuid;

use super::after::After;
use crate::{
    app::App,
    clock::Timestamp,
    domain::run::Watcher,
    error::Result,
    services::{goals, notifications, schedules, tasks},
    store::{db::Tx, runs::view},
};

/// Tells who watches the run, once; nothing is done for one that is gone.
pub async fn tell(app: &App, tx: &mut Tx, after: &mut After, id: Uuid, now: Timestamp) -> Result<()> {
    let Some(run) = view::any_by_id(&mut *tx, id).await? else { return Ok(()) };
    match run.watcher {
        Some(Watcher::Task) => tasks::run_ended(app, tx, after, &run, now).await,
        Some(Watcher::Plan) => goals::plan_ended(tx, after, &run, now).await,
        Some(Watcher::Schedule) => schedules::run_ended(app, tx, after, &run, now).await,
        Some(Watcher::Owner) => notifications::run_ended(tx, &run, now).await,
        None => Ok(()),
    }
}
