//! Models that users configured: where they are, and the sealed keys to them.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        model::ModelSettings,
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
};

/// As it is stored; `sealed_key` opens with `services::vault`.
#[derive(Clone)]
pub struct ModelConfigRow {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub provider: String,
    pub model_name: String,
    pub base_url: Option<String>,
    pub sealed_key: Option<String>,
    pub settings: ModelSettings,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for ModelConfigRow {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            provider: row.get("provider")?,
            model_name: row.get("model_name")?,
            base_url: row.get("base_url")?,
            sealed_key: row.get("api_key")?,
            settings: row.json("settings")?,
            version: row.get("version")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

macro_rules! columns {
    () => {
        "id, owner, name, provider, model_name, base_url, api_key, settings, version, created_at, updated_at"
    };
}

pub const INSERT: Sql = Sql::both(
    "INSERT INTO model_configs (id, owner, name, provider, model_name, base_url, api_key, settings, version, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
);
pub const OWNED: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM model_configs WHERE id = $1 AND owner = $2"));
/// Those with one of the ids, and those with one of the model's names; of two for one model the one that was changed last comes first.
pub const WANTED: Sql = Sql::each(
    concat!(
        "SELECT ",
        columns!(),
        " FROM model_configs WHERE owner = $1 AND (id IN (SELECT i.id::uuid FROM json_array_elements_text($2::json) AS i (id))
          OR model_name IN (SELECT n.name FROM json_array_elements_text($3::json) AS n (name))) ORDER BY updated_at DESC, id DESC"
    ),
    concat!(
        "SELECT ",
        columns!(),
        " FROM model_configs WHERE owner = $1 AND (id IN (SELECT unhex(i.value) FROM json_each($2) AS i)
          OR model_name IN (SELECT n.value FROM json_each($3) AS n)) ORDER BY updated_at DESC, id DESC"
    ),
);
pub const PAGE: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM model_configs WHERE owner = $1 AND (LOWER(name) LIKE $2 ESCAPE '\\' OR LOWER(model_name) LIKE $2 ESCAPE '\\')
      ORDER BY id DESC LIMIT $3 OFFSET $4"
));
pub const COUNT: Sql = Sql::both(
    "SELECT COUNT(*) AS n FROM model_configs
     WHERE owner = $1 AND (LOWER(name) LIKE $2 ESCAPE '\\' OR LOWER(model_name) LIKE $2 ESCAPE '\\')",
);
/// A compare-and-set on the version that was read.
pub const UPDATE: Sql = Sql::both(
    "UPDATE model_configs SET name = $4, provider = $5, model_name = $6, base_url = $7, api_key = $8, settings = $9,
         version = version + 1, updated_at = $10 WHERE id = $1 AND owner = $2 AND version = $3 RETURNING id",
);
pub const DELETE: Sql = Sql::both("DELETE FROM model_configs WHERE id = $1 AND owner = $2 RETURNING id");
pub const STATEMENTS: &[Sql] = &[INSERT, OWNED, WANTED, PAGE, COUNT, UPDATE, DELETE];

/// # Errors
/// `MODEL_CONFIG_EXISTS` when the owner has one of that name.
pub async fn insert(db: &Db, row: &ModelConfigRow) -> Result<()> {
    let statement = query(INSERT)
        .bind(row.id)
        .bind(&row.owner)
        .bind(&row.name)
        .bind(&row.provider)
        .bind(&row.model_name)
        .bind(row.base_url.clone())
        .bind(row.sealed_key.clone())
        .bind_json(&row.settings)?
        .bind(row.version)
        .bind(row.created_at)
        .bind(row.updated_at);
    statement.write::<()>(db, Class::Request).await.map_err(taken)?;
    Ok(())
}

fn taken(e: Error) -> Error {
    match e.code {
        "DUPLICATE" => Error::exists("MODEL_CONFIG_EXISTS", "you have a model configuration of this name; give it another"),
        _ => e,
    }
}

pub async fn owned(db: &Db, id: Uuid, owner: &Owner) -> Result<Option<ModelConfigRow>> {
    query(OWNED).bind(id).bind(owner.as_str()).optional_as(db).await
}

/// The owner's configurations that a choice of models can mean.
pub async fn wanted(db: &Db, owner: &str, ids: &[Uuid], names: &[&str]) -> Result<Vec<ModelConfigRow>> {
    query(WANTED).bind(owner).bind_ids(ids).bind_json(&names)?.all(db).await
}

/// Newest first.
pub async fn page(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<ModelConfigRow>> {
    let pattern = page.pattern();
    let items = query(PAGE).bind(owner.as_str()).bind(&pattern).bind(page.size).bind(page.offset()).all(db).await?;
    let total = query(COUNT).bind(owner.as_str()).bind(&pattern).one(db).await?.get("n")?;
    Ok(Listed { items, total })
}

/// `false`: it was changed or deleted meanwhile.
pub async fn update(db: &Db, row: &ModelConfigRow, now: Timestamp) -> Result<bool> {
    let statement = query(UPDATE)
        .bind(row.id)
        .bind(&row.owner)
        .bind(row.version)
        .bind(&row.name)
        .bind(&row.provider)
        .bind(&row.model_name)
        .bind(row.base_url.clone())
        .bind(row.sealed_key.clone())
        .bind_json(&row.settings)?
        .bind(now);
    let changed: Vec<Uuid> = statement.write(db, Class::Request).await.map_err(taken)?;
    Ok(!changed.is_empty())
}

/// Whether there was one.
pub async fn delete(db: &Db, id: Uuid, owner: &Owner) -> Result<bool> {
    let deleted: Vec<Uuid> = query(DELETE).bind(id).bind(owner.as_str()).write(db, Class::Request).await?;
    Ok(!deleted.is_empty())
}
