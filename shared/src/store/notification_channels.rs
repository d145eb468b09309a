//! Where else owners are told, and the sealed secrets that sign what goes there.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, On, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::{
        caller::Owner,
        notification::ChannelKind,
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
};

/// As it is stored; `sealed_secret` opens with `services::vault`.
#[derive(Clone)]
pub struct ChannelRow {
    pub id: Uuid,
    pub owner: String,
    pub name: String,
    pub kind: ChannelKind,
    /// An address, or a URL.
    pub target: String,
    pub sealed_secret: Option<String>,
    /// What goes through it; `None`: everything.
    pub kinds: Option<Vec<String>>,
    pub enabled: bool,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl FromRow for ChannelRow {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let unknown = || Error::internal(format!("a stored channel has the kind {kind}"));
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            kind: ChannelKind::parse(&kind).ok_or_else(unknown)?,
            target: row.get("target")?,
            sealed_secret: row.get("secret")?,
            kinds: row.opt_json("kinds")?,
            enabled: row.get("enabled")?,
            version: row.get("version")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

macro_rules! columns {
    () => {
        "id, owner, name, kind, target, secret, kinds, enabled, version, created_at, updated_at"
    };
}

/// While the owner has fewer than `$12`.
pub const INSERT: Sql = Sql::both(
    "INSERT INTO notification_channels (id, owner, name, kind, target, secret, kinds, enabled, version, created_at, updated_at)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
     WHERE (SELECT COUNT(*) FROM notification_channels WHERE owner = $2) < $12 RETURNING id",
);
pub const OWNED: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM notification_channels WHERE id = $1 AND owner = $2"));
pub const PAGE: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM notification_channels WHERE owner = $1 AND LOWER(name) LIKE $2 ESCAPE '\\' ORDER BY id DESC LIMIT $3 OFFSET $4"
));
pub const COUNT: Sql =
    Sql::both("SELECT COUNT(*) AS n FROM notification_channels WHERE owner = $1 AND LOWER(name) LIKE $2 ESCAPE '\\'");
/// A compare-and-set on the version that was read.
pub const UPDATE: Sql = Sql::both(
    "UPDATE notification_channels SET name = $4, target = $5, secret = $6, kinds = $7, enabled = $8, version = version + 1,
         updated_at = $9 WHERE id = $1 AND owner = $2 AND version = $3 RETURNING id",
);
pub const DISABLE: Sql = Sql::both(
    "UPDATE notification_channels SET enabled = FALSE, version = version + 1, updated_at = $3 WHERE id = $1 AND owner = $2 AND enabled
     RETURNING id",
);
pub const DELETE: Sql = Sql::both("DELETE FROM notification_channels WHERE id = $1 AND owner = $2 RETURNING id");
pub const ENABLED_OF: Sql = Sql::each(
    concat!(
        "SELECT ",
        columns!(),
        " FROM notification_channels WHERE enabled AND owner IN (SELECT j.owner FROM json_array_elements_text($1::json) AS j (owner))
          ORDER BY id"
    ),
    concat!(
        "SELECT ",
        columns!(),
        " FROM notification_channels WHERE enabled AND owner IN (SELECT j.value FROM json_each($1) AS j) ORDER BY id"
    ),
);
pub const STATEMENTS: &[Sql] = &[INSERT, OWNED, PAGE, COUNT, UPDATE, DISABLE, DELETE, ENABLED_OF];

fn taken(e: Error) -> Error {
    match e.code {
        "DUPLICATE" => Error::exists("CHANNEL_EXISTS", "you have a channel of this name; give it another"),
        _ => e,
    }
}

fn kinds(row: &ChannelRow) -> Result<Option<String>> {
    Ok(row.kinds.as_ref().map(serde_json::to_string).transpose()?)
}

/// `false`: the owner has `most` already.
///
/// # Errors
/// `CHANNEL_EXISTS` when the owner has one of that name.
pub async fn insert(db: &Db, row: &ChannelRow, most: u32) -> Result<bool> {
    let statement = query(INSERT)
        .bind(row.id)
        .bind(&row.owner)
        .bind(&row.name)
        .bind(row.kind.as_str())
        .bind(&row.target)
        .bind(row.sealed_secret.clone())
        .bind(kinds(row)?)
        .bind(row.enabled)
        .bind(row.version)
        .bind(row.created_at)
        .bind(row.updated_at)
        .bind(i64::from(most));
    let made: Vec<Uuid> = statement.write(db, Class::Request).await.map_err(taken)?;
    Ok(!made.is_empty())
}

pub async fn owned<'a>(on: impl Into<On<'a>>, id: Uuid, owner: &Owner) -> Result<Option<ChannelRow>> {
    query(OWNED).bind(id).bind(owner.as_str()).optional_as(on).await
}

/// Newest first.
pub async fn page(db: &Db, owner: &Owner, page: &PageRequest) -> Result<Listed<ChannelRow>> {
    let pattern = page.pattern();
    let items = query(PAGE).bind(owner.as_str()).bind(&pattern).bind(page.size).bind(page.offset()).all(db).await?;
    let total = query(COUNT).bind(owner.as_str()).bind(&pattern).one(db).await?.get("n")?;
    Ok(Listed { items, total })
}

/// `false`: it was changed or deleted meanwhile.
pub async fn update(db: &Db, row: &ChannelRow, now: Timestamp) -> Result<bool> {
    let statement = query(UPDATE)
        .bind(row.id)
        .bind(&row.owner)
        .bind(row.version)
        .bind(&row.name)
        .bind(&row.target)
        .bind(row.sealed_secret.clone())
        .bind(kinds(row)?)
        .bind(row.enabled)
        .bind(now);
    let changed: Vec<Uuid> = statement.write(db, Class::Request).await.map_err(taken)?;
    Ok(!changed.is_empty())
}

pub async fn disable(db: &Db, id: Uuid, owner: &Owner, now: Timestamp) -> Result<bool> {
    let disabled: Vec<Uuid> = query(DISABLE).bind(id).bind(owner.as_str()).bind(now).write(db, Class::Request).await?;
    Ok(!disabled.is_empty())
}

/// Whether there was one.
pub async fn delete(db: &Db, id: Uuid, owner: &Owner) -> Result<bool> {
    let deleted: Vec<Uuid> = query(DELETE).bind(id).bind(owner.as_str()).write(db, Class::Request).await?;
    Ok(!deleted.is_empty())
}

/// Those that take notifications of these owners.
pub async fn enabled_of(tx: &mut Tx, owners: &[&str]) -> Result<Vec<ChannelRow>> {
    query(ENABLED_OF).bind_json(&owners)?.all(tx).await
}
