//! What a goal's run does to all of its goal's tasks at once.
use uuid::Uuid;

use super::db::{Sql, Tx, query};
use crate::{clock::Timestamp, error::Result};

/// The one way back from where the table of transitions has none: a goal that is executed anew begins as it was planned.
pub const RENEW: Sql = Sql::both(
    "UPDATE tasks SET status = 'pending', result = NULL, error = NULL, attempt = 0, run_id = NULL, usage = '{}', started_at = NULL,
         finished_at = NULL, version = version + 1, updated_at = $2
     WHERE goal_id = $1 AND (status IN ('completed', 'failed', 'rejected') OR status = 'cancelled' AND error LIKE $3)",
);
pub const RESTART: Sql = Sql::both("UPDATE goals SET started_at = $2, finished_at = NULL WHERE id = $1");
pub const STATEMENTS: &[Sql] = &[RENEW, RESTART];

/// Of tasks that were cancelled because their goal ended, and not because they were taken out of the plan.
pub const GOAL_ENDED: &str = "GOAL_ENDED";

/// All tasks of the plan that have ended are to be done again.
pub async fn renew(tx: &mut Tx, goal_id: Uuid, now: Timestamp) -> Result<()> {
    query(RENEW).bind(goal_id).bind(now).bind(format!("%\"{GOAL_ENDED}\"%")).execute(&mut *tx).await?;
    query(RESTART).bind(goal_id).bind(now).execute(tx).await?;
    Ok(())
}
