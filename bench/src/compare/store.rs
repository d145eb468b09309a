//! How many runs have ended, asked of the store in which a peer keeps them, so that asking costs the peer's own processes nothing.
use anyhow::Result;
use redis::aio::MultiplexedConnection;
use sqlx::{Connection as _, PgConnection, Row, SqliteConnection};

const OURS: &str =
    "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state IN ('failed', 'cancelled')) FROM runs";
const AGNO: &str = "SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status IN ('failed', 'cancelled')) \
                    FROM ai.agno_jobs";

/// A key's number of members, by this command.
type Counted = (&'static str, &'static str);

pub enum Store {
    Postgres(PgConnection, &'static str),
    Sqlite(SqliteConnection),
    /// What has succeeded, and what has failed.
    Redis(MultiplexedConnection, [Counted; 2]),
    /// A database of results alone, good and bad.
    Results(MultiplexedConnection),
}

/// Runs that have ended well, and those that have not.
#[derive(Clone, Copy, Default)]
pub struct Ended {
    pub well: usize,
    pub failed: usize,
}

impl Ended {
    pub fn all(self) -> usize {
        self.well + self.failed
    }
}

impl Store {
    pub async fn ours(database: &str) -> Result<Self> {
        if database.starts_with("postgres") {
            return Ok(Self::Postgres(PgConnection::connect(database).await?, OURS));
        }
        Ok(Self::Sqlite(SqliteConnection::connect(&format!("sqlite://{database}?mode=ro")).await?))
    }

    pub async fn agno(database: &str) -> Result<Self> {
        Ok(Self::Postgres(PgConnection::connect(database).await?, AGNO))
    }

    pub async fn celery(redis: &str) -> Result<Self> {
        Ok(Self::Results(connect(&format!("{redis}/1")).await?))
    }

    pub async fn bullmq(redis: &str) -> Result<Self> {
        Ok(Self::Redis(connect(redis).await?, [("ZCARD", "bull:runs:completed"), ("ZCARD", "bull:runs:failed")]))
    }

    pub async fn apalis(redis: &str) -> Result<Self> {
        Ok(Self::Redis(connect(redis).await?, [("SCARD", "runs:done"), ("SCARD", "runs:dead")]))
    }

    pub async fn ended(&mut self) -> Result<Ended> {
        let count = |n: i64| usize::try_from(n).unwrap_or_default();
        Ok(match self {
            Self::Postgres(connection, query) => {
                let row = sqlx::query(*query).fetch_one(connection).await?;
                Ended { well: count(row.try_get(0)?), failed: count(row.try_get(1)?) }
            }
            Self::Sqlite(connection) => {
                let row = sqlx::query(OURS).fetch_one(connection).await?;
                Ended { well: count(row.try_get(0)?), failed: count(row.try_get(1)?) }
            }
            Self::Redis(connection, [well, failed]) => {
                let mut both = redis::pipe();
                both.cmd(well.0).arg(well.1).cmd(failed.0).arg(failed.1);
                let (well, failed) = both.query_async(connection).await?;
                Ended { well, failed }
            }
            Self::Results(connection) => Ended { well: redis::cmd("DBSIZE").query_async(connection).await?, failed: 0 },
        })
    }

    /// As `ended`; slower, and right where good and bad results are kept together.
    pub async fn outcome(&mut self) -> Result<Ended> {
        let Self::Results(connection) = self else { return self.ended().await };
        let keys: Vec<String> = redis::cmd("KEYS").arg("celery-task-meta-*").query_async(connection).await?;
        if keys.is_empty() {
            return Ok(Ended::default());
        }
        let results: Vec<Option<String>> = redis::cmd("MGET").arg(&keys).query_async(connection).await?;
        let well = results.iter().flatten().filter(|result| result.contains(r#""SUCCESS""#)).count();
        Ok(Ended { well, failed: keys.len() - well })
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}
