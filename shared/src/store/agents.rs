//! Agents and their versions.
use std::collections::HashSet;

use uuid::Uuid;

use super::db::{Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        agent::{Agent, Definition, NewAgent, Status},
        caller::Owner,
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
};

/// An agent as it stands, with the version of its definition that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRecord {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub description: String,
    pub status: Status,
    pub version: i64,
    pub is_main: bool,
    pub definition: Definition,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for AgentRecord {
    fn from_row(row: &Row) -> Result<Self> {
        let status: String = row.get("status")?;
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            description: row.get("description")?,
            status: Status::parse(&status).ok_or_else(|| Error::internal(format!("a stored agent is {status}")))?,
            version: row.get("version")?,
            is_main: row.get("is_main")?,
            definition: row.json("definition")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

impl From<AgentRecord> for Agent {
    fn from(a: AgentRecord) -> Self {
        Self { id: a.id.to_string(), name: a.name, owner: Some(a.owner), version: a.version, definition: a.definition }
    }
}

pub const CURRENT: Sql = Sql::both(
    "SELECT a.id, a.owner, a.name, a.description, a.status, a.version, a.is_main, a.created_at, a.updated_at, v.definition
     FROM agents a JOIN agent_versions v ON v.agent_id = a.id AND v.version = a.version
     WHERE a.id = $1 AND (a.owner = $2 OR a.status <> 'draft')",
);
pub const VERSION: Sql = Sql::both(
    "SELECT a.id, a.owner, a.name, a.description, a.status, v.version, a.is_main, a.created_at, a.updated_at, v.definition
     FROM agents a JOIN agent_versions v ON v.agent_id = a.id AND v.version = $2 WHERE a.id = $1",
);
pub const MAIN: Sql = Sql::each(
    "SELECT a.id, a.owner, a.name, a.description, a.status, a.version, a.is_main, a.created_at, a.updated_at, v.definition
     FROM agents a JOIN agent_versions v ON v.agent_id = a.id AND v.version = a.version
     WHERE a.owner = ANY(ARRAY(SELECT json_array_elements_text($1::JSON))) AND a.is_main",
    "SELECT a.id, a.owner, a.name, a.description, a.status, a.version, a.is_main, a.created_at, a.updated_at, v.definition
     FROM agents a JOIN agent_versions v ON v.agent_id = a.id AND v.version = a.version
     WHERE a.owner IN (SELECT value FROM json_each($1)) AND a.is_main",
);
pub const COUNT: Sql = Sql::both(
    "SELECT COUNT(*) AS n FROM agents a WHERE (a.owner = $1 OR a.status = 'published') AND a.status = COALESCE($2, a.status)
     AND (lower(a.name) LIKE $3 ESCAPE '\\' OR lower(a.description) LIKE $3 ESCAPE '\\')",
);
pub const LIST: Sql = Sql::both(
    "SELECT a.id, a.owner, a.name, a.description, a.status, a.version, a.is_main, a.created_at, a.updated_at, v.definition
     FROM agents a JOIN agent_versions v ON v.agent_id = a.id AND v.version = a.version
     WHERE (a.owner = $1 OR a.status = 'published') AND a.status = COALESCE($2, a.status)
     AND (lower(a.name) LIKE $3 ESCAPE '\\' OR lower(a.description) LIKE $3 ESCAPE '\\')
     ORDER BY CASE WHEN $4 = 'name' THEN lower(a.name) END, CASE WHEN $4 = '-name' THEN lower(a.name) END DESC,
         CASE $4 WHEN 'created_at' THEN a.created_at WHEN 'updated_at' THEN a.updated_at END,
         CASE $4 WHEN '-created_at' THEN a.created_at WHEN '-updated_at' THEN a.updated_at END DESC, a.id DESC
     LIMIT $5 OFFSET $6",
);
pub const INSERT: Sql = Sql::both(
    "INSERT INTO agents (id, owner, name, description, status, version, is_main, created_at, updated_at)
     VALUES ($1, $2, $3, $4, 'draft', 1, FALSE, $5, $5)",
);
pub const INSERT_VERSION: Sql =
    Sql::both("INSERT INTO agent_versions (agent_id, version, definition, created_at) VALUES ($1, $2, $3, $4)");
pub const UPDATE: Sql = Sql::both(
    "UPDATE agents SET name = $4, description = $5, version = version + 1, updated_at = $6
     WHERE id = $1 AND owner = $2 AND version = $3",
);
pub const MOVE: Sql =
    Sql::both("UPDATE agents SET status = $4, updated_at = $5 WHERE id = $1 AND owner = $2 AND status = $3 RETURNING id");
pub const DELETE: Sql = Sql::both("DELETE FROM agents WHERE id = $1 AND status = $2 RETURNING id");
/// Promotions of one owner's agents take turns, so all of them are locked: two that find no main agent would share no row.
/// On SQLite all writers take turns.
pub const LOCK_ALL: Sql = Sql::each(
    "SELECT id FROM agents WHERE owner = $1 ORDER BY id FOR NO KEY UPDATE",
    "SELECT id FROM agents WHERE owner = $1 LIMIT 0",
);
pub const DEMOTE: Sql = Sql::both("UPDATE agents SET is_main = FALSE, updated_at = $3 WHERE owner = $1 AND is_main AND id <> $2");
pub const PROMOTE: Sql =
    Sql::both("UPDATE agents SET is_main = TRUE, updated_at = $3 WHERE owner = $1 AND id = $2 AND NOT is_main");
/// The index of a thread's active runs is the only one that has just these.
pub const BUSY: Sql = Sql::each(
    "SELECT 1 AS one FROM runs WHERE agent_id = $1 AND state IN ('queued', 'running', 'waiting') LIMIT 1",
    "SELECT 1 AS one FROM runs INDEXED BY runs_thread WHERE agent_id = $1 AND state IN ('queued', 'running', 'waiting') LIMIT 1",
);
pub const OWN_MODELS: Sql = Sql::each(
    "SELECT id FROM model_configs WHERE owner = $1 AND id IN (SELECT json_array_elements_text($2::json)::uuid)",
    "SELECT id FROM model_configs WHERE owner = $1 AND id IN (SELECT unhex(value) FROM json_each($2))",
);
pub const STATEMENTS: &[Sql] = &[
    CURRENT,
    VERSION,
    MAIN,
    COUNT,
    LIST,
    INSERT,
    INSERT_VERSION,
    UPDATE,
    MOVE,
    DELETE,
    LOCK_ALL,
    DEMOTE,
    PROMOTE,
    BUSY,
    OWN_MODELS,
];

/// As it is now, when `owner` may see it.
pub async fn current(db: &Db, id: Uuid, owner: &str) -> Result<Option<AgentRecord>> {
    query(CURRENT).bind(id).bind(owner).optional_as(db).await
}

/// A version that an accepted run names.
pub async fn version(db: &Db, id: Uuid, version: i64) -> Result<Option<AgentRecord>> {
    query(VERSION).bind(id).bind(version).optional_as(db).await
}

/// The main agents of those who have one.
pub async fn main(db: &Db, owners: &HashSet<&str>) -> Result<Vec<AgentRecord>> {
    query(MAIN).bind_json(owners)?.all(db).await
}

/// The owner's and those that others have published; newest first when no order is asked for.
pub async fn list(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<AgentRecord>> {
    let of = |sql: Sql| query(sql).bind(owner.as_str()).bind(page.status.clone()).bind(page.pattern());
    let total = of(COUNT).one(db).await?.get("n")?;
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    Ok(Listed { items: of(LIST).bind(sort).bind(page.size).bind(page.offset()).all(db).await?, total })
}

pub async fn insert(tx: &mut Tx, id: Uuid, owner: &Owner, new: &NewAgent, now: Timestamp) -> Result<()> {
    query(INSERT).bind(id).bind(owner.as_str()).bind(&new.name).bind(&new.description).bind(now).execute(tx).await?;
    insert_version(tx, id, 1, &new.definition, now).await
}

async fn insert_version(tx: &mut Tx, id: Uuid, version: i64, definition: &Definition, now: Timestamp) -> Result<()> {
    query(INSERT_VERSION).bind(id).bind(version).bind_json(definition)?.bind(now).execute(tx).await?;
    Ok(())
}

/// Adds the version after `version`; false, and nothing is written, when that is not the one in force.
pub async fn update(tx: &mut Tx, id: Uuid, owner: &Owner, version: i64, new: &NewAgent, now: Timestamp) -> Result<bool> {
    let statement = query(UPDATE).bind(id).bind(owner.as_str()).bind(version).bind(&new.name).bind(&new.description).bind(now);
    if statement.execute(tx).await? == 0 {
        return Ok(false);
    }
    insert_version(tx, id, version + 1, &new.definition, now).await?;
    Ok(true)
}

/// Compare and set; false when its state is another.
pub async fn change_status(tx: &mut Tx, id: Uuid, owner: &Owner, from: Status, to: Status, now: Timestamp) -> Result<bool> {
    let statement = query(MOVE).bind(id).bind(owner.as_str()).bind(from.as_str()).bind(to.as_str()).bind(now);
    Ok(statement.optional(tx).await?.is_some())
}

/// False when it is gone, or in another state.
pub async fn delete(tx: &mut Tx, id: Uuid, status: Status) -> Result<bool> {
    Ok(query(DELETE).bind(id).bind(status.as_str()).optional(tx).await?.is_some())
}

/// Makes it the only main agent of its owner.
pub async fn promote(tx: &mut Tx, id: Uuid, owner: &Owner, now: Timestamp) -> Result<()> {
    query(LOCK_ALL).bind(owner.as_str()).all::<Uuid>(&mut *tx).await?;
    for sql in [DEMOTE, PROMOTE] {
        query(sql).bind(owner.as_str()).bind(id).bind(now).execute(tx).await?;
    }
    Ok(())
}

/// Whether a run of it has not ended.
pub async fn is_busy(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(query(BUSY).bind(id.to_string()).optional(tx).await?.is_some())
}

/// Those of `ids` that are model configurations of the owner's.
pub async fn own_models(db: &Db, owner: &Owner, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    query(OWN_MODELS).bind(owner.as_str()).bind_ids(ids).all(db).await
}
