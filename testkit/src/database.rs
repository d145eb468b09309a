//! Databases for tests: a fresh, migrated one for each, on SQLite always and on Postgres where
//! `RUNMILL_TEST_DATABASE_URL` names a server. Each is gone when it is dropped.
use anyhow::{Context, Result};
use runmill_shared::{
    config::{Config, Secret},
    domain::new_id,
    store::{db::Db, migrate::migrate},
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::sandbox;

/// A server on which a test may create databases: `postgres://user@host:port/postgres`.
pub const SERVER: &str = "RUNMILL_TEST_DATABASE_URL";

/// A Redis server for tests: `redis://…`.
pub const REDIS: &str = "RUNMILL_TEST_REDIS_URL";

/// A database of its own, migrated, and a data directory of its own. Keep it until the test is over: its drop removes both.
pub struct TestDatabase {
    config: Config,
    db: Db,
    // Fields are dropped in this order: the database before the folder.
    _created: Option<Created>,
    _dir: TempDir,
}

/// A database on a Postgres server, dropped with its connections.
struct Created {
    server: PgConnectOptions,
    name: String,
}

/// SQLite always; Postgres too when `RUNMILL_TEST_DATABASE_URL` is set. A test runs once on each.
pub async fn databases() -> Vec<TestDatabase> {
    let mut all = vec![TestDatabase::sqlite().await];
    all.extend(TestDatabase::postgres_from_env().await);
    all
}

impl TestDatabase {
    /// # Panics
    /// When the machine has no room for a folder or a file: a test cannot go on then.
    pub async fn sqlite() -> Self {
        Self::open(None).await.unwrap_or_else(|e| panic!("no SQLite database for the test: {e:#}"))
    }

    /// `None` when no server is named.
    ///
    /// # Panics
    /// When one is named and does not answer: a suite that silently skips half of itself proves nothing.
    pub async fn postgres_from_env() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests and not of the product")]
        let url = std::env::var(SERVER).ok().filter(|url| !url.is_empty())?;
        Some(Self::postgres(&url).await.unwrap_or_else(|e| panic!("no Postgres database for the test on {SERVER}: {e:#}")))
    }

    /// As `postgres_from_env`, with the Redis server that `RUNMILL_TEST_REDIS_URL` names, under a prefix of its own: several apps
    /// on it are several processes. `None` when either is not named.
    ///
    /// # Panics
    /// As `postgres_from_env`.
    pub async fn distributed_from_env() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests and not of the product")]
        let url = std::env::var(REDIS).ok().filter(|url| !url.is_empty())?;
        Some(Self::postgres_from_env().await?.with_redis(&url))
    }

    /// As `distributed_from_env`, on these servers.
    pub async fn distributed(postgres: &str, redis: &str) -> Result<Self> {
        Ok(Self::postgres(postgres).await?.with_redis(redis))
    }

    fn with_redis(mut self, url: &str) -> Self {
        self.config.redis.url = Secret::new(url);
        self.config.redis.prefix = format!("test-{}", new_id().simple());
        self
    }

    async fn postgres(url: &str) -> Result<Self> {
        let server: PgConnectOptions = url.parse()?;
        let name = format!("runmill_test_{}", new_id().simple());
        // template0: nobody can be connected to it, which would make the copy fail.
        run(&server, format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
        Self::open(Some(Created { server, name })).await
    }

    async fn open(created: Option<Created>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut config = Config::defaults()?;
        config.data_dir = dir.path().to_owned();
        config.sandbox.program = sandbox::expected_program();
        for address in [&mut config.listen.platform, &mut config.listen.agentos, &mut config.listen.ops] {
            address.set_port(0);
        }
        if let Some(created) = &created {
            config.database.url = Secret::new(created.server.clone().database(&created.name).to_url_lossy().as_str());
            // Many tests share one server and its hundred connections.
            config.database.connections = 6;
        }
        let db = Db::open(&config).await?;
        migrate(&db).await?;
        Ok(Self { config, db, _created: created, _dir: dir })
    }

    /// The defaults with this database, a temporary `data_dir`, and port 0 wherever something listens.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Open and migrated. `App::open(config())` opens the same database once more.
    pub fn db(&self) -> Db {
        self.db.clone()
    }

    /// For messages of assertions.
    pub fn name(&self) -> &'static str {
        if self.db.is_postgres() { "postgres" } else { "sqlite" }
    }
}

async fn run(server: &PgConnectOptions, sql: String) -> Result<()> {
    let mut connection = PgConnection::connect_with(server).await.context("connecting")?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await?;
    Ok(())
}

impl Drop for Created {
    /// On a thread and a runtime of its own: the test's may be of one thread, or already on its way out.
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&server, sql))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the test database {} could not be dropped", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use runmill_shared::store::migrate::pending;

    use super::*;

    #[tokio::test]
    async fn each_is_fresh_migrated_and_gone_afterwards() {
        for database in databases().await {
            assert_eq!(pending(&database.db()).await.unwrap(), 0, "{}", database.name());
            assert_eq!(database.db().is_postgres(), database.name() == "postgres");
            let (dir, config) = (database.config().data_dir, database.config());
            drop(database);
            assert!(!dir.exists());
            if !config.database.url.is_empty() {
                let options: PgConnectOptions = config.database.url.expose().parse().unwrap();
                assert!(PgConnection::connect_with(&options).await.is_err(), "the database is still there");
            }
        }
    }
}
