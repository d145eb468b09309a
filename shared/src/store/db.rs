//! The facade over SQLite and Postgres: one text for both wherever possible, values and rows as small enums.
//! Reads go to a pool; writes on SQLite take turns on one connection (`writer.rs`), which commits them in groups.
use std::{path::Path, time::Duration};

use sqlx::{
    Arguments, ConnectOptions, Connection, Decode, Executor, PgPool, Postgres, Row as _, Sqlite, SqlitePool, Type,
    postgres::{PgArguments, PgConnectOptions, PgConnection, PgPoolOptions, PgRow},
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use uuid::Uuid;

use super::writer::{Turn, Writer};
use crate::{
    clock::Timestamp,
    config::Config,
    error::{Error, Result},
};

/// One statement, registered in the `STATEMENTS` of its file so that a test prepares it on both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sql {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

impl Sql {
    pub const fn both(text: &'static str) -> Self {
        Self { postgres: text, sqlite: text }
    }

    /// Two texts, only where they must differ: locks, and the expansion of a JSON list.
    pub const fn each(postgres: &'static str, sqlite: &'static str) -> Self {
        Self { postgres, sqlite }
    }
}

/// What can be bound. `None` keeps its type, which Postgres needs.
#[derive(Clone, Debug)]
pub enum Value {
    Bool(Option<bool>),
    I64(Option<i64>),
    Text(Option<String>),
    Uuid(Option<Uuid>),
}

macro_rules! value_from {
    ($($from:ty => |$v:ident| $to:expr;)*) => {$(
        impl From<$from> for Value { fn from($v: $from) -> Self { $to } }
        impl From<Option<$from>> for Value {
            fn from(o: Option<$from>) -> Self {
                o.map_or_else(|| Value::none_like(&Value::from(<$from>::default())), Value::from)
            }
        }
    )*};
}
value_from! {
    bool => |v| Self::Bool(Some(v));
    i64 => |v| Self::I64(Some(v));
    Timestamp => |v| Self::I64(Some(v.0));
    String => |v| Self::Text(Some(v));
    &str => |v| Self::Text(Some(v.to_owned()));
    Uuid => |v| Self::Uuid(Some(v));
}
impl From<&String> for Value {
    fn from(v: &String) -> Self {
        Self::Text(Some(v.clone()))
    }
}

impl Value {
    fn none_like(other: &Self) -> Self {
        match other {
            Self::Bool(_) => Self::Bool(None),
            Self::I64(_) => Self::I64(None),
            Self::Text(_) => Self::Text(None),
            Self::Uuid(_) => Self::Uuid(None),
        }
    }

    fn add_to<A: Arguments>(self, to: &mut A) -> Result<()>
    where
        Option<bool>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<i64>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<String>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<Uuid>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
    {
        match self {
            Self::Bool(v) => to.add(v),
            Self::I64(v) => to.add(v),
            Self::Text(v) => to.add(v),
            Self::Uuid(v) => to.add(v),
        }
        .map_err(Error::internal)
    }
}

pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as, on both databases.
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}
impl<T> Column for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

impl Row {
    pub fn get<T: Column>(&self, column: &str) -> Result<T> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub fn time(&self, column: &str) -> Result<Timestamp> {
        self.get(column).map(Timestamp)
    }

    pub fn opt_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    /// A TEXT column that holds JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T> {
        Ok(serde_json::from_str(&self.get::<String>(column)?)?)
    }

    pub fn opt_json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        self.get::<Option<String>>(column)?.map(|t| serde_json::from_str(&t).map_err(Error::from)).transpose()
    }
}

pub trait FromRow: Sized {
    fn from_row(row: &Row) -> Result<Self>;
}

impl FromRow for Uuid {
    fn from_row(row: &Row) -> Result<Self> {
        row.get("id")
    }
}

#[derive(Clone)]
pub enum Db {
    Sqlite(SqliteDb),
    Postgres(PgPool),
}

#[derive(Clone)]
pub struct SqliteDb {
    pub(super) readers: SqlitePool,
    pub(super) writer: Writer,
}

/// A Postgres connection outside the pool, for heartbeats that must not wait behind other work.
pub struct Dedicated(pub(super) PgConnection);

impl Dedicated {
    /// Waits as long as for a connection of the pool.
    pub async fn open(config: &Config) -> Result<Self> {
        let options = Db::postgres_options(config)?;
        let connected = tokio::time::timeout(config.database.acquire_timeout, PgConnection::connect_with(&options)).await;
        Ok(Self(connected.map_err(|_| sqlx::Error::PoolTimedOut)??))
    }
}

/// A pooled connection that was idle for longer may have died meanwhile.
const ASKED_AGAIN: Duration = Duration::from_millis(200);

/// Who waits first when writers queue on SQLite: requests before background batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Background,
}

/// A write transaction. Dropped without `commit`, it is rolled back.
pub enum Tx {
    Sqlite(Turn),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Db {
    /// Opens, and does not migrate: `migrate` does.
    pub async fn open(config: &Config) -> Result<Self> {
        if config.database.url.is_empty() {
            tokio::fs::create_dir_all(&config.data_dir).await?;
            return Self::open_sqlite(&config.data_dir.join("runmill.db"), config.database.readers).await;
        }
        let pool = PgPoolOptions::new()
            .max_connections(config.database.connections)
            .acquire_timeout(config.database.acquire_timeout)
            // The pool asks a connection when it comes back; asking it again costs each transaction a round trip.
            .test_before_acquire(false)
            .before_acquire(|connection, was| {
                Box::pin(async move {
                    if was.idle_for > ASKED_AGAIN {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(Self::postgres_options(config)?);
        Ok(Self::Postgres(pool))
    }

    pub async fn open_sqlite(file: &Path, readers: u32) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(256);
        let writer = Writer::new(options.clone().connect().await?);
        let readers = SqlitePoolOptions::new()
            .max_connections(readers)
            .connect_lazy_with(options.create_if_missing(false).pragma("query_only", "ON"));
        Ok(Self::Sqlite(SqliteDb { readers, writer }))
    }

    fn postgres_options(config: &Config) -> Result<PgConnectOptions> {
        let options: PgConnectOptions = config
            .database
            .url
            .expose()
            .parse()
            .map_err(|e: sqlx::Error| Error::invalid("database.url", "no Postgres URL").because(e))?;
        let timeout = config.database.statement_timeout.as_millis().to_string();
        // A process that freezes in the middle of a transaction must not hold its locks for longer than its lease.
        let idle = config.worker.lease.as_millis().to_string();
        // A statement's plan is kept, and is often made while its tables are all but empty: one that reads a table from end to end is cheap
        // then, and ruinous an hour later. Whatever is looked up goes through its index.
        let plans = ["enable_hashjoin", "enable_mergejoin", "enable_material"].map(|join| (join, "off"));
        Ok(options
            .application_name("runmill")
            .options([("statement_timeout", timeout.as_str()), ("idle_in_transaction_session_timeout", idle.as_str())])
            .options(plans)
            .options([("random_page_cost", "1.1")])
            .statement_cache_capacity(256))
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub async fn begin(&self) -> Result<Tx> {
        self.begin_as(Class::Request).await
    }

    pub async fn begin_as(&self, class: Class) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite(db) => Tx::Sqlite(db.writer.turn(class).await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    pub async fn ping(&self) -> Result<()> {
        query(PING).optional(self).await.map(|_| ())
    }

    /// The database's own clock; `None` on SQLite, where ours is the only one.
    pub async fn now(&self) -> Result<Option<Timestamp>> {
        if !self.is_postgres() {
            return Ok(None);
        }
        query(DATABASE_CLOCK).one(self).await?.opt_time("now")
    }

    /// The server's version, or that of the SQLite in this binary.
    pub async fn version(&self) -> Result<String> {
        query(VERSION).one(self).await?.get("version")
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(db) => {
                db.readers.close().await;
                db.writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Whether the statement can be prepared: what the registered-statement test asks for each.
    pub async fn prepare(&self, sql: Sql) -> Result<()> {
        match self {
            Self::Sqlite(db) => (&db.readers).prepare(sqlx::SqlSafeStr::into_sql_str(sql.sqlite)).await.map(|_| ())?,
            Self::Postgres(pool) => pool.prepare(sqlx::SqlSafeStr::into_sql_str(sql.postgres)).await.map(|_| ())?,
        }
        Ok(())
    }
}

impl Tx {
    /// On SQLite this returns once the group that the transaction is part of has been committed.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(turn) => turn.commit().await,
            Self::Postgres(tx) => Ok(tx.commit().await?),
        }
    }
}

pub const PING: Sql = Sql::both("SELECT 1 AS one");
pub const DATABASE_CLOCK: Sql = Sql::each(
    "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now",
    "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now",
);
pub const VERSION: Sql = Sql::each("SELECT current_setting('server_version') AS version", "SELECT sqlite_version() AS version");
pub const STATEMENTS: &[Sql] = &[PING, DATABASE_CLOCK, VERSION];

/// Where a statement runs: on the pool (for reading), or in a transaction.
pub enum On<'a> {
    Db(&'a Db),
    Tx(&'a mut Tx),
}

impl<'a> From<&'a Db> for On<'a> {
    fn from(db: &'a Db) -> Self {
        On::Db(db)
    }
}

impl<'a> From<&'a mut Tx> for On<'a> {
    fn from(tx: &'a mut Tx) -> Self {
        On::Tx(tx)
    }
}

pub struct Query {
    sql: Sql,
    values: Vec<Value>,
}

pub fn query(sql: Sql) -> Query {
    Query { sql, values: Vec::with_capacity(8) }
}

impl Query {
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Binds a list as one JSON text, which the statement expands: one statement text for any number of rows.
    pub fn bind_json(self, value: &impl serde::Serialize) -> Result<Self> {
        let text = serde_json::to_string(value)?;
        Ok(self.bind(text))
    }

    /// As `bind_json`, for ids: without dashes, as SQLite's `unhex` reads them.
    #[must_use]
    pub fn bind_ids(self, ids: &[Uuid]) -> Self {
        let ids: Vec<_> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
        self.bind(format!("[{}]", ids.join(",")))
    }

    fn arguments<A: Arguments>(values: Vec<Value>) -> Result<A>
    where
        Option<bool>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<i64>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<String>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
        Option<Uuid>: for<'q> sqlx::Encode<'q, A::Database> + Type<A::Database>,
    {
        let mut arguments = A::default();
        for value in values {
            value.add_to(&mut arguments)?;
        }
        Ok(arguments)
    }

    async fn rows(self, on: On<'_>) -> Result<Vec<Row>> {
        let (sql, values) = (self.sql, self.values);
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(Row::Sqlite).collect();
        let postgres = |rows: Vec<PgRow>| rows.into_iter().map(Row::Postgres).collect();
        Ok(match on {
            On::Db(Db::Sqlite(db)) => {
                sqlite(sqlx::query_with(sql.sqlite, Self::arguments::<SqliteArguments>(values)?).fetch_all(&db.readers).await?)
            }
            On::Tx(Tx::Sqlite(turn)) => sqlite(
                sqlx::query_with(sql.sqlite, Self::arguments::<SqliteArguments>(values)?).fetch_all(turn.connection()?).await?,
            ),
            On::Db(Db::Postgres(pool)) => {
                postgres(sqlx::query_with(sql.postgres, Self::arguments::<PgArguments>(values)?).fetch_all(pool).await?)
            }
            On::Tx(Tx::Postgres(tx)) => {
                postgres(sqlx::query_with(sql.postgres, Self::arguments::<PgArguments>(values)?).fetch_all(&mut **tx).await?)
            }
        })
    }

    pub async fn all<T: FromRow>(self, on: impl Into<On<'_>>) -> Result<Vec<T>> {
        self.rows(on.into()).await?.iter().map(T::from_row).collect()
    }

    pub async fn optional(self, on: impl Into<On<'_>>) -> Result<Option<Row>> {
        Ok(self.rows(on.into()).await?.into_iter().next())
    }

    pub async fn one(self, on: impl Into<On<'_>>) -> Result<Row> {
        self.optional(on).await?.ok_or_else(|| Error::internal("a statement that must answer a row answered none"))
    }

    pub async fn optional_as<T: FromRow>(self, on: impl Into<On<'_>>) -> Result<Option<T>> {
        self.optional(on).await?.as_ref().map(T::from_row).transpose()
    }

    /// How many rows it changed.
    pub async fn execute(self, tx: &mut Tx) -> Result<u64> {
        let (sql, values) = (self.sql, self.values);
        Ok(match tx {
            Tx::Sqlite(turn) => sqlx::query_with(sql.sqlite, Self::arguments::<SqliteArguments>(values)?)
                .execute(turn.connection()?)
                .await?
                .rows_affected(),
            Tx::Postgres(tx) => {
                sqlx::query_with(sql.postgres, Self::arguments::<PgArguments>(values)?).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    /// A write that stands alone: one round trip on Postgres, a turn on SQLite. Answers its RETURNING rows.
    pub async fn write<T: FromRow>(self, db: &Db, class: Class) -> Result<Vec<T>> {
        if db.is_postgres() {
            return self.all(db).await;
        }
        let mut tx = db.begin_as(class).await?;
        let rows = self.all(&mut tx).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// For statements whose rows nobody reads.
impl FromRow for () {
    fn from_row(_: &Row) -> Result<Self> {
        Ok(())
    }
}
