//! Finding the agents of a team, all in one statement.
use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, query};
use crate::error::Result;

pub struct Found {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub status: String,
    pub version: i64,
}

impl FromRow for Found {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            description: row.get("description")?,
            status: row.get("status")?,
            version: row.get("version")?,
        })
    }
}

pub const MEMBERS: Sql = Sql::each(
    "SELECT id, name, description, status, version FROM agents
     WHERE id IN (SELECT j.id::UUID FROM json_array_elements_text($1::json) AS j (id)) AND (owner = $2 OR status <> 'draft')",
    "SELECT id, name, description, status, version FROM agents
     WHERE id IN (SELECT unhex(j.value) FROM json_each($1) AS j) AND (owner = $2 OR status <> 'draft')",
);
pub const STATEMENTS: &[Sql] = &[MEMBERS];

/// Those that `owner` may see.
pub async fn members(db: &Db, ids: &[Uuid], owner: &str) -> Result<Vec<Found>> {
    query(MEMBERS).bind_ids(ids).bind(owner).all(db).await
}
