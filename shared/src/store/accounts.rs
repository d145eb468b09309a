//! Users and the API keys of their machines.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Row, Sql, Tx, query};
use crate::{
    clock::Timestamp,
    domain::caller::Role,
    error::{Error, Result},
};

#[derive(Clone, Debug)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub nickname: String,
    pub password_hash: String,
    pub role: Role,
    pub created_at: Timestamp,
}

impl FromRow for User {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            email: row.get("email")?,
            nickname: row.get("nickname")?,
            password_hash: row.get("password_hash")?,
            role: role(row)?,
            created_at: row.time("created_at")?,
        })
    }
}

fn role(row: &Row) -> Result<Role> {
    match row.get::<String>("role")?.as_str() {
        "admin" => Ok(Role::Admin),
        "user" => Ok(Role::User),
        other => Err(Error::internal(format!("no such role: {other}"))),
    }
}

#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    pub id: Uuid,
    /// lower case
    pub email: &'a str,
    pub nickname: &'a str,
    /// lower case
    pub nickname_key: &'a str,
    pub password_hash: &'a str,
    pub created_at: Timestamp,
}

/// Makes registrations wait for each other until the transaction ends: SQLite has one writer anyway.
pub const LOCK_REGISTRATION: Sql = Sql::each("SELECT pg_advisory_xact_lock(5282791)", "SELECT 1 AS one");

pub async fn lock_registration(tx: &mut Tx) -> Result<()> {
    query(LOCK_REGISTRATION).all::<()>(tx).await.map(|_| ())
}

pub const TAKEN: Sql = Sql::both("SELECT email FROM users WHERE email = $1 OR nickname_key = $2");

/// Which of the two somebody has already, as (email, nickname). Under `lock_registration` the answer stays true.
pub async fn taken(tx: &mut Tx, email: &str, nickname_key: &str) -> Result<(bool, bool)> {
    let rows: Vec<Email> = query(TAKEN).bind(email).bind(nickname_key).all(tx).await?;
    let by_email = rows.iter().any(|row| row.0 == email);
    let by_nickname = rows.len() > usize::from(by_email);
    Ok((by_email, by_nickname))
}

struct Email(String);

impl FromRow for Email {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("email").map(Self)
    }
}

/// The first user is the admin.
pub const INSERT_USER: Sql = Sql::both(
    "INSERT INTO users (id, email, nickname, nickname_key, password_hash, role, created_at) \
     VALUES ($1, $2, $3, $4, $5, CASE WHEN EXISTS (SELECT 1 FROM users) THEN 'user' ELSE 'admin' END, $6) \
     RETURNING id, email, nickname, password_hash, role, created_at",
);

pub async fn insert_user(tx: &mut Tx, user: &NewUser<'_>) -> Result<User> {
    let row = query(INSERT_USER)
        .bind(user.id)
        .bind(user.email)
        .bind(user.nickname)
        .bind(user.nickname_key)
        .bind(user.password_hash)
        .bind(user.created_at)
        .one(tx)
        .await?;
    User::from_row(&row)
}

pub const USER: Sql = Sql::both("SELECT id, email, nickname, password_hash, role, created_at FROM users WHERE id = $1");

pub async fn user(db: &Db, id: Uuid) -> Result<Option<User>> {
    query(USER).bind(id).optional_as(db).await
}

pub const ADMINS: Sql = Sql::both("SELECT id FROM users WHERE role = 'admin' ORDER BY id");

pub async fn admins(tx: &mut Tx) -> Result<Vec<Uuid>> {
    query(ADMINS).all(tx).await
}

pub const USER_BY_LOGIN: Sql =
    Sql::both("SELECT id, email, nickname, password_hash, role, created_at FROM users WHERE email = $1 OR nickname_key = $1");

/// By email or nickname, in lower case. A nickname has no `@`, so that it is nobody's email.
pub async fn user_by_login(db: &Db, login: &str) -> Result<Option<User>> {
    query(USER_BY_LOGIN).bind(login).optional_as(db).await
}

#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

impl FromRow for ApiKey {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            created_at: row.time("created_at")?,
            last_used_at: row.opt_time("last_used_at")?,
        })
    }
}

pub const INSERT_KEY: Sql = Sql::both(
    "INSERT INTO api_keys (id, user_id, name, hash, created_at) SELECT $1, id, $3, $4, $5 FROM users WHERE id = $2 \
     RETURNING id, name, created_at, last_used_at",
);

/// `None` when the user is gone.
pub async fn insert_key(db: &Db, id: Uuid, user: Uuid, name: &str, hash: &str, now: Timestamp) -> Result<Option<ApiKey>> {
    let q = query(INSERT_KEY).bind(id).bind(user).bind(name).bind(hash).bind(now);
    Ok(q.write(db, Class::Request).await?.into_iter().next())
}

pub const KEYS: Sql = Sql::both(
    "SELECT id, name, created_at, last_used_at FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at, id",
);

pub async fn keys(db: &Db, user: Uuid) -> Result<Vec<ApiKey>> {
    query(KEYS).bind(user).all(db).await
}

pub const REVOKE_KEY: Sql =
    Sql::both("UPDATE api_keys SET revoked_at = $3 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING id");

/// Whether there was one to revoke.
pub async fn revoke_key(db: &Db, id: Uuid, user: Uuid, now: Timestamp) -> Result<bool> {
    let revoked: Vec<Uuid> = query(REVOKE_KEY).bind(id).bind(user).bind(now).write(db, Class::Request).await?;
    Ok(!revoked.is_empty())
}

/// Whose key it is.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    pub key: Uuid,
    pub user: Uuid,
    pub role: Role,
    pub last_used_at: Option<Timestamp>,
}

impl FromRow for KeyHolder {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { key: row.get("id")?, user: row.get("user_id")?, role: role(row)?, last_used_at: row.opt_time("last_used_at")? })
    }
}

pub const KEY_BY_HASH: Sql = Sql::both(
    "SELECT k.id, k.user_id, k.last_used_at, u.role FROM api_keys k JOIN users u ON u.id = k.user_id \
     WHERE k.hash = $1 AND k.revoked_at IS NULL",
);

pub async fn key_by_hash(db: &Db, hash: &str) -> Result<Option<KeyHolder>> {
    query(KEY_BY_HASH).bind(hash).optional_as(db).await
}

pub const TOUCH_KEY: Sql = Sql::both("UPDATE api_keys SET last_used_at = $2 WHERE id = $1");

pub async fn touch_key(db: &Db, id: Uuid, now: Timestamp) -> Result<()> {
    query(TOUCH_KEY).bind(id).bind(now).write::<()>(db, Class::Background).await.map(|_| ())
}

pub const STATEMENTS: &[Sql] =
    &[LOCK_REGISTRATION, TAKEN, INSERT_USER, USER, ADMINS, USER_BY_LOGIN, INSERT_KEY, KEYS, REVOKE_KEY, KEY_BY_HASH, TOUCH_KEY];
