//! The journal.
use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::db::{Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        chat::Usage,
        run::RunUsage,
        step::{Step, StepKind, StepWrite},
    },
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
            inherited: row.get::<i64>("fence")? == 0,
        })
    }
}

/// A step that starts again, after its worker died, replaces its intent.
pub const START: Sql = Sql::each(
    "INSERT INTO run_steps (run_id, key, ordinal, kind, name, status, fence, intent, started_at)
     SELECT s.run_id, s.key, s.ordinal, s.kind, s.name, 'started', s.fence, s.intent, $2 FROM json_to_recordset($1::json)
         AS s (run_id UUID, key TEXT, ordinal BIGINT, kind TEXT, name TEXT, fence BIGINT, intent TEXT)
     ON CONFLICT (run_id, key) DO UPDATE SET fence = excluded.fence, intent = excluded.intent, started_at = excluded.started_at
         WHERE run_steps.status = 'started'
     RETURNING run_id AS id",
    "INSERT INTO run_steps (run_id, key, ordinal, kind, name, status, fence, intent, started_at)
     SELECT unhex(s.value ->> 'run_id'), s.value ->> 'key', s.value ->> 'ordinal', s.value ->> 'kind', s.value ->> 'name', 'started',
         s.value ->> 'fence', s.value ->> 'intent', $2 FROM json_each($1) AS s WHERE TRUE
     ON CONFLICT (run_id, key) DO UPDATE SET fence = excluded.fence, intent = excluded.intent, started_at = excluded.started_at
         WHERE run_steps.status = 'started'
     RETURNING run_id AS id",
);
/// `COALESCE` keeps Postgres from reading all steps that are started, which it takes for few. A commit whose answer was lost is tried
/// again: what the same execution has finished with the same result is finished.
pub const FINISH: Sql = Sql::each(
    "UPDATE run_steps SET status = 'finished', result = s.result, finished_at = $2, fence = s.fence
     FROM json_to_recordset($1::json) AS s (run_id UUID, key TEXT, fence BIGINT, result TEXT)
     WHERE run_steps.run_id = s.run_id AND run_steps.key = s.key
         AND COALESCE(run_steps.status = 'started' OR run_steps.fence = s.fence AND run_steps.result = s.result, FALSE)
     RETURNING run_steps.run_id AS id",
    "UPDATE run_steps SET status = 'finished', result = s.result, finished_at = $2, fence = s.fence
     FROM (SELECT unhex(j.value ->> 'run_id') AS id, j.value ->> 'key' AS name_key, j.value ->> 'fence' AS fence,
               j.value ->> 'result' AS result FROM json_each($1) AS j) AS s
     WHERE run_steps.run_id = s.id AND run_steps.key = s.name_key
         AND (run_steps.status = 'started' OR run_steps.fence = s.fence AND run_steps.result = s.result) RETURNING run_id AS id",
);
pub const ABANDON: Sql = Sql::each(
    "DELETE FROM run_steps USING json_to_recordset($1::json) AS s (run_id UUID, key TEXT)
     WHERE run_steps.run_id = s.run_id AND run_steps.key = s.key AND COALESCE(run_steps.status = 'started', FALSE)
     RETURNING run_steps.run_id AS id",
    "DELETE FROM run_steps WHERE status = 'started' AND (run_id, key) IN
         (SELECT unhex(j.value ->> 'run_id'), j.value ->> 'key' FROM json_each($1) AS j) RETURNING run_id AS id",
);
pub const OF_RUN: Sql =
    Sql::both("SELECT key, ordinal, kind, name, intent, result, fence FROM run_steps WHERE run_id = $1 ORDER BY ordinal, key");
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
/// What a run's own model calls used: one row a call. Those of fence 0 are another run's.
pub const USAGE: Sql = Sql::each(
    "SELECT (result::json ->> 'usage') AS used FROM run_steps
     WHERE run_id = $1 AND kind = 'model' AND status = 'finished' AND fence > 0",
    "SELECT (result ->> 'usage') AS used FROM run_steps
     WHERE run_id = $1 AND kind = 'model' AND status = 'finished' AND fence > 0",
);
pub const STATEMENTS: &[Sql] = &[START, FINISH, ABANDON, OF_RUN, INHERIT, OPEN_MODEL_CALL, USAGE];

/// A write of a run that the caller holds, with the fence it holds it by.
pub struct Held<'a> {
    pub run_id: Uuid,
    pub fence: i64,
    pub step: &'a StepWrite,
}

#[derive(Default, Serialize)]
struct StepRow<'a> {
    #[serde(serialize_with = "simple::serialize")]
    run_id: Uuid,
    fence: i64,
    key: &'a str,
    ordinal: Option<i64>,
    kind: Option<&'a str>,
    name: Option<&'a str>,
    /// JSON in a string: what the TEXT columns hold.
    intent: Option<String>,
    result: Option<String>,
}

/// Writes the steps of many runs, whose fences the caller has checked in this transaction: one statement for each kind of write.
pub async fn write(tx: &mut Tx, held: &[Held<'_>], now: Timestamp) -> Result<()> {
    let (mut starts, mut finishes, mut abandons) = (Vec::new(), Vec::new(), Vec::new());
    for &Held { run_id, fence, step } in held {
        let row = |key| StepRow { run_id, fence, key, ..StepRow::default() };
        match step {
            StepWrite::Start { key, ordinal, kind, name, intent } => starts.push(StepRow {
                ordinal: Some(*ordinal),
                kind: Some(kind.as_str()),
                name: Some(name),
                intent: Some(intent.to_string()),
                ..row(key)
            }),
            StepWrite::Finish { key, result } => finishes.push(StepRow { result: Some(result.to_string()), ..row(key) }),
            StepWrite::Abandon { key } => abandons.push(row(key)),
        }
    }
    for (sql, rows) in [(START, starts), (FINISH, finishes), (ABANDON, abandons)] {
        if rows.is_empty() {
            continue;
        }
        let mut statement = query(sql).bind_json(&rows)?;
        if sql != ABANDON {
            statement = statement.bind(now);
        }
        // A finished step never starts or finishes again: that would be work done twice.
        let changed = statement.all::<Uuid>(&mut *tx).await?.len();
        if changed != rows.len() {
            return Err(Error::internal(format!(
                "{} of {} steps were not in the state to be written",
                rows.len() - changed,
                rows.len()
            )));
        }
    }
    Ok(())
}

pub async fn of_run(db: &Db, run_id: Uuid) -> Result<Vec<Step>> {
    query(OF_RUN).bind(run_id).all(db).await
}

pub async fn inherit(tx: &mut Tx, to: Uuid, from: Uuid) -> Result<()> {
    query(INHERIT).bind(to).bind(from).execute(tx).await?;
    Ok(())
}

struct Used(Usage);

impl FromRow for Used {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.opt_json("used")?.unwrap_or_default()))
    }
}

/// What the run's model calls used, as far as the journal knows; `None` when it made none.
pub async fn usage(tx: &mut Tx, run_id: Uuid) -> Result<Option<RunUsage>> {
    let calls = query(USAGE).bind(run_id).all::<Used>(tx).await?;
    let sum = |mut sum: RunUsage, call: &Used| {
        sum.add(call.0);
        sum
    };
    Ok((!calls.is_empty()).then(|| calls.iter().fold(RunUsage::default(), sum)))
}

/// The message that a model call was streaming when its worker stopped, if one was.
pub async fn open_message<'a>(on: impl Into<On<'a>>, run_id: Uuid) -> Result<Option<String>> {
    let Some(row) = query(OPEN_MODEL_CALL).bind(run_id).optional(on).await? else { return Ok(None) };
    let intent: serde_json::Value = row.json("intent")?;
    Ok(intent["messageId"].as_str().map(str::to_owned))
}
