//! Tools that users define, and those that plugins bring. An owner sees their own, and those of the plugins that they have
//! installed and enabled.
use serde_json::Value;
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        page::{Listed, PageRequest},
        tool::{CustomTool, ToolType, definition::ToolDefinition},
    },
    error::{Error, Result},
};

#[derive(Clone, Debug, PartialEq)]
pub struct StoredTool {
    pub id: Uuid,
    pub tool: CustomTool,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for StoredTool {
    fn from_row(row: &Row) -> Result<Self> {
        let id = row.get("id")?;
        let kind: String = row.get("type")?;
        let tool = CustomTool {
            id: Some(id),
            owner: row.get("owner")?,
            plugin_id: row.get("plugin_id")?,
            name: row.get("name")?,
            description: row.get("description")?,
            kind: ToolType::parse(&kind).ok_or_else(|| Error::internal(format!("no such type of tool: {kind}")))?,
            category: row.get("category")?,
            input_schema: row.json::<Value>("input_schema")?,
            output_schema: row.opt_json("output_schema")?,
            config: row.json::<Value>("config")?,
        };
        let (created_at, updated_at) = (row.time("created_at")?, row.time("updated_at")?);
        Ok(Self { id, tool, version: row.get("version")?, created_at, updated_at })
    }
}

/// What a list is narrowed to; empty: everything.
#[derive(Clone, Debug, Default)]
pub struct Narrow {
    pub category: String,
    pub kind: String,
}

/// How many tools of a category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryCount {
    pub name: String,
    pub count: i64,
}

impl FromRow for CategoryCount {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { name: row.get("category")?, count: row.get("total")? })
    }
}

pub const INSERT: Sql = Sql::both(
    "INSERT INTO tools (id, owner, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
     RETURNING id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at",
);
pub const UPDATE: Sql = Sql::both(
    "UPDATE tools SET name = $4, description = $5, type = $6, category = $7, input_schema = $8, output_schema = $9, config = $10,
         version = version + 1, updated_at = $11
     WHERE id = $1 AND owner = $2 AND version = $3 AND plugin_id IS NULL
     RETURNING id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at",
);
pub const DELETE: Sql = Sql::both("DELETE FROM tools WHERE id = $1 AND owner = $2 AND plugin_id IS NULL RETURNING id");
pub const BY_ID: Sql = Sql::both(
    "SELECT id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at
     FROM tools WHERE id = $2 AND ((owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled))",
);
/// An owner's own go before those of plugins, and those before each other as they came.
pub const NAMED: Sql = Sql::each(
    "SELECT id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at
     FROM tools WHERE name IN (SELECT json_array_elements_text($2::json)) AND ((owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled))
     ORDER BY CASE WHEN plugin_id IS NULL THEN 0 ELSE 1 END, id",
    "SELECT id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at
     FROM tools WHERE name IN (SELECT value FROM json_each($2)) AND ((owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled))
     ORDER BY CASE WHEN plugin_id IS NULL THEN 0 ELSE 1 END, id",
);
pub const LIST: Sql = Sql::both(
    "SELECT id, owner, plugin_id, name, description, type, category, input_schema, output_schema, config, version, created_at, updated_at
     FROM tools WHERE ((owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled))
     AND (LOWER(name) LIKE $2 ESCAPE '\\' OR LOWER(description) LIKE $2 ESCAPE '\\')
     AND ($3 = '' OR category = $3) AND ($4 = '' OR type = $4)
     ORDER BY CASE WHEN $5 = 'name' THEN name END, CASE WHEN $5 = '-name' THEN name END DESC,
         CASE WHEN $5 = '-created_at' THEN created_at END DESC, created_at, id
     LIMIT $6 OFFSET $7",
);
pub const COUNT: Sql = Sql::both(
    "SELECT COUNT(*) AS total FROM tools WHERE ((owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled))
     AND (LOWER(name) LIKE $2 ESCAPE '\\' OR LOWER(description) LIKE $2 ESCAPE '\\')
     AND ($3 = '' OR category = $3) AND ($4 = '' OR type = $4)",
);
pub const CATEGORIES: Sql = Sql::both(
    "SELECT category, COUNT(*) AS total FROM tools WHERE (owner = $1 AND plugin_id IS NULL)
         OR plugin_id IN (SELECT plugin_id FROM plugin_installs WHERE owner = $1 AND enabled)
     GROUP BY category ORDER BY category",
);
pub const STATEMENTS: &[Sql] = &[INSERT, UPDATE, DELETE, BY_ID, NAMED, LIST, COUNT, CATEGORIES];

/// # Errors
/// `DUPLICATE` when the owner has one of that name.
pub async fn insert(db: &Db, id: Uuid, owner: &Owner, tool: &ToolDefinition, now: Timestamp) -> Result<StoredTool> {
    let statement = query(INSERT).bind(id).bind(owner.as_str()).bind(&tool.name).bind(&tool.description).bind(tool.kind.as_str());
    let statement = statement.bind(&tool.category).bind_json(&tool.input_schema)?.bind(text_of(tool.output_schema.as_ref()));
    let rows = statement.bind_json(&tool.config)?.bind(now).write(db, Class::Request).await?;
    rows.into_iter().next().ok_or_else(|| Error::internal("an inserted tool answered no row"))
}

/// `None` when it is another's, a plugin's, or at another version.
///
/// # Errors
/// `DUPLICATE` when the owner has another one of that name.
pub async fn update(
    db: &Db,
    id: Uuid,
    owner: &Owner,
    version: i64,
    tool: &ToolDefinition,
    now: Timestamp,
) -> Result<Option<StoredTool>> {
    let statement = query(UPDATE).bind(id).bind(owner.as_str()).bind(version).bind(&tool.name).bind(&tool.description);
    let statement = statement.bind(tool.kind.as_str()).bind(&tool.category).bind_json(&tool.input_schema)?;
    let statement = statement.bind(text_of(tool.output_schema.as_ref())).bind_json(&tool.config)?.bind(now);
    Ok(statement.write(db, Class::Request).await?.into_iter().next())
}

fn text_of(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}

/// Whether it was there.
pub async fn delete(db: &Db, id: Uuid, owner: &Owner) -> Result<bool> {
    Ok(!query(DELETE).bind(id).bind(owner.as_str()).write::<Uuid>(db, Class::Request).await?.is_empty())
}

pub async fn by_id(db: &Db, owner: &Owner, id: Uuid) -> Result<Option<StoredTool>> {
    query(BY_ID).bind(owner.as_str()).bind(id).optional_as(db).await
}

/// Those of these names that the owner may use; where a name comes twice, the one to use is first.
pub async fn named(db: &Db, owner: &str, names: &[&str]) -> Result<Vec<StoredTool>> {
    query(NAMED).bind(owner).bind_json(&names)?.all(db).await
}

/// `limit` of them from `offset`, and how many there are.
pub async fn list(
    db: &Db,
    owner: &Owner,
    page: &PageRequest,
    narrow: &Narrow,
    limit: i64,
    offset: i64,
) -> Result<Listed<StoredTool>> {
    let all = |sql| query(sql).bind(owner.as_str()).bind(page.pattern()).bind(&narrow.category).bind(&narrow.kind);
    let total = all(COUNT).one(db).await?.get("total")?;
    let sort = page.sort.as_deref().unwrap_or("name");
    let items = if limit == 0 { Vec::new() } else { all(LIST).bind(sort).bind(limit).bind(offset).all(db).await? };
    Ok(Listed { items, total })
}

pub async fn categories(db: &Db, owner: &Owner) -> Result<Vec<CategoryCount>> {
    query(CATEGORIES).bind(owner.as_str()).all(db).await
}
