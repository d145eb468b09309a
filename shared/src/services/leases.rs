//! Worker sessions. In one process on SQLite there is nobody to take a lease away, so its session does not expire; whoever else is
//! named in that database is dead, since the data directory is locked.
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::{
    app::App,
    clock::Timestamp,
    domain::new_id,
    error::Result,
    store::{db::Dedicated, sessions},
};

/// Opens a session for this process; aligns the clock with the database's first. On Postgres it uses a connection of its own, as
/// every beat does: one of the pool's would belong to the runtime of the caller, and that of the leases may end before the pool.
pub async fn open(app: &App) -> Result<Uuid> {
    let (id, name, lease) = (new_id(), format!("{}@{}", std::process::id(), host()), app.config.worker.lease);
    if app.db.is_postgres() {
        let mut connection = Dedicated::open(&app.config).await?;
        let started = Instant::now();
        let now = sessions::open_dedicated(&mut connection, id, &name, lease).await?;
        app.clock.align(now, started + started.elapsed() / 2);
    } else {
        sessions::open(&app.db, id, &name, app.clock.now(), Timestamp(i64::MAX)).await?;
        sessions::expire_others(&app.db, id).await?;
    }
    Ok(id)
}

fn host() -> String {
    let read = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    if read.trim().is_empty() { "localhost".to_owned() } else { read.trim().to_owned() }
}

/// What a heartbeat learned.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    /// With the database's clock.
    Renewed(Timestamp),
    /// The session has expired or is gone; it never comes back.
    Lost,
}

/// Renews a session on a connection outside the pool, which it opens where there is none.
pub async fn beat(app: &App, connection: &mut Option<Dedicated>, session: Uuid) -> Result<Beat> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Dedicated::open(&app.config).await?),
    };
    let now = sessions::renew(connection, session, app.config.worker.lease).await?;
    Ok(now.map_or(Beat::Lost, Beat::Renewed))
}

/// Ends a session at once: its holder has let go.
pub async fn give_up(app: &App, session: Uuid) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(3);
    tokio::time::timeout(PATIENCE, sessions::expire(&app.db, session)).await.unwrap_or(Ok(()))
}
