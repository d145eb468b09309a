//! The journal.
use uuid::Uuid;

use super::db::{Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::step::{Step, StepKind, StepWrite},
    error::{Error, Result},
};

impl FromRow for Step {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        Ok(Self {
            key: row.get("key")?,
            ordinal: row.get("ordinal")?,
            kind: StepKind::parse(&kind).ok_or_else(|| Error::internal(format!("a stored step has the kind {kind}")))?,
            name: row.get("name")?,
            intent: row.json("intent")?,
            result: row.opt_json("result")?,
        })
    }
}

/// A step that starts again, after its worker died, replaces its intent.
pub const START: Sql = Sql::both(
    "INSERT INTO run_steps (run_id, key, ordinal, kind, name, status, fence, intent, started_at)
     VALUES ($1, $2, $3, $4, $5, 'started', $6, $7, $8)
     ON CONFLICT (run_id, key) DO UPDATE SET fence = $6, intent = $7, started_at = $8 WHERE run_steps.status = 'started'
     RETURNING key",
);
pub const FINISH: Sql = Sql::both(
    "UPDATE run_steps SET status = 'finished', result = $3, finished_at = $4, fence = $5
     WHERE run_id = $1 AND key = $2 AND status = 'started' RETURNING key",
);
pub const ABANDON: Sql = Sql::both("DELETE FROM run_steps WHERE run_id = $1 AND key = $2 AND status = 'started' RETURNING key");
pub const OF_RUN: Sql =
    Sql::both("SELECT key, ordinal, kind, name, intent, result FROM run_steps WHERE run_id = $1 ORDER BY ordinal, key");
/// A retry begins with the finished steps of the run that it retries, and with the tool calls that were started and whose outcome
/// is unknown: they may have taken effect.
pub const INHERIT: Sql = Sql::both(
    "INSERT INTO run_steps (run_id, key, ordinal, kind, name, status, fence, intent, result, started_at, finished_at)
     SELECT $1, key, ordinal, kind, name, status, 0, intent, result, started_at, finished_at FROM run_steps
     WHERE run_id = $2 AND (status = 'finished' OR kind = 'tool')",
);
pub const OPEN_MODEL_CALL: Sql = Sql::both(
    "SELECT intent FROM run_steps WHERE run_id = $1 AND kind = 'model' AND status = 'started' ORDER BY ordinal LIMIT 1",
);
pub const STATEMENTS: &[Sql] = &[START, FINISH, ABANDON, OF_RUN, INHERIT, OPEN_MODEL_CALL];

/// The caller has checked the run's fence in this transaction.
pub async fn write(tx: &mut Tx, run_id: Uuid, fence: i64, step: &StepWrite, now: Timestamp) -> Result<()> {
    let changed = match step {
        StepWrite::Start { key, ordinal, kind, name, intent } => {
            let statement = query(START).bind(run_id).bind(key).bind(*ordinal).bind(kind.as_str()).bind(name).bind(fence);
            statement.bind_json(intent)?.bind(now).optional(tx).await?
        }
        StepWrite::Finish { key, result } => {
            query(FINISH).bind(run_id).bind(key).bind_json(result)?.bind(now).bind(fence).optional(tx).await?
        }
        StepWrite::Abandon { key } => query(ABANDON).bind(run_id).bind(key).optional(tx).await?,
    };
    // A finished step never starts or finishes again: that would be work done twice.
    changed.map(|_| ()).ok_or_else(|| Error::internal(format!("step of run {run_id} was finished already: {step:?}")))
}

pub async fn of_run(db: &Db, run_id: Uuid) -> Result<Vec<Step>> {
    query(OF_RUN).bind(run_id).all(db).await
}

pub async fn inherit(tx: &mut Tx, to: Uuid, from: Uuid) -> Result<()> {
    query(INHERIT).bind(to).bind(from).execute(tx).await?;
    Ok(())
}

/// The message that a model call was streaming when its worker stopped, if one was.
pub async fn open_message<'a>(on: impl Into<On<'a>>, run_id: Uuid) -> Result<Option<String>> {
    let Some(row) = query(OPEN_MODEL_CALL).bind(run_id).optional(on).await? else { return Ok(None) };
    let intent: serde_json::Value = row.json("intent")?;
    Ok(intent["messageId"].as_str().map(str::to_owned))
}
