//! Decisions that runs wait for.
use serde_json::json;
use uuid::Uuid;

use super::db::{Db, FromRow, On, Query, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        approval::{Approval, ApprovalKind, ApprovalStatus, Decision, NewApproval},
        caller::Owner,
        page::PageRequest,
    },
    error::{Error, Result},
};

impl FromRow for Approval {
    fn from_row(row: &Row) -> Result<Self> {
        let (kind, status): (String, String) = (row.get("kind")?, row.get("status")?);
        let unknown = |what: &str| Error::internal(format!("a stored approval has the {what} {kind} or {status}"));
        Ok(Self {
            id: row.get("id")?,
            run_id: row.get("run_id")?,
            kind: ApprovalKind::parse(&kind).ok_or_else(|| unknown("kind"))?,
            status: ApprovalStatus::parse(&status).ok_or_else(|| unknown("status"))?,
            reason: row.get("reason")?,
            subject: row.json("subject")?,
            comment: row.get("comment")?,
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
            escalated_at: row.opt_time("escalated_at")?,
            resolved_at: row.opt_time("resolved_at")?,
            resolved_by: row.get("resolved_by")?,
        })
    }
}

macro_rules! columns {
    () => {
        "id, run_id, kind, status, reason, subject, comment, created_at, expires_at, escalated_at, resolved_at, resolved_by"
    };
}

/// What the owner `$1` has to decide; with `$5` also what others have not decided for too long. `$2` is the time: what nobody decided
/// until then is expired, whether its run has noticed or not.
macro_rules! seen {
    () => {
        " FROM (SELECT a.id, a.run_id, a.kind, CASE WHEN a.status = 'pending' AND a.expires_at <= $2 THEN 'expired' ELSE a.status END AS status,
              a.reason, a.subject, a.comment, a.created_at, a.expires_at, a.escalated_at, a.resolved_at, a.resolved_by
          FROM (SELECT id FROM approvals WHERE owner = $1 UNION SELECT id FROM approvals WHERE escalated_at IS NOT NULL AND $5) AS mine
          JOIN approvals a ON a.id = mine.id) AS seen
          WHERE (CAST($3 AS TEXT) IS NULL OR status = $3) AND LOWER(reason) LIKE $4 ESCAPE '\\' "
    };
}

pub const INSERT: Sql = Sql::each(
    "INSERT INTO approvals (id, owner, run_id, kind, status, reason, subject, created_at, expires_at, escalate_at)
     SELECT a.id, r.owner, r.id, a.kind, 'pending', a.reason, a.subject, $2, a.expires_at, a.escalate_at
     FROM json_to_recordset($1::json)
         AS a (id UUID, run_id UUID, kind TEXT, reason TEXT, subject TEXT, expires_at BIGINT, escalate_at BIGINT)
     JOIN runs r ON r.id = a.run_id ON CONFLICT (id) DO NOTHING",
    "INSERT INTO approvals (id, owner, run_id, kind, status, reason, subject, created_at, expires_at, escalate_at)
     SELECT unhex(a.value ->> 'id'), r.owner, r.id, a.value ->> 'kind', 'pending', a.value ->> 'reason', a.value ->> 'subject', $2,
         a.value ->> 'expires_at', a.value ->> 'escalate_at'
     FROM json_each($1) AS a JOIN runs r ON r.id = unhex(a.value ->> 'run_id') WHERE TRUE ON CONFLICT (id) DO NOTHING",
);
/// The decision of the owner, or of whom it was escalated to (`$6`), while one is wanted.
pub const RESOLVE: Sql = Sql::both(concat!(
    "UPDATE approvals SET status = $3, comment = $4, resolved_at = $5, resolved_by = $2
     WHERE id = $1 AND (owner = $2 OR ($6 AND escalated_at IS NOT NULL)) AND status = 'pending' AND expires_at > $5 RETURNING ",
    columns!()
));
pub const EXPIRE: Sql = Sql::both(
    "UPDATE approvals SET status = 'expired', resolved_at = $2 WHERE run_id = $1 AND status = 'pending' AND expires_at <= $2
     RETURNING id",
);
pub const CANCEL_OF_RUN: Sql =
    Sql::both("UPDATE approvals SET status = 'cancelled', resolved_at = $2 WHERE run_id = $1 AND status = 'pending'");
pub const OF_RUN: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM approvals WHERE run_id = $1 ORDER BY id"));
pub const BY_ID: Sql = Sql::both(
    "SELECT id, run_id, kind, CASE WHEN status = 'pending' AND expires_at <= $3 THEN 'expired' ELSE status END AS status, reason, subject,
         comment, created_at, expires_at, escalated_at, resolved_at, resolved_by
     FROM approvals WHERE id = $1 AND (owner = $2 OR ($4 AND escalated_at IS NOT NULL))",
);
/// Pending first, then the newest.
pub const LIST: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    seen!(),
    "ORDER BY CASE WHEN status = 'pending' THEN 0 ELSE 1 END, id DESC LIMIT $6 OFFSET $7"
));
pub const TOTAL: Sql = Sql::both(concat!("SELECT COUNT(*) AS n", seen!()));
/// Whether the two below have something to do.
pub const ANY_DUE: Sql = Sql::both(
    "SELECT id FROM (SELECT id FROM approvals WHERE status = 'pending' AND expires_at <= $1 LIMIT 1) AS expired
     UNION ALL SELECT id FROM (SELECT id FROM approvals WHERE escalate_at IS NOT NULL AND status = 'pending' AND escalate_at <= $1 LIMIT 1)
         AS escalated",
);
/// Those that another transaction decides are left out.
pub const EXPIRE_DUE: Sql = Sql::each(
    "UPDATE approvals SET status = 'expired', resolved_at = $1 WHERE id IN (SELECT id FROM approvals
         WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING run_id AS id",
    "UPDATE approvals SET status = 'expired', resolved_at = $1 WHERE id IN (SELECT id FROM approvals
         WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT $2) RETURNING run_id AS id",
);
pub const ESCALATE_DUE: Sql = Sql::each(
    "UPDATE approvals SET escalated_at = $1, escalate_at = NULL WHERE id IN (SELECT id FROM approvals
         WHERE escalate_at IS NOT NULL AND status = 'pending' AND escalate_at <= $1 AND expires_at > $1 ORDER BY escalate_at LIMIT $2
         FOR UPDATE SKIP LOCKED) RETURNING id, owner, reason",
    "UPDATE approvals SET escalated_at = $1, escalate_at = NULL WHERE id IN (SELECT id FROM approvals
         WHERE escalate_at IS NOT NULL AND status = 'pending' AND escalate_at <= $1 AND expires_at > $1 ORDER BY escalate_at LIMIT $2)
     RETURNING id, owner, reason",
);
pub const STATEMENTS: &[Sql] =
    &[INSERT, RESOLVE, EXPIRE, CANCEL_OF_RUN, OF_RUN, BY_ID, LIST, TOTAL, ANY_DUE, EXPIRE_DUE, ESCALATE_DUE];

/// Whose approvals somebody may see and decide: their own, and for an administrator those that were escalated.
#[derive(Clone, Copy)]
pub struct Decider<'a> {
    pub owner: &'a Owner,
    pub is_admin: bool,
}

/// One that nobody has decided for too long.
pub struct Escalated {
    pub id: Uuid,
    pub owner: String,
    pub reason: String,
}

impl FromRow for Escalated {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.get("id")?, owner: row.get("owner")?, reason: row.get("reason")? })
    }
}

/// Keeps what runs ask for; each with the run that asks, whose owner decides.
pub async fn insert(tx: &mut Tx, asked: &[(Uuid, &NewApproval)], now: Timestamp) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let row = |(run_id, a): &(Uuid, &NewApproval)| {
        json!({
            "id": a.id.simple(), "run_id": run_id.simple(), "kind": a.kind.as_str(), "reason": a.reason,
            "subject": a.subject.to_string(), "expires_at": a.expires_at, "escalate_at": a.escalate_at,
        })
    };
    query(INSERT).bind_json(&asked.iter().map(row).collect::<Vec<_>>())?.bind(now).execute(tx).await?;
    Ok(())
}

/// `None`: it is not theirs to decide, or no decision is wanted any more.
pub async fn resolve(
    tx: &mut Tx,
    by: Decider<'_>,
    id: Uuid,
    decision: Decision,
    comment: Option<&str>,
    now: Timestamp,
) -> Result<Option<Approval>> {
    let statement = query(RESOLVE).bind(id).bind(by.owner.as_str()).bind(decision.status().as_str());
    statement.bind(comment.map(str::to_owned)).bind(now).bind(by.is_admin).optional_as(tx).await
}

/// Closes those of the run whose time is up.
pub async fn expire(tx: &mut Tx, run_id: Uuid, now: Timestamp) -> Result<()> {
    query(EXPIRE).bind(run_id).bind(now).execute(tx).await?;
    Ok(())
}

/// A run that has ended waits for nobody.
pub async fn cancel_of_run(tx: &mut Tx, run_id: Uuid, now: Timestamp) -> Result<()> {
    query(CANCEL_OF_RUN).bind(run_id).bind(now).execute(tx).await?;
    Ok(())
}

pub async fn of_run<'a>(on: impl Into<On<'a>>, run_id: Uuid) -> Result<Vec<Approval>> {
    query(OF_RUN).bind(run_id).all(on).await
}

pub async fn by_id<'a>(on: impl Into<On<'a>>, by: Decider<'_>, id: Uuid, now: Timestamp) -> Result<Option<Approval>> {
    query(BY_ID).bind(id).bind(by.owner.as_str()).bind(now).bind(by.is_admin).optional_as(on).await
}

fn seen(sql: Sql, by: Decider<'_>, page: &PageRequest, now: Timestamp) -> Query {
    query(sql).bind(by.owner.as_str()).bind(now).bind(page.status.clone()).bind(page.pattern()).bind(by.is_admin)
}

pub async fn list(db: &Db, by: Decider<'_>, page: &PageRequest, now: Timestamp) -> Result<Vec<Approval>> {
    seen(LIST, by, page, now).bind(page.size).bind(page.offset()).all(db).await
}

pub async fn total(db: &Db, by: Decider<'_>, page: &PageRequest, now: Timestamp) -> Result<i64> {
    seen(TOTAL, by, page, now).one(db).await?.get("n")
}

/// Whether one has expired or has to be escalated.
pub async fn any_due(db: &Db, now: Timestamp) -> Result<bool> {
    Ok(query(ANY_DUE).bind(now).optional(db).await?.is_some())
}

/// Closes those whose time is up; answers the runs that wait for them.
pub async fn expire_due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    query(EXPIRE_DUE).bind(now).bind(limit).all(tx).await
}

/// Marks those that nobody has decided for too long, once.
pub async fn escalate_due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Escalated>> {
    query(ESCALATE_DUE).bind(now).bind(limit).all(tx).await
}
