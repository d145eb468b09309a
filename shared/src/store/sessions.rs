//! Worker sessions: one row a worker process; runs name it as their lease owner.
use std::time::Duration;

use uuid::Uuid;

use super::db::{Class, Db, Dedicated, Sql, query};
use crate::{clock::Timestamp, error::Result};

pub const OPEN: Sql =
    Sql::both("INSERT INTO worker_sessions (id, name, started_at, expires_at) VALUES ($1, $2, $3, $4) RETURNING id");
/// Owners of running runs that are no live session: expired, or gone. It asks the runs and not the sessions, because a worker that
/// was frozen may have claimed after its session was swept.
pub const DEAD_OWNERS: Sql = Sql::both(
    "SELECT DISTINCT r.lease_owner AS id FROM runs r WHERE r.lease_owner IS NOT NULL AND r.lease_owner <> $2
       AND NOT EXISTS (SELECT 1 FROM worker_sessions s WHERE s.id = r.lease_owner AND s.expires_at >= $1) LIMIT 100",
);
pub const CLOSE: Sql = Sql::both(
    "DELETE FROM worker_sessions WHERE expires_at < $1 AND id <> $2
       AND NOT EXISTS (SELECT 1 FROM runs WHERE lease_owner = worker_sessions.id) RETURNING id",
);
pub const EXPIRE: Sql = Sql::both("UPDATE worker_sessions SET expires_at = 0 WHERE id = $1 RETURNING id");
pub const EXPIRE_OTHERS: Sql = Sql::both("UPDATE worker_sessions SET expires_at = 0 WHERE id <> $1 RETURNING id");
pub const STATEMENTS: &[Sql] = &[OPEN, DEAD_OWNERS, CLOSE, EXPIRE, EXPIRE_OTHERS];

/// On a connection of its own, so it is not registered with the facade's statements.
const RENEW: &str = "UPDATE worker_sessions
     SET expires_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + $2
     WHERE id = $1 AND expires_at > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT
     RETURNING (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now";

/// As `RENEW`; the lease begins at the database's own time.
const OPEN_NOW: &str = "INSERT INTO worker_sessions (id, name, started_at, expires_at)
     SELECT $1, $2, n.now, n.now + $3 FROM (SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS now) n
     RETURNING started_at";

/// Opens a session; answers the database's clock.
pub async fn open_dedicated(connection: &mut Dedicated, id: Uuid, name: &str, lease: Duration) -> Result<Timestamp> {
    let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
    let now = sqlx::query_scalar(OPEN_NOW).bind(id).bind(name).bind(lease).fetch_one(&mut connection.0).await?;
    Ok(Timestamp(now))
}

/// Renews, and reads the database's clock in the same round trip. `None`: the session has expired or was taken away.
pub async fn renew(connection: &mut Dedicated, id: Uuid, lease: Duration) -> Result<Option<Timestamp>> {
    let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
    let now: Option<i64> = sqlx::query_scalar(RENEW).bind(id).bind(lease).fetch_optional(&mut connection.0).await?;
    Ok(now.map(Timestamp))
}

pub async fn open(db: &Db, id: Uuid, name: &str, now: Timestamp, expires_at: Timestamp) -> Result<()> {
    query(OPEN).bind(id).bind(name).bind(now).bind(expires_at).write::<()>(db, Class::Request).await?;
    Ok(())
}

/// Who runs name as their worker though it is not live; never `mine`.
pub async fn dead_owners(db: &Db, now: Timestamp, mine: Uuid) -> Result<Vec<Uuid>> {
    query(DEAD_OWNERS).bind(now).bind(mine).all(db).await
}

/// Takes away the rows of expired sessions that no run names; answers which.
pub async fn close(db: &Db, now: Timestamp, mine: Uuid) -> Result<Vec<Uuid>> {
    query(CLOSE).bind(now).bind(mine).write(db, Class::Background).await
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
