//! What users think of answers.
use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        message::MessageBody,
        page::{Listed, PageRequest},
    },
    error::Result,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    pub id: Uuid,
    pub run_id: Uuid,
    pub agent_id: Option<String>,
    /// `None`: the answer as a whole.
    pub message_id: Option<String>,
    pub is_good: bool,
    pub comment: String,
    pub created_at: Timestamp,
}

impl FromRow for Feedback {
    fn from_row(row: &Row) -> Result<Self> {
        let message_id: String = row.get("message_id")?;
        Ok(Self {
            id: row.get("id")?,
            run_id: row.get("run_id")?,
            agent_id: row.get("agent_id")?,
            message_id: Some(message_id).filter(|id| !id.is_empty()),
            is_good: row.get::<i64>("rating")? > 0,
            comment: row.get("comment")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// A bad answer, with what was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Negative {
    pub feedback: Feedback,
    /// The last thing the user said in the run.
    pub question: Option<MessageBody>,
    /// The message that was rated, or the last one of the agent's.
    pub answer: Option<MessageBody>,
}

impl FromRow for Negative {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { feedback: Feedback::from_row(row)?, question: row.opt_json("question")?, answer: row.opt_json("answer")? })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// An agent, or a day as `2026-03-16` (UTC).
    pub of: Option<String>,
    pub good: i64,
    pub bad: i64,
}

struct OfAgent(Share);

impl FromRow for OfAgent {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(Share { of: row.get("agent_id")?, good: row.get("good")?, bad: row.get("bad")? }))
    }
}

struct OfDay(Share);

impl FromRow for OfDay {
    fn from_row(row: &Row) -> Result<Self> {
        let day = Timestamp(row.get::<i64>("day")?.saturating_mul(DAY)).utc().date_naive().to_string();
        Ok(Self(Share { of: Some(day), good: row.get("good")?, bad: row.get("bad")? }))
    }
}

/// Microseconds.
const DAY: i64 = 86_400_000_000;

pub const RATE: Sql = Sql::both(
    "INSERT INTO feedback (id, owner, run_id, agent_id, message_id, rating, comment, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (owner, run_id, message_id) DO UPDATE SET rating = $6, comment = $7, created_at = $8
     RETURNING id, run_id, agent_id, message_id, rating, comment, created_at",
);
pub const HAS_MESSAGE: Sql = Sql::both("SELECT 1 AS one FROM messages WHERE run_id = $1 AND id = $2");
/// The busiest agents.
pub const BY_AGENT: Sql = Sql::both(
    "SELECT agent_id, COUNT(*) FILTER (WHERE rating > 0) AS good, COUNT(*) FILTER (WHERE rating < 0) AS bad FROM feedback
     WHERE owner = $1 AND created_at >= $2 GROUP BY agent_id ORDER BY COUNT(*) DESC, agent_id LIMIT $3",
);
pub const BY_DAY: Sql = Sql::both(
    "SELECT created_at / 86400000000 AS day, COUNT(*) FILTER (WHERE rating > 0) AS good,
         COUNT(*) FILTER (WHERE rating < 0) AS bad
     FROM feedback WHERE owner = $1 AND created_at >= $2 GROUP BY created_at / 86400000000 ORDER BY day",
);
pub const COMMENTS: Sql = Sql::both(
    "SELECT id, run_id, agent_id, message_id, rating, comment, created_at FROM feedback
     WHERE owner = $1 AND created_at >= $2 AND comment <> '' ORDER BY created_at DESC, id DESC LIMIT $3",
);
pub const COUNT_NEGATIVES: Sql =
    Sql::both("SELECT COUNT(*) AS n FROM feedback WHERE owner = $1 AND rating < 0 AND lower(comment) LIKE $2 ESCAPE '\\'");
pub const NEGATIVES: Sql = Sql::both(
    "SELECT f.id, f.run_id, f.agent_id, f.message_id, f.rating, f.comment, f.created_at,
         (SELECT m.body FROM messages m WHERE m.run_id = f.run_id AND m.role = 'user' ORDER BY m.seq DESC LIMIT 1) AS question,
         (SELECT m.body FROM messages m WHERE m.run_id = f.run_id AND (m.id = f.message_id OR f.message_id = '' AND m.role = 'assistant')
          ORDER BY m.seq DESC LIMIT 1) AS answer
     FROM feedback f WHERE f.owner = $1 AND f.rating < 0 AND lower(f.comment) LIKE $2 ESCAPE '\\'
     ORDER BY f.created_at DESC, f.id DESC LIMIT $3 OFFSET $4",
);
pub const STATEMENTS: &[Sql] = &[RATE, HAS_MESSAGE, BY_AGENT, BY_DAY, COMMENTS, COUNT_NEGATIVES, NEGATIVES];

/// Stores it under its id, or in place of what the owner thought of the same answer before: that keeps its id.
pub async fn rate(tx: &mut Tx, owner: &Owner, new: &Feedback) -> Result<Feedback> {
    let statement = query(RATE).bind(new.id).bind(owner.as_str()).bind(new.run_id).bind(new.agent_id.clone());
    let statement = statement.bind(new.message_id.as_deref().unwrap_or_default()).bind(if new.is_good { 1 } else { -1_i64 });
    Feedback::from_row(&statement.bind(&new.comment).bind(new.created_at).one(tx).await?)
}

pub async fn has_message(db: &Db, run_id: Uuid, message_id: &str) -> Result<bool> {
    Ok(query(HAS_MESSAGE).bind(run_id).bind(message_id).optional(db).await?.is_some())
}

/// The `limit` busiest agents.
pub async fn by_agent(db: &Db, owner: &Owner, since: Timestamp, limit: i64) -> Result<Vec<Share>> {
    let all = query(BY_AGENT).bind(owner.as_str()).bind(since).bind(limit).all::<OfAgent>(db).await?;
    Ok(all.into_iter().map(|agent| agent.0).collect())
}

/// Days that have any, oldest first.
pub async fn by_day(db: &Db, owner: &Owner, since: Timestamp) -> Result<Vec<Share>> {
    Ok(query(BY_DAY).bind(owner.as_str()).bind(since).all::<OfDay>(db).await?.into_iter().map(|day| day.0).collect())
}

/// The newest that say something.
pub async fn comments(db: &Db, owner: &Owner, since: Timestamp, limit: i64) -> Result<Vec<Feedback>> {
    query(COMMENTS).bind(owner.as_str()).bind(since).bind(limit).all(db).await
}

/// Newest first.
pub async fn negatives(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<Negative>> {
    let total = query(COUNT_NEGATIVES).bind(owner.as_str()).bind(page.pattern()).one(db).await?.get("n")?;
    let items = query(NEGATIVES).bind(owner.as_str()).bind(page.pattern()).bind(page.size).bind(page.offset()).all(db).await?;
    Ok(Listed { items, total })
}
