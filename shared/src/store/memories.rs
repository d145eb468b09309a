//! What is remembered of users.
use serde_json::json;
use uuid::Uuid;

use super::db::{FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{caller::Owner, memory::Memory},
    error::Result,
};

impl FromRow for Memory {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            text: row.get("text")?,
            topics: row.json("topics")?,
            run_id: row.get("run_id")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

pub const OF_OWNER: Sql = Sql::both(
    "SELECT id, text, topics, run_id, created_at, updated_at FROM memories WHERE owner = $1 ORDER BY updated_at DESC, id DESC",
);
pub const INSERT: Sql = Sql::each(
    "INSERT INTO memories (id, owner, text, topics, run_id, created_at, updated_at)
     SELECT m.id, $2, m.text, m.topics, m.run_id, $3, $3 FROM json_to_recordset($1::json)
         AS m (id UUID, text TEXT, topics TEXT, run_id UUID)",
    "INSERT INTO memories (id, owner, text, topics, run_id, created_at, updated_at)
     SELECT unhex(m.value ->> 'id'), $2, m.value ->> 'text', m.value ->> 'topics', unhex(m.value ->> 'run_id'), $3, $3
     FROM json_each($1) AS m",
);
/// Said again: it is as new as the newest.
pub const TOUCH: Sql = Sql::each(
    "UPDATE memories SET updated_at = $3 WHERE owner = $2
         AND id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "UPDATE memories SET updated_at = $3 WHERE owner = $2 AND id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const FORGET: Sql = Sql::each(
    "DELETE FROM memories WHERE owner = $2 AND id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id))",
    "DELETE FROM memories WHERE owner = $2 AND id IN (SELECT unhex(j.value) FROM json_each($1) AS j)",
);
pub const STATEMENTS: &[Sql] = &[OF_OWNER, INSERT, TOUCH, FORGET];

/// All of a user's, those said last first.
pub async fn of_owner<'a>(on: impl Into<On<'a>>, owner: &Owner) -> Result<Vec<Memory>> {
    query(OF_OWNER).bind(owner.as_str()).all(on).await
}

pub async fn insert(tx: &mut Tx, owner: &Owner, new: &[Memory], now: Timestamp) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let row = |m: &Memory| json!({ "id": m.id.simple(), "text": m.text, "topics": json!(m.topics).to_string(), "run_id": m.run_id.map(Uuid::simple) });
    let rows: Vec<_> = new.iter().map(row).collect();
    query(INSERT).bind_json(&rows)?.bind(owner.as_str()).bind(now).execute(tx).await?;
    Ok(())
}

pub async fn touch(tx: &mut Tx, owner: &Owner, ids: &[Uuid], now: Timestamp) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    query(TOUCH).bind_ids(ids).bind(owner.as_str()).bind(now).execute(tx).await?;
    Ok(())
}

pub async fn forget(tx: &mut Tx, owner: &Owner, ids: &[Uuid]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    query(FORGET).bind_ids(ids).bind(owner.as_str()).execute(tx).await?;
    Ok(())
}
