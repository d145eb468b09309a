//! Schedules and their fires. Whoever makes a schedule fire, or tells it of an end, holds its row: what waits and what runs is counted
//! under that lock.
use serde::Serialize;
use uuid::{Uuid, serde::simple};

use super::db::{Class, Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        agent::Status,
        caller::Owner,
        page::{Listed, PageRequest},
        run::RunState,
        schedule::{FireStatus, Schedule, Target, TargetKind},
    },
    error::{Error, Result},
};

impl FromRow for Schedule {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("target_kind")?;
        let kind = TargetKind::parse(&kind).ok_or_else(|| Error::internal(format!("a stored schedule starts a {kind}")))?;
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            target: Target { kind, id: row.get("target_id")? },
            spec: row.json("spec")?,
            enabled: row.get("enabled")?,
            paused_reason: row.get("paused_reason")?,
            failures: row.get("failures")?,
            fired_until: row.time("fired_until")?,
            next_at: row.opt_time("next_at")?,
            version: row.get("version")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

/// A row of a schedule's history, with how its run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    pub schedule_id: Uuid,
    pub scheduled_for: Timestamp,
    pub status: FireStatus,
    pub by_hand: bool,
    pub run_id: Option<Uuid>,
    /// `None`: it has none, or is past retention.
    pub run_state: Option<RunState>,
    pub detail: Option<String>,
    pub fired_at: Timestamp,
}

fn status(row: &Row) -> Result<FireStatus> {
    let status: String = row.get("status")?;
    FireStatus::parse(&status).ok_or_else(|| Error::internal(format!("a stored fire is {status}")))
}

impl FromRow for Fire {
    fn from_row(row: &Row) -> Result<Self> {
        let state: Option<String> = row.get("state")?;
        let parse = |s: String| RunState::parse(&s).ok_or_else(|| Error::internal(format!("a stored run has the state {s}")));
        Ok(Self {
            schedule_id: row.get("schedule_id")?,
            scheduled_for: row.time("scheduled_for")?,
            status: status(row)?,
            by_hand: row.get("by_hand")?,
            run_id: row.get("run_id")?,
            run_state: state.map(parse).transpose()?,
            detail: row.get("detail")?,
            fired_at: row.time("fired_at")?,
        })
    }
}

/// A fire about to be stored.
#[derive(Clone, Debug, Serialize)]
pub struct NewFire {
    #[serde(serialize_with = "simple::serialize")]
    pub schedule_id: Uuid,
    pub scheduled_for: i64,
    pub status: &'static str,
    pub by_hand: bool,
    #[serde(serialize_with = "simple::option::serialize")]
    pub run_id: Option<Uuid>,
    pub detail: Option<String>,
}

/// A fire's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub schedule_id: Uuid,
    pub scheduled_for: Timestamp,
}

impl FromRow for Key {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { schedule_id: row.get("schedule_id")?, scheduled_for: row.time("scheduled_for")? })
    }
}

/// A fire that has not come to its end: it waits, or its run goes on.
pub struct Open {
    pub schedule_id: Uuid,
    /// `None`: it waits.
    pub run_id: Option<Uuid>,
}

impl FromRow for Open {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { schedule_id: row.get("schedule_id")?, run_id: row.get("run_id")? })
    }
}

/// An agent that a schedule names, as its owner may run it.
pub struct Runnable {
    pub owner: String,
    pub id: Uuid,
    pub version: i64,
    pub status: Status,
}

impl FromRow for Runnable {
    fn from_row(row: &Row) -> Result<Self> {
        let status: String = row.get("status")?;
        Ok(Self {
            owner: row.get("owner")?,
            id: row.get("id")?,
            version: row.get("version")?,
            status: Status::parse(&status).ok_or_else(|| Error::internal(format!("a stored agent is {status}")))?,
        })
    }
}

/// How far a schedule has come.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    #[serde(serialize_with = "simple::serialize")]
    pub id: Uuid,
    pub fired_until: i64,
    pub next_at: Option<i64>,
    pub failures: i64,
    pub enabled: bool,
    pub paused_reason: Option<String>,
}

impl From<&Schedule> for Progress {
    fn from(s: &Schedule) -> Self {
        Self {
            id: s.id,
            fired_until: s.fired_until.0,
            next_at: s.next_at.map(|at| at.0),
            failures: s.failures,
            enabled: s.enabled,
            paused_reason: s.paused_reason.clone(),
        }
    }
}

macro_rules! columns {
    () => {
        "SELECT id, owner, name, target_kind, target_id, spec, enabled, paused_reason, failures, fired_until, next_at, version, created_at,
             updated_at FROM schedules "
    };
}
macro_rules! listed {
    () => {
        "WHERE owner = $1 AND CASE WHEN enabled THEN 'enabled' ELSE 'paused' END = COALESCE($2, CASE WHEN enabled THEN 'enabled' ELSE 'paused' END)
           AND LOWER(name) LIKE $3 ESCAPE '\\' "
    };
}
macro_rules! fires {
    () => {
        "SELECT f.schedule_id, f.scheduled_for, f.status, f.by_hand, f.run_id, r.state, f.detail, f.fired_at "
    };
}

/// One more than they may have is not stored.
pub const INSERT: Sql = Sql::both(
    "INSERT INTO schedules (id, owner, name, target_kind, target_id, spec, enabled, failures, fired_until, next_at, version, created_at,
         updated_at)
     SELECT $1, $2, $3, $4, $5, $6, $7, 0, $8, $9, 1, $8, $8
     WHERE (SELECT COUNT(*) FROM schedules WHERE owner = $2) < $10 RETURNING id",
);
pub const OWNED: Sql = Sql::both(concat!(columns!(), "WHERE id = $1 AND owner = $2"));
pub const HOLD: Sql = Sql::each(
    concat!(columns!(), "WHERE id = $1 AND owner = $2 FOR NO KEY UPDATE"),
    concat!(columns!(), "WHERE id = $1 AND owner = $2"),
);
pub const HOLD_OF_RUN: Sql = Sql::each(
    concat!(columns!(), "WHERE id = (SELECT f.schedule_id FROM schedule_fires f WHERE f.run_id = $1) FOR NO KEY UPDATE"),
    concat!(columns!(), "WHERE id = (SELECT f.schedule_id FROM schedule_fires f WHERE f.run_id = $1)"),
);
/// Those of goals apart from the others: each of them needs its goal's lock.
pub const DUE: Sql = Sql::each(
    concat!(
        columns!(),
        "WHERE enabled AND next_at <= $1 AND (target_kind = 'goal') = $2 ORDER BY next_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED"
    ),
    concat!(columns!(), "WHERE enabled AND next_at <= $1 AND (target_kind = 'goal') = $2 ORDER BY next_at LIMIT $3"),
);
pub const IS_DUE: Sql = Sql::both("SELECT id FROM schedules WHERE enabled AND next_at <= $1 LIMIT 1");
pub const COUNT: Sql = Sql::both(concat!("SELECT COUNT(*) AS n FROM schedules ", listed!()));
pub const LIST: Sql = Sql::both(concat!(
    columns!(),
    listed!(),
    "ORDER BY CASE WHEN $4 = 'name' THEN LOWER(name) END, CASE WHEN $4 = '-name' THEN LOWER(name) END DESC,
         CASE $4 WHEN 'created_at' THEN created_at WHEN 'updated_at' THEN updated_at WHEN 'next_fire_time' THEN next_at END,
         CASE $4 WHEN '-created_at' THEN created_at WHEN '-updated_at' THEN updated_at WHEN '-next_fire_time' THEN next_at END DESC, id DESC
     LIMIT $5 OFFSET $6"
));
/// The row is held.
pub const UPDATE: Sql = Sql::both(
    "UPDATE schedules SET name = $2, target_kind = $3, target_id = $4, spec = $5, enabled = $6, paused_reason = $7, failures = $8,
         fired_until = $9, next_at = $10, version = $11, updated_at = $12 WHERE id = $1",
);
pub const DELETE: Sql = Sql::both("DELETE FROM schedules WHERE id = $1 AND owner = $2 RETURNING id");
/// The rows are held.
pub const ADVANCE: Sql = Sql::each(
    "UPDATE schedules s SET fired_until = GREATEST(s.fired_until, p.fired_until), next_at = p.next_at, failures = p.failures,
         enabled = p.enabled, paused_reason = p.paused_reason
     FROM json_to_recordset($1::json) AS p (id UUID, fired_until BIGINT, next_at BIGINT, failures BIGINT, enabled BOOLEAN, paused_reason TEXT)
     WHERE s.id = p.id",
    "UPDATE schedules SET fired_until = MAX(fired_until, p.value ->> 'fired_until'), next_at = p.value ->> 'next_at',
         failures = p.value ->> 'failures', enabled = p.value ->> 'enabled', paused_reason = p.value ->> 'paused_reason'
     FROM json_each($1) AS p WHERE schedules.id = unhex(p.value ->> 'id')",
);
/// What is there already is left as it is, and not answered: one fire is one run.
pub const FIRE: Sql = Sql::each(
    "INSERT INTO schedule_fires (schedule_id, scheduled_for, status, by_hand, run_id, detail, fired_at)
     SELECT f.schedule_id, f.scheduled_for, f.status, f.by_hand, f.run_id, f.detail, $2
     FROM json_to_recordset($1::json) AS f (schedule_id UUID, scheduled_for BIGINT, status TEXT, by_hand BOOLEAN, run_id UUID, detail TEXT)
     ON CONFLICT (schedule_id, scheduled_for) DO NOTHING RETURNING schedule_id, scheduled_for",
    "INSERT INTO schedule_fires (schedule_id, scheduled_for, status, by_hand, run_id, detail, fired_at)
     SELECT unhex(f.value ->> 'schedule_id'), f.value ->> 'scheduled_for', f.value ->> 'status', f.value ->> 'by_hand',
         unhex(f.value ->> 'run_id'), f.value ->> 'detail', $2 FROM json_each($1) AS f WHERE TRUE
     ON CONFLICT (schedule_id, scheduled_for) DO NOTHING RETURNING schedule_id, scheduled_for",
);
/// A run that is gone counts as ended, told or not.
pub const OPEN: Sql = Sql::each(
    "SELECT f.schedule_id, f.run_id FROM schedule_fires f LEFT JOIN runs r ON r.id = f.run_id
     WHERE f.schedule_id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id)) AND f.status IN ('started', 'buffered')
       AND (f.status = 'buffered' OR r.state IN ('queued', 'running', 'waiting'))",
    "SELECT f.schedule_id, f.run_id FROM schedule_fires f LEFT JOIN runs r ON r.id = f.run_id
     WHERE f.schedule_id IN (SELECT unhex(j.value) FROM json_each($1) AS j) AND f.status IN ('started', 'buffered')
       AND (f.status = 'buffered' OR r.state IN ('queued', 'running', 'waiting'))",
);
pub const NEXT_BUFFERED: Sql = Sql::both(
    "SELECT schedule_id, scheduled_for FROM schedule_fires WHERE schedule_id = $1 AND status IN ('started', 'buffered') AND status = 'buffered'
     ORDER BY scheduled_for LIMIT 1",
);
/// `$5`: what it has to be.
pub const SET_FIRE: Sql = Sql::both(
    "UPDATE schedule_fires SET status = $3, run_id = $4, detail = $6
     WHERE schedule_id = $1 AND scheduled_for = $2 AND status = $5 RETURNING schedule_id AS id",
);
pub const END_FIRE: Sql =
    Sql::both("UPDATE schedule_fires SET status = $2 WHERE run_id = $1 AND status = 'started' RETURNING schedule_id AS id");
pub const DROP_BUFFERED: Sql = Sql::both(
    "UPDATE schedule_fires SET status = 'skipped', detail = $2
     WHERE schedule_id = $1 AND status IN ('started', 'buffered') AND status = 'buffered'",
);
/// Newest first, before an instant.
pub const FIRES: Sql = Sql::both(concat!(
    fires!(),
    "FROM schedule_fires f LEFT JOIN runs r ON r.id = f.run_id
     WHERE f.schedule_id = (SELECT s.id FROM schedules s WHERE s.id = $1 AND s.owner = $2) AND f.scheduled_for < $3
     ORDER BY f.scheduled_for DESC LIMIT $4"
));
pub const ONE_FIRE: Sql = Sql::both(concat!(
    fires!(),
    "FROM schedule_fires f LEFT JOIN runs r ON r.id = f.run_id WHERE f.schedule_id = $1 AND f.scheduled_for = $2"
));
/// The latest five runs of each.
pub const LAST_RUNS: Sql = Sql::each(
    concat!(
        fires!(),
        "FROM json_array_elements_text($1::json) AS j (id) JOIN schedule_fires f ON f.schedule_id = j.id::UUID AND f.run_id IS NOT NULL
         LEFT JOIN runs r ON r.id = f.run_id
         WHERE f.scheduled_for >= COALESCE((SELECT x.scheduled_for FROM schedule_fires x WHERE x.schedule_id = j.id::UUID
             AND x.run_id IS NOT NULL ORDER BY x.scheduled_for DESC LIMIT 1 OFFSET 4), 0)
         ORDER BY f.schedule_id, f.scheduled_for DESC"
    ),
    concat!(
        fires!(),
        "FROM json_each($1) AS j JOIN schedule_fires f ON f.schedule_id = unhex(j.value) AND f.run_id IS NOT NULL
         LEFT JOIN runs r ON r.id = f.run_id
         WHERE f.scheduled_for >= COALESCE((SELECT x.scheduled_for FROM schedule_fires x WHERE x.schedule_id = unhex(j.value)
             AND x.run_id IS NOT NULL ORDER BY x.scheduled_for DESC LIMIT 1 OFFSET 4), 0)
         ORDER BY f.schedule_id, f.scheduled_for DESC"
    ),
);
/// For each owner and agent: as the owner may run it, another's draft not at all.
pub const AGENTS: Sql = Sql::each(
    "SELECT w.owner, a.id, a.version, a.status FROM json_to_recordset($1::json) AS w (owner TEXT, id UUID)
     JOIN agents a ON a.id = w.id AND (a.owner = w.owner OR a.status <> 'draft')",
    "SELECT w.value ->> 'owner' AS owner, a.id, a.version, a.status FROM json_each($1) AS w
     JOIN agents a ON a.id = unhex(w.value ->> 'id') AND (a.owner = w.value ->> 'owner' OR a.status <> 'draft')",
);
pub const FORGET: Sql = Sql::both(
    "DELETE FROM schedule_fires WHERE (schedule_id, scheduled_for) IN (SELECT f.schedule_id, f.scheduled_for FROM schedule_fires f
         WHERE f.fired_at < $1 AND f.status <> 'buffered' ORDER BY f.fired_at LIMIT $2) RETURNING schedule_id AS id",
);
pub const STATEMENTS: &[Sql] = &[
    INSERT,
    OWNED,
    HOLD,
    HOLD_OF_RUN,
    DUE,
    IS_DUE,
    COUNT,
    LIST,
    UPDATE,
    DELETE,
    ADVANCE,
    FIRE,
    OPEN,
    NEXT_BUFFERED,
    SET_FIRE,
    END_FIRE,
    DROP_BUFFERED,
    FIRES,
    ONE_FIRE,
    LAST_RUNS,
    AGENTS,
    FORGET,
];

/// `false`: its owner has `most` already.
pub async fn insert(db: &Db, s: &Schedule, most: i64) -> Result<bool> {
    let statement = query(INSERT).bind(s.id).bind(&s.owner).bind(&s.name).bind(s.target.kind.as_str()).bind(&s.target.id);
    let statement = statement.bind_json(&s.spec)?.bind(s.enabled).bind(s.created_at).bind(s.next_at).bind(most);
    Ok(!statement.write::<Uuid>(db, Class::Request).await?.is_empty())
}

pub async fn owned(db: &Db, id: Uuid, owner: &Owner) -> Result<Option<Schedule>> {
    query(OWNED).bind(id).bind(owner.as_str()).optional_as(db).await
}

/// Locks it.
pub async fn hold(tx: &mut Tx, id: Uuid, owner: &Owner) -> Result<Option<Schedule>> {
    query(HOLD).bind(id).bind(owner.as_str()).optional_as(tx).await
}

/// Locks the one that a run was fired by.
pub async fn hold_of_run(tx: &mut Tx, run_id: Uuid) -> Result<Option<Schedule>> {
    query(HOLD_OF_RUN).bind(run_id).optional_as(tx).await
}

/// Locks those that are due and that nobody else holds, the longest due first.
pub async fn due(tx: &mut Tx, now: Timestamp, goals: bool, limit: i64) -> Result<Vec<Schedule>> {
    query(DUE).bind(now).bind(goals).bind(limit).all(tx).await
}

/// Whether anything is: most looks find nothing.
pub async fn is_due(db: &Db, now: Timestamp) -> Result<bool> {
    Ok(query(IS_DUE).bind(now).optional(db).await?.is_some())
}

/// Newest first when no order is asked for.
pub async fn list(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<Schedule>> {
    let of = |sql: Sql| query(sql).bind(owner.as_str()).bind(page.status.clone()).bind(page.pattern());
    let total = of(COUNT).one(db).await?.get("n")?;
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    Ok(Listed { items: of(LIST).bind(sort).bind(page.size).bind(page.offset()).all(db).await?, total })
}

/// Of a schedule that is held.
pub async fn update(tx: &mut Tx, s: &Schedule) -> Result<()> {
    let statement = query(UPDATE).bind(s.id).bind(&s.name).bind(s.target.kind.as_str()).bind(&s.target.id).bind_json(&s.spec)?;
    let statement = statement.bind(s.enabled).bind(s.paused_reason.clone()).bind(s.failures).bind(s.fired_until).bind(s.next_at);
    statement.bind(s.version).bind(s.updated_at).execute(tx).await?;
    Ok(())
}

/// With its history. Whether there was one.
pub async fn delete(db: &Db, id: Uuid, owner: &Owner) -> Result<bool> {
    let deleted: Vec<Uuid> = query(DELETE).bind(id).bind(owner.as_str()).write(db, Class::Request).await?;
    Ok(!deleted.is_empty())
}

/// Of schedules that are held.
pub async fn advance(tx: &mut Tx, progress: &[Progress]) -> Result<()> {
    if !progress.is_empty() {
        query(ADVANCE).bind_json(&progress)?.execute(tx).await?;
    }
    Ok(())
}

/// Answers those that are new.
pub async fn fire(tx: &mut Tx, fires: &[NewFire], now: Timestamp) -> Result<Vec<Key>> {
    if fires.is_empty() {
        return Ok(Vec::new());
    }
    query(FIRE).bind_json(&fires)?.bind(now).all(tx).await
}

/// What of these schedules waits or goes on.
pub async fn open(tx: &mut Tx, schedules: &[Uuid]) -> Result<Vec<Open>> {
    if schedules.is_empty() {
        return Ok(Vec::new());
    }
    query(OPEN).bind_ids(schedules).all(tx).await
}

/// The instant that has waited longest.
pub async fn next_buffered(tx: &mut Tx, schedule: Uuid) -> Result<Option<Timestamp>> {
    Ok(query(NEXT_BUFFERED).bind(schedule).optional_as::<Key>(tx).await?.map(|key| key.scheduled_for))
}

/// A compare-and-set on its status.
pub async fn set_fire(
    tx: &mut Tx,
    key: Key,
    from: FireStatus,
    to: FireStatus,
    run_id: Option<Uuid>,
    detail: Option<&str>,
) -> Result<bool> {
    let statement = query(SET_FIRE).bind(key.schedule_id).bind(key.scheduled_for).bind(to.as_str()).bind(run_id);
    Ok(statement.bind(from.as_str()).bind(detail.map(str::to_owned)).optional(tx).await?.is_some())
}

/// What a run's end makes of its fire; `false`: that was told already.
pub async fn end_fire(tx: &mut Tx, run_id: Uuid, to: FireStatus) -> Result<bool> {
    Ok(query(END_FIRE).bind(run_id).bind(to.as_str()).optional(tx).await?.is_some())
}

/// What waits is done without.
pub async fn drop_buffered(tx: &mut Tx, schedule: Uuid, why: &str) -> Result<()> {
    query(DROP_BUFFERED).bind(schedule).bind(why).execute(tx).await?;
    Ok(())
}

/// The history before an instant, latest first.
pub async fn fires(db: &Db, id: Uuid, owner: &Owner, before: Timestamp, limit: i64) -> Result<Vec<Fire>> {
    query(FIRES).bind(id).bind(owner.as_str()).bind(before).bind(limit).all(db).await
}

pub async fn one_fire(tx: &mut Tx, key: Key) -> Result<Option<Fire>> {
    query(ONE_FIRE).bind(key.schedule_id).bind(key.scheduled_for).optional_as(tx).await
}

/// The latest five of each, latest first; one statement for all.
pub async fn last_runs(db: &Db, schedules: &[Uuid]) -> Result<Vec<Fire>> {
    query(LAST_RUNS).bind_ids(schedules).all(db).await
}

/// Agents by owner and id, as far as these owners may run them.
pub async fn agents(tx: &mut Tx, wanted: &[(&str, Uuid)]) -> Result<Vec<Runnable>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<_> = wanted.iter().map(|(owner, id)| serde_json::json!({ "owner": owner, "id": id.simple() })).collect();
    query(AGENTS).bind_json(&wanted)?.all(tx).await
}

/// Forgets fires from before `before`. Answers how many.
pub async fn forget(db: &Db, before: Timestamp, batch: i64) -> Result<usize> {
    Ok(query(FORGET).bind(before).bind(batch).write::<Uuid>(db, Class::Background).await?.len())
}
