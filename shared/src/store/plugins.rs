//! Plugins, who has installed them, and the tools that they bring.
use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        page::{Listed, PageRequest},
        plugin::Source,
        tool::ToolType,
    },
    error::Result,
};

/// A plugin as one user sees it.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub description: String,
    /// `mcp` or `openapi`
    pub kind: &'static str,
    /// For its owner alone.
    pub source: Option<Source>,
    pub is_public: bool,
    pub version: i64,
    /// Whether that user has enabled it; `None`: they have not installed it.
    pub enabled: Option<bool>,
    /// How many tools it has.
    pub tools: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for Plugin {
    fn from_row(row: &Row) -> Result<Self> {
        let source: Source = row.json("source")?;
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            description: row.get("description")?,
            kind: source.kind(),
            source: Some(source),
            is_public: row.get("is_public")?,
            version: row.get("version")?,
            enabled: row.get("enabled")?,
            tools: row.get("tools")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

impl Plugin {
    fn seen_by(mut self, owner: &Owner) -> Self {
        self.source.take_if(|_| self.owner != owner.as_str());
        self
    }
}

/// $1 is who looks.
macro_rules! seen_by {
    ($what:literal) => {
        concat!("SELECT ", $what, " FROM plugins p LEFT JOIN plugin_installs i ON i.plugin_id = p.id AND i.owner = $1 ")
    };
}
macro_rules! columns {
    () => {
        seen_by!(
            "p.id, p.owner, p.name, p.description, p.source, p.is_public, p.version, i.enabled,
             (SELECT COUNT(*) FROM tools t WHERE t.plugin_id = p.id) AS tools, p.created_at, p.updated_at"
        )
    };
}
macro_rules! mine {
    () => {
        "WHERE (p.owner = $1 OR i.enabled IS NOT NULL)
           AND (LOWER(p.name) LIKE $2 ESCAPE '\\' OR LOWER(p.description) LIKE $2 ESCAPE '\\')
           AND (CAST($3 AS BOOLEAN) IS NULL OR i.enabled = $3) "
    };
}
macro_rules! market {
    () => {
        "WHERE p.is_public AND p.owner <> $1
           AND (LOWER(p.name) LIKE $2 ESCAPE '\\' OR LOWER(p.description) LIKE $2 ESCAPE '\\')
           AND (CAST($3 AS BOOLEAN) IS NULL OR i.enabled = $3) "
    };
}
macro_rules! page {
    () => {
        "ORDER BY CASE WHEN $4 = 'name' THEN LOWER(p.name) END, CASE WHEN $4 = '-name' THEN LOWER(p.name) END DESC,
             CASE WHEN $4 = 'created_at' THEN p.created_at WHEN $4 = 'updated_at' THEN p.updated_at END,
             CASE WHEN $4 = '-created_at' THEN p.created_at WHEN $4 = '-updated_at' THEN p.updated_at END DESC, p.id
         LIMIT $5 OFFSET $6"
    };
}

/// Their own, and those that they have installed.
pub const MINE: Sql = Sql::both(concat!(columns!(), mine!(), page!()));
pub const COUNT_MINE: Sql = Sql::both(concat!(seen_by!("COUNT(*) AS total"), mine!()));
/// The public ones of others.
pub const MARKET: Sql = Sql::both(concat!(columns!(), market!(), page!()));
pub const COUNT_MARKET: Sql = Sql::both(concat!(seen_by!("COUNT(*) AS total"), market!()));
/// $3: an administrator sees all.
pub const SEEN: Sql = Sql::both(concat!(columns!(), "WHERE p.id = $2 AND (p.owner = $1 OR p.is_public OR $3)"));
pub const INSERT: Sql = Sql::both(
    "INSERT INTO plugins (id, owner, name, description, source, credentials, is_public, version, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8)",
);
/// $7: whether the credentials are replaced by $6.
pub const UPDATE: Sql = Sql::both(
    "UPDATE plugins SET name = $3, description = $4, source = $5, credentials = CASE WHEN $7 THEN $6 ELSE credentials END,
         is_public = $8, version = version + 1, updated_at = $9
     WHERE id = $1 AND version = $2 RETURNING id",
);
pub const DELETE: Sql = Sql::both("DELETE FROM plugins WHERE id = $1 RETURNING id");
/// Of a plugin that is theirs or public, and stays so until the transaction ends; one that is installed stays as it is.
pub const INSTALL: Sql = Sql::each(
    "INSERT INTO plugin_installs (plugin_id, owner, enabled, created_at)
     SELECT id, $2, TRUE, $3 FROM plugins WHERE id = $1 AND (owner = $2 OR is_public) FOR SHARE
     ON CONFLICT (plugin_id, owner) DO UPDATE SET enabled = plugin_installs.enabled RETURNING plugin_id AS id",
    "INSERT INTO plugin_installs (plugin_id, owner, enabled, created_at)
     SELECT id, $2, TRUE, $3 FROM plugins WHERE id = $1 AND (owner = $2 OR is_public)
     ON CONFLICT (plugin_id, owner) DO UPDATE SET enabled = plugin_installs.enabled RETURNING plugin_id AS id",
);
/// A plugin that is not public is its owner's alone: an install that is enabled is what lets an agent use the tools.
pub const WITHDRAW: Sql = Sql::both("DELETE FROM plugin_installs WHERE plugin_id = $1 AND owner <> $2");
pub const UNINSTALL: Sql = Sql::both("DELETE FROM plugin_installs WHERE plugin_id = $1 AND owner = $2 RETURNING plugin_id AS id");
pub const ENABLE: Sql =
    Sql::both("UPDATE plugin_installs SET enabled = $3 WHERE plugin_id = $1 AND owner = $2 RETURNING plugin_id AS id");
pub const TOOLS: Sql =
    Sql::both("SELECT id, name, description, input_schema, output_schema FROM tools WHERE plugin_id = $1 ORDER BY name");
/// What a worker needs: where the tools are, and what opens the door. $2 names a secret of the plugin's owner.
pub const DEFINITION: Sql = Sql::both(
    "SELECT p.id, p.owner, p.name, p.source, p.credentials, p.version, s.sealed FROM plugins p
     LEFT JOIN secrets s ON s.owner = p.owner AND s.name = $2 WHERE p.id = $1",
);
/// Locks the plugin while it is what it was when its tools were read.
pub const HOLD: Sql = Sql::both("UPDATE plugins SET updated_at = updated_at WHERE id = $1 AND version = $2 RETURNING id");
/// What other tools of the owner are called, of those that begin as this plugin's do.
pub const TAKEN: Sql =
    Sql::both("SELECT name FROM tools WHERE owner = $1 AND (plugin_id IS NULL OR plugin_id <> $2) AND name LIKE $3 ESCAPE '\\'");
pub const DROP_TOOLS: Sql = Sql::each(
    "DELETE FROM tools WHERE plugin_id = $1 AND name NOT IN (SELECT n.value FROM json_array_elements_text($2::json) AS n (value))",
    "DELETE FROM tools WHERE plugin_id = $1 AND name NOT IN (SELECT n.value FROM json_each($2) AS n)",
);
/// A tool whose name stays keeps its id; its version rises when it changed.
pub const PUT_TOOLS: Sql = Sql::each(
    "INSERT INTO tools (id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version,
         created_at, updated_at)
     SELECT t.id, $2, $3, t.name, t.description, t.type, $4, t.input_schema, t.output_schema, t.config, 1, $5, $5
     FROM json_to_recordset($1::json)
         AS t (id UUID, name TEXT, description TEXT, type TEXT, input_schema TEXT, output_schema TEXT, config TEXT)
     ON CONFLICT (owner, name) DO UPDATE SET description = excluded.description, type = excluded.type,
         category = excluded.category, input_schema = excluded.input_schema, output_schema = excluded.output_schema,
         config = excluded.config, updated_at = excluded.updated_at,
         version = tools.version + CASE WHEN tools.description = excluded.description AND tools.config = excluded.config
             AND tools.input_schema = excluded.input_schema AND tools.output_schema IS NOT DISTINCT FROM excluded.output_schema
             THEN 0 ELSE 1 END
     WHERE tools.plugin_id = excluded.plugin_id RETURNING id",
    "INSERT INTO tools (id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version,
         created_at, updated_at)
     SELECT unhex(t.value ->> 'id'), $2, $3, t.value ->> 'name', t.value ->> 'description', t.value ->> 'type', $4,
         t.value ->> 'input_schema', t.value ->> 'output_schema', t.value ->> 'config', 1, $5, $5
     FROM json_each($1) AS t WHERE TRUE
     ON CONFLICT (owner, name) DO UPDATE SET description = excluded.description, type = excluded.type,
         category = excluded.category, input_schema = excluded.input_schema, output_schema = excluded.output_schema,
         config = excluded.config, updated_at = excluded.updated_at,
         version = tools.version + CASE WHEN tools.description = excluded.description AND tools.config = excluded.config
             AND tools.input_schema = excluded.input_schema AND tools.output_schema IS NOT DISTINCT FROM excluded.output_schema
             THEN 0 ELSE 1 END
     WHERE tools.plugin_id = excluded.plugin_id RETURNING id",
);
pub const STATEMENTS: &[Sql] = &[
    MINE,
    COUNT_MINE,
    MARKET,
    COUNT_MARKET,
    SEEN,
    INSERT,
    UPDATE,
    DELETE,
    INSTALL,
    WITHDRAW,
    UNINSTALL,
    ENABLE,
    TOOLS,
    DEFINITION,
    HOLD,
    TAKEN,
    DROP_TOOLS,
    PUT_TOOLS,
];

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    Mine,
    Market,
}

/// `enabled`: only those that they have installed and that stand so.
pub async fn list(db: &Db, owner: &Owner, shelf: Shelf, page: &PageRequest, enabled: Option<bool>) -> Result<Listed<Plugin>> {
    let (items, count) = match shelf {
        Shelf::Mine => (MINE, COUNT_MINE),
        Shelf::Market => (MARKET, COUNT_MARKET),
    };
    let filtered = |sql| query(sql).bind(owner.as_str()).bind(page.pattern()).bind(enabled);
    let sort = page.sort.as_deref().unwrap_or("-created_at");
    let items = filtered(items).bind(sort).bind(page.size).bind(page.offset()).all::<Plugin>(db).await?;
    let items = items.into_iter().map(|p| p.seen_by(owner)).collect();
    Ok(Listed { items, total: filtered(count).one(db).await?.get("total")? })
}

/// When `owner` may know of it.
pub async fn seen(db: &Db, owner: &Owner, id: Uuid, is_admin: bool) -> Result<Option<Plugin>> {
    let found: Option<Plugin> = query(SEEN).bind(owner.as_str()).bind(id).bind(is_admin).optional_as(db).await?;
    Ok(found.map(|p| p.seen_by(owner)))
}

pub struct NewPlugin<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub description: &'a str,
    pub source: &'a Source,
    /// Sealed.
    pub credentials: Option<String>,
    pub is_public: bool,
}

/// # Errors
/// `Exists` when the owner has one of this name.
pub async fn insert(tx: &mut Tx, owner: &Owner, new: NewPlugin<'_>, now: Timestamp) -> Result<()> {
    let q = query(INSERT).bind(new.id).bind(owner.as_str()).bind(new.name).bind(new.description).bind_json(new.source)?;
    q.bind(new.credentials).bind(new.is_public).bind(now).execute(tx).await?;
    Ok(())
}

/// `replaces`: the credentials too. Whether `version` was the present one.
pub async fn update(tx: &mut Tx, new: NewPlugin<'_>, replaces: bool, version: i64, now: Timestamp) -> Result<bool> {
    let q = query(UPDATE).bind(new.id).bind(version).bind(new.name).bind(new.description).bind_json(new.source)?;
    let q = q.bind(new.credentials).bind(replaces).bind(new.is_public).bind(now);
    Ok(!q.all::<Uuid>(tx).await?.is_empty())
}

/// With its tools and installs; whether there was one.
pub async fn delete(db: &Db, id: Uuid) -> Result<bool> {
    Ok(!query(DELETE).bind(id).write::<Uuid>(db, Class::Request).await?.is_empty())
}

/// Whether there is one to install.
pub async fn install(tx: &mut Tx, owner: &Owner, id: Uuid, now: Timestamp) -> Result<bool> {
    Ok(!query(INSTALL).bind(id).bind(owner.as_str()).bind(now).all::<Uuid>(tx).await?.is_empty())
}

/// Takes it away from everybody but its owner.
pub async fn withdraw(tx: &mut Tx, owner: &Owner, id: Uuid) -> Result<()> {
    query(WITHDRAW).bind(id).bind(owner.as_str()).execute(tx).await?;
    Ok(())
}

/// Whether it was installed.
pub async fn uninstall(db: &Db, owner: &Owner, id: Uuid) -> Result<bool> {
    Ok(!query(UNINSTALL).bind(id).bind(owner.as_str()).write::<Uuid>(db, Class::Request).await?.is_empty())
}

/// Whether it is installed.
pub async fn enable(db: &Db, owner: &Owner, id: Uuid, enabled: bool) -> Result<bool> {
    Ok(!query(ENABLE).bind(id).bind(owner.as_str()).bind(enabled).write::<Uuid>(db, Class::Request).await?.is_empty())
}

/// A tool as people see it.
#[derive(Clone, Debug)]
pub struct PluginTool {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub input_schema: Value,
    pub output_schema: Option<Value>,
}

impl FromRow for PluginTool {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            description: row.get("description")?,
            input_schema: row.json("input_schema")?,
            output_schema: row.opt_json("output_schema")?,
        })
    }
}

/// By name.
pub async fn tools(db: &Db, id: Uuid) -> Result<Vec<PluginTool>> {
    query(TOOLS).bind(id).all(db).await
}

/// The row as a worker reads it, sealed as it is.
pub struct Definition {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub source: Source,
    pub credentials: Option<String>,
    pub version: i64,
    /// The secret that was asked for.
    pub secret: Option<String>,
}

impl FromRow for Definition {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            source: row.json("source")?,
            credentials: row.get("credentials")?,
            version: row.get("version")?,
            secret: row.get("sealed")?,
        })
    }
}

pub async fn definition(db: &Db, id: Uuid, secret: Option<&str>) -> Result<Option<Definition>> {
    query(DEFINITION).bind(id).bind(secret.map(str::to_owned)).optional_as(db).await
}

/// Whether it still has this version; it keeps it until the transaction ends.
pub async fn hold(tx: &mut Tx, id: Uuid, version: i64) -> Result<bool> {
    Ok(!query(HOLD).bind(id).bind(version).all::<Uuid>(tx).await?.is_empty())
}

struct Name(String);

impl FromRow for Name {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("name").map(Self)
    }
}

/// The names that begin with `prefix` and belong to other tools of `owner`.
pub async fn taken(tx: &mut Tx, owner: &Owner, id: Uuid, prefix: &str) -> Result<BTreeSet<String>> {
    let pattern = format!("{}%", prefix.replace('_', "\\_"));
    let names = query(TAKEN).bind(owner.as_str()).bind(id).bind(pattern).all::<Name>(tx).await?;
    Ok(names.into_iter().map(|n| n.0).collect())
}

/// A tool that a source has, with the name that it gets.
pub struct NewTool<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub description: &'a str,
    pub kind: ToolType,
    pub input_schema: &'a Value,
    pub output_schema: Option<&'a Value>,
    pub config: &'a Value,
}

#[derive(Serialize)]
struct ToolRow<'a> {
    id: String,
    name: &'a str,
    description: &'a str,
    r#type: &'a str,
    input_schema: String,
    output_schema: Option<String>,
    config: String,
}

fn row<'a>(t: &NewTool<'a>) -> ToolRow<'a> {
    ToolRow {
        id: t.id.simple().to_string(),
        name: t.name,
        description: t.description,
        r#type: t.kind.as_str(),
        input_schema: t.input_schema.to_string(),
        output_schema: t.output_schema.map(Value::to_string),
        config: t.config.to_string(),
    }
}

/// Makes `tools` the plugin's only ones; answers how many were written: fewer when somebody took a name meanwhile.
pub async fn replace_tools(
    tx: &mut Tx,
    owner: &Owner,
    id: Uuid,
    category: &str,
    tools: &[NewTool<'_>],
    now: Timestamp,
) -> Result<usize> {
    let names: Vec<_> = tools.iter().map(|t| t.name).collect();
    query(DROP_TOOLS).bind(id).bind_json(&names)?.execute(&mut *tx).await?;
    let rows: Vec<_> = tools.iter().map(row).collect();
    let put = query(PUT_TOOLS).bind_json(&rows)?.bind(owner.as_str()).bind(id).bind(category).bind(now);
    Ok(put.all::<Uuid>(tx).await?.len())
}
