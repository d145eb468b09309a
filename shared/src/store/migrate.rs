//! The schema of both databases, compiled in: files in `migrations/` for both, in `migrations/postgres/` for what must differ.
use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

use super::db::Db;
use crate::error::{Error, Result};

const BOTH: &[(i64, &str, &str)] = &[
    (1, "engine", include_str!("../../../migrations/0001_engine.sql")),
    (2, "accounts", include_str!("../../../migrations/0002_accounts.sql")),
    (3, "attachments", include_str!("../../../migrations/0003_attachments.sql")),
    (5, "agents", include_str!("../../../migrations/0005_agents.sql")),
    (6, "thread_files", include_str!("../../../migrations/0006_thread_files.sql")),
    (7, "goals", include_str!("../../../migrations/0007_goals.sql")),
    (8, "schedules", include_str!("../../../migrations/0008_schedules.sql")),
    (9, "notifications", include_str!("../../../migrations/0009_notifications.sql")),
];
const POSTGRES: &[(i64, &str, &str)] = &[
    (4, "storage", include_str!("../../../migrations/postgres/0004_storage.sql")),
    (10, "foreign_keys", include_str!("../../../migrations/postgres/0010_foreign_keys.sql")),
];

fn migrator(db: &Db) -> Migrator {
    let extra = if db.is_postgres() { POSTGRES } else { &[] };
    let all = BOTH
        .iter()
        .chain(extra)
        .map(|(version, name, sql)| Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false));
    Migrator::with_migrations(all.collect())
}

/// Brings the schema up to date. Safe to call from many processes at once: Postgres holds a lock meanwhile.
pub async fn migrate(db: &Db) -> Result<()> {
    let migrator = migrator(db);
    match db {
        Db::Postgres(pool) => migrator.run(pool).await,
        Db::Sqlite(sqlite) => {
            let mut writer = sqlite.writer.alone().await?;
            migrator.run(writer.connection()?).await
        }
    }
    .map_err(Error::internal)
}

/// How many migrations are still to run; an error when the database is newer than this binary.
pub async fn pending(db: &Db) -> Result<usize> {
    const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let read = match db {
        Db::Postgres(pool) => sqlx::query_scalar(APPLIED).fetch_all(pool).await,
        Db::Sqlite(sqlite) => sqlx::query_scalar(APPLIED).fetch_all(&sqlite.readers).await,
    };
    let applied: Vec<i64> = match read {
        Ok(versions) => versions,
        // No such table: nothing has been applied.
        Err(sqlx::Error::Database(_)) => Vec::new(),
        Err(e) => return Err(e.into()),
    };
    let known: Vec<i64> = migrator(db).iter().map(|m| m.version).collect();
    if let Some(newer) = applied.iter().find(|v| !known.contains(v)) {
        return Err(Error::conflict(
            "SCHEMA_NEWER",
            format!("the database has migration {newer}, which this version does not know"),
        ));
    }
    Ok(known.len() - applied.len())
}
