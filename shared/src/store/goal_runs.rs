//! What a goal's run does to all of its goal's tasks at once.
use uuid::Uuid;

use super::db::{Sql, Tx, query};
use crate::{clock::Timestamp, domain::task::GOAL_ENDED, error::Result};

/// The one way back from where the table of transitions has none: a goal that is executed anew begins as it was planned.
pub const RENEW: Sql = Sql::both(
    "UPDATE tasks SET status = 'pending', result = NULL, error = NULL, attempt = 0, run_id = NULL, usage = '{}', started_at = NULL,
         finished_at = NULL, version = version + 1, updated_at = $2
     WHERE goal_id = $1 AND (status IN ('completed', 'failed', 'rejected') OR status = 'cancelled' AND error LIKE $3)",
);
/// As `RENEW`, for what has not been completed.
pub const RETRY: Sql = Sql::both(
    "UPDATE tasks SET status = 'pending', attempt = 0, started_at = NULL, finished_at = NULL, version = version + 1, updated_at = $2
     WHERE goal_id = $1 AND (status IN ('failed', 'rejected') OR status = 'cancelled' AND error LIKE $3)",
);
pub const RESTART: Sql = Sql::both("UPDATE goals SET started_at = $2 WHERE id = $1");
pub const STATEMENTS: &[Sql] = &[RENEW, RETRY, RESTART];

/// A new run of a goal tries again what failed before, and what was cancelled because the goal ended; `fresh` takes up all of the plan.
/// What has become ready by that is the caller's to find.
pub async fn take_up(tx: &mut Tx, goal_id: Uuid, fresh: bool, now: Timestamp) -> Result<()> {
    let sql = if fresh { RENEW } else { RETRY };
    query(sql).bind(goal_id).bind(now).bind(format!("%\"{GOAL_ENDED}\"%")).execute(&mut *tx).await?;
    query(RESTART).bind(goal_id).bind(now).execute(tx).await?;
    Ok(())
}
