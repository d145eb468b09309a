//! Decisions that runs wait for.
use serde_json::json;
use uuid::Uuid;

use super::db::{Db, FromRow, On, Row, Sql, Tx, query};
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
            resolved_at: row.opt_time("resolved_at")?,
        })
    }
}

pub const INSERT: Sql = Sql::each(
    "INSERT INTO approvals (id, owner, run_id, kind, status, reason, subject, created_at, expires_at)
     SELECT a.id, r.owner, r.id, a.kind, 'pending', a.reason, a.subject, $2, a.expires_at FROM json_to_recordset($1::json)
         AS a (id UUID, run_id UUID, kind TEXT, reason TEXT, subject TEXT, expires_at BIGINT) JOIN runs r ON r.id = a.run_id
     ON CONFLICT (id) DO NOTHING",
    "INSERT INTO approvals (id, owner, run_id, kind, status, reason, subject, created_at, expires_at)
     SELECT unhex(a.value ->> 'id'), r.owner, r.id, a.value ->> 'kind', 'pending', a.value ->> 'reason', a.value ->> 'subject', $2,
         a.value ->> 'expires_at' FROM json_each($1) AS a JOIN runs r ON r.id = unhex(a.value ->> 'run_id') WHERE TRUE
     ON CONFLICT (id) DO NOTHING",
);
/// The decision of the owner, while one is wanted.
pub const RESOLVE: Sql = Sql::both(
    "UPDATE approvals SET status = $3, comment = $4, resolved_at = $5
     WHERE id = $1 AND owner = $2 AND status = 'pending' AND expires_at > $5
     RETURNING id, run_id, kind, status, reason, subject, comment, created_at, expires_at, resolved_at",
);
pub const EXPIRE: Sql = Sql::both(
    "UPDATE approvals SET status = 'expired', resolved_at = $2 WHERE run_id = $1 AND status = 'pending' AND expires_at <= $2
     RETURNING id",
);
pub const CANCEL_OF_RUN: Sql =
    Sql::both("UPDATE approvals SET status = 'cancelled', resolved_at = $2 WHERE run_id = $1 AND status = 'pending'");
pub const OF_RUN: Sql = Sql::both(
    "SELECT id, run_id, kind, status, reason, subject, comment, created_at, expires_at, resolved_at FROM approvals
     WHERE run_id = $1 ORDER BY id",
);
/// What nobody decided in time is expired, whether its run has noticed or not. `$3` is the time.
pub const BY_ID: Sql = Sql::both(
    "SELECT id, run_id, kind, CASE WHEN status = 'pending' AND expires_at <= $3 THEN 'expired' ELSE status END AS status, reason,
         subject, comment, created_at, expires_at, resolved_at FROM approvals WHERE id = $1 AND owner = $2",
);
/// Pending first, then the newest.
pub const LIST: Sql = Sql::both(
    "SELECT id, run_id, kind, status, reason, subject, comment, created_at, expires_at, resolved_at FROM
     (SELECT a.id, a.run_id, a.kind, CASE WHEN a.status = 'pending' AND a.expires_at <= $2 THEN 'expired' ELSE a.status END AS status,
          a.reason, a.subject, a.comment, a.created_at, a.expires_at, a.resolved_at FROM approvals a WHERE a.owner = $1) AS mine
     WHERE (CAST($3 AS TEXT) IS NULL OR status = $3) AND LOWER(reason) LIKE $4 ESCAPE '\\'
     ORDER BY CASE WHEN status = 'pending' THEN 0 ELSE 1 END, id DESC LIMIT $5 OFFSET $6",
);
pub const TOTAL: Sql = Sql::both(
    "SELECT COUNT(*) AS n FROM
     (SELECT CASE WHEN a.status = 'pending' AND a.expires_at <= $2 THEN 'expired' ELSE a.status END AS status, a.reason
      FROM approvals a WHERE a.owner = $1) AS mine
     WHERE (CAST($3 AS TEXT) IS NULL OR status = $3) AND LOWER(reason) LIKE $4 ESCAPE '\\'",
);
pub const STATEMENTS: &[Sql] = &[INSERT, RESOLVE, EXPIRE, CANCEL_OF_RUN, OF_RUN, BY_ID, LIST, TOTAL];

/// Keeps what runs ask for; each with the run that asks, whose owner decides.
pub async fn insert(tx: &mut Tx, asked: &[(Uuid, &NewApproval)], now: Timestamp) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let row = |(run_id, a): &(Uuid, &NewApproval)| {
        json!({
            "id": a.id.simple().to_string(), "run_id": run_id.simple().to_string(), "kind": a.kind.as_str(), "reason": a.reason,
            "subject": a.subject.to_string(), "expires_at": a.expires_at,
        })
    };
    query(INSERT).bind_json(&asked.iter().map(row).collect::<Vec<_>>())?.bind(now).execute(tx).await?;
    Ok(())
}

/// `None`: it is not `owner`'s, or no decision is wanted any more.
pub async fn resolve(
    tx: &mut Tx,
    owner: &Owner,
    id: Uuid,
    decision: Decision,
    comment: Option<&str>,
    now: Timestamp,
) -> Result<Option<Approval>> {
    let statement = query(RESOLVE).bind(id).bind(owner.as_str()).bind(decision.status().as_str());
    statement.bind(comment.map(str::to_owned)).bind(now).optional_as(tx).await
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

pub async fn by_id<'a>(on: impl Into<On<'a>>, owner: &Owner, id: Uuid, now: Timestamp) -> Result<Option<Approval>> {
    query(BY_ID).bind(id).bind(owner.as_str()).bind(now).optional_as(on).await
}

pub async fn list(db: &Db, owner: &Owner, page: &PageRequest, now: Timestamp) -> Result<Vec<Approval>> {
    let statement = query(LIST).bind(owner.as_str()).bind(now).bind(page.status.clone()).bind(page.pattern());
    statement.bind(page.size).bind(page.offset()).all(db).await
}

pub async fn total(db: &Db, owner: &Owner, page: &PageRequest, now: Timestamp) -> Result<i64> {
    let statement = query(TOTAL).bind(owner.as_str()).bind(now).bind(page.status.clone()).bind(page.pattern());
    statement.one(db).await?.get("n")
}
