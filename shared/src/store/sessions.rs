//! Worker sessions: one row a worker process; runs name it as their lease owner.
use uuid::Uuid;

use super::db::{Class, Db, FromRow, Sql, query};
use crate::{clock::Timestamp, error::Result};

pub const OPEN: Sql =
    Sql::both("INSERT INTO worker_sessions (id, name, started_at, expires_at) VALUES ($1, $2, $3, $4) RETURNING id");
/// Also sessions that are gone and that a run names all the same: a worker that slept through its expiry claimed it before it
/// looked at its lease. As many index entries are read as runs are executed.
pub const EXPIRED: Sql = Sql::both(
    "SELECT id FROM (SELECT id, expires_at FROM worker_sessions WHERE expires_at < $1
         UNION ALL SELECT DISTINCT r.lease_owner, 0 FROM runs r WHERE r.lease_owner IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM worker_sessions s WHERE s.id = r.lease_owner)) AS dead
     WHERE id <> $2 ORDER BY expires_at LIMIT 100",
);
/// Only one that is expired and that no run names any more: until then its runs are still to be taken back.
pub const CLOSE: Sql = Sql::both(
    "DELETE FROM worker_sessions WHERE id = $1 AND expires_at < $2 AND NOT EXISTS (SELECT 1 FROM runs WHERE lease_owner = $1)
     RETURNING id",
);
pub const EXPIRE: Sql = Sql::both("UPDATE worker_sessions SET expires_at = 0 WHERE id = $1 RETURNING id");
pub const EXPIRE_OTHERS: Sql = Sql::both("UPDATE worker_sessions SET expires_at = 0 WHERE id <> $1 RETURNING id");
pub const LIVE: Sql = Sql::both("SELECT COUNT(*) AS n FROM worker_sessions WHERE expires_at > $1");
pub const STATEMENTS: &[Sql] = &[OPEN, EXPIRED, CLOSE, EXPIRE, EXPIRE_OTHERS, LIVE];

/// Renews, and reads the database's clock in the same round trip. It runs on a connection of its own, so it is not registered with
/// the facade's statements. No row: the session has expired or was taken away.
pub const RENEW: &str = "UPDATE worker_sessions
     SET expires_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + $2
     WHERE id = $1 AND expires_at > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT
     RETURNING (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now";

pub async fn open(db: &Db, id: Uuid, name: &str, now: Timestamp, expires_at: Timestamp) -> Result<()> {
    query(OPEN).bind(id).bind(name).bind(now).bind(expires_at).write::<()>(db, Class::Request).await?;
    Ok(())
}

/// Sessions past their lease, other than `mine`.
pub async fn expired(db: &Db, now: Timestamp, mine: Uuid) -> Result<Vec<Uuid>> {
    query(EXPIRED).bind(now).bind(mine).all(db).await
}

/// Takes the row away when it is past its lease and nothing names it; answers whether it is gone.
pub async fn close(db: &Db, id: Uuid, now: Timestamp) -> Result<bool> {
    Ok(!query(CLOSE).bind(id).bind(now).write::<Uuid>(db, Class::Background).await?.is_empty())
}

/// Ends a lease at once: its holder has let go of it.
pub async fn expire(db: &Db, id: Uuid) -> Result<()> {
    query(EXPIRE).bind(id).write::<Uuid>(db, Class::Request).await?;
    Ok(())
}

/// For a start that owns its database alone: whoever else is named there is dead.
pub async fn expire_others(db: &Db, mine: Uuid) -> Result<()> {
    query(EXPIRE_OTHERS).bind(mine).write::<Uuid>(db, Class::Request).await?;
    Ok(())
}

struct Count(i64);

impl FromRow for Count {
    fn from_row(row: &super::db::Row) -> Result<Self> {
        row.get("n").map(Self)
    }
}

pub async fn live(db: &Db, now: Timestamp) -> Result<i64> {
    Ok(query(LIVE).bind(now).optional_as::<Count>(db).await?.map_or(0, |c| c.0))
}
