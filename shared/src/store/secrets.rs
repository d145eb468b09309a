//! What users store and nobody reads again; see `services/vault.rs`.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        page::{Listed, PageRequest},
    },
    error::Result,
};

/// A secret without what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    pub name: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for SecretName {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { name: row.get("name")?, created_at: row.time("created_at")?, updated_at: row.time("updated_at")? })
    }
}

struct Put(Uuid, SecretName);

impl FromRow for Put {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.get("id")?, SecretName::from_row(row)?))
    }
}

struct Sealed(String);

impl FromRow for Sealed {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("sealed").map(Self)
    }
}

pub const PUT: Sql = Sql::both(
    "INSERT INTO secrets (id, owner, name, sealed, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)
     ON CONFLICT (owner, name) DO UPDATE SET sealed = $4, updated_at = $5 RETURNING id, name, created_at, updated_at",
);
pub const LIST: Sql = Sql::both(
    "SELECT name, created_at, updated_at FROM secrets WHERE owner = $1 AND LOWER(name) LIKE $2 ESCAPE '\\'
     ORDER BY name LIMIT $3 OFFSET $4",
);
pub const COUNT: Sql = Sql::both("SELECT COUNT(*) AS total FROM secrets WHERE owner = $1 AND LOWER(name) LIKE $2 ESCAPE '\\'");
pub const SEALED: Sql = Sql::both("SELECT sealed FROM secrets WHERE owner = $1 AND name = $2");
pub const DELETE: Sql = Sql::both("DELETE FROM secrets WHERE owner = $1 AND name = $2 RETURNING id");
pub const STATEMENTS: &[Sql] = &[PUT, LIST, COUNT, SEALED, DELETE];

/// Stores or replaces; answers whether it is new.
pub async fn put(
    db: &Db,
    id: Uuid,
    owner: &Owner,
    name: &str,
    sealed: &str,
    now: Timestamp,
) -> Result<(bool, Option<SecretName>)> {
    let statement = query(PUT).bind(id).bind(owner.as_str()).bind(name).bind(sealed).bind(now);
    let row = statement.write::<Put>(db, Class::Request).await?.into_iter().next();
    Ok((row.as_ref().is_some_and(|r| r.0 == id), row.map(|r| r.1)))
}

/// By name.
pub async fn list(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<SecretName>> {
    let total = query(COUNT).bind(owner.as_str()).bind(page.pattern()).one(db).await?.get("total")?;
    let items = query(LIST).bind(owner.as_str()).bind(page.pattern()).bind(page.size).bind(page.offset());
    Ok(Listed { items: items.all(db).await?, total })
}

pub async fn sealed(db: &Db, owner: &str, name: &str) -> Result<Option<String>> {
    Ok(query(SEALED).bind(owner).bind(name).optional_as::<Sealed>(db).await?.map(|s| s.0))
}

/// Whether there was one.
pub async fn delete(db: &Db, owner: &Owner, name: &str) -> Result<bool> {
    Ok(!query(DELETE).bind(owner.as_str()).bind(name).write::<Uuid>(db, Class::Request).await?.is_empty())
}
