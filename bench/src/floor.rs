//! The baseline: poem, the same database, and nothing of ours. A POST commits one row, `GET /sse` holds a stream.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use poem::{
    Body, EndpointExt, Response, Route, Server, get, handler,
    http::StatusCode,
    listener::TcpListener,
    post,
    web::{Data, Json},
};
use runmill_shared::domain::new_id;
use runmill_testkit::process::Runmill;
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, Executor, PgPool, SqliteConnection,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    load::{self, Load},
    system::{RUNS, Services, start_run},
};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS floor (id TEXT PRIMARY KEY, body TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO floor (id, body) VALUES ($1, $2)";
/// `postgres://…`, or the path of an SQLite file.
const DATABASE: &str = "FLOOR_DATABASE";
/// As Runmill has by default.
const CONNECTIONS: u32 = 16;

/// The floor's own way to a database.
#[derive(Clone)]
pub enum Rows {
    Sqlite(Arc<Mutex<SqliteConnection>>),
    Postgres(PgPool),
}

impl Rows {
    pub async fn open(database: &str) -> Result<Self> {
        if database.starts_with("postgres") {
            let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(database).await?;
            pool.execute(TABLE).await?;
            return Ok(Self::Postgres(pool));
        }
        let options = SqliteConnectOptions::new().filename(database).create_if_missing(true);
        let durable = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let mut connection = durable.connect().await?;
        connection.execute(TABLE).await?;
        Ok(Self::Sqlite(Arc::new(Mutex::new(connection))))
    }

    /// One row, one commit.
    pub async fn insert(&self, body: &str) -> Result<String> {
        let id = new_id().to_string();
        match self {
            Self::Sqlite(connection) => {
                sqlx::query(INSERT).bind(&id).bind(body).execute(&mut *connection.lock().await).await?;
            }
            Self::Postgres(pool) => {
                sqlx::query(INSERT).bind(&id).bind(body).execute(pool).await?;
            }
        }
        Ok(id)
    }
}

#[handler]
async fn insert(rows: Data<&Rows>, body: Json<Value>) -> poem::Result<Json<Value>> {
    match rows.insert(&body.0.to_string()).await {
        Ok(id) => Ok(Json(json!({ "id": id }))),
        Err(e) => Err(poem::Error::from_string(e.to_string(), StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

#[handler]
fn ready() -> &'static str {
    "ok"
}

#[handler]
fn sse() -> Response {
    let first = stream::once(async { Ok::<_, std::io::Error>("id: 1\nevent: first\ndata: {}\n\n") });
    Response::builder().content_type("text/event-stream").body(Body::from_bytes_stream(first.chain(stream::pending())))
}

/// Serves until it is killed. Ready when `/readyz` answers.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the benchmarks; a password does not belong into a command line")]
    let database = std::env::var(DATABASE)?;
    let rows = Rows::open(&database).await?;
    let routes = Route::new().at(RUNS, post(insert)).at("/readyz", get(ready)).at("/sse", get(sse)).data(rows);
    Ok(Server::new(TcpListener::bind(listen)).run(routes).await?)
}

/// The floor in a process of its own, on a new database.
pub struct Floor {
    process: Runmill,
    pub address: SocketAddr,
    // After the process that uses it.
    _dir: TempDir,
}

impl Floor {
    pub async fn sqlite() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("floor.db");
        Self::start(dir, file.to_string_lossy().into_owned()).await
    }

    pub async fn postgres(services: &Services) -> Result<Self> {
        Self::start(tempfile::tempdir()?, services.database().await?).await
    }

    async fn start(dir: TempDir, database: String) -> Result<Self> {
        let environment = [(DATABASE, database)];
        let mut process = Runmill::spawn(std::env::current_exe()?, "floor", "floor", dir.path(), environment)?;
        process.ready().await?;
        Ok(Self { address: process.ops, process, _dir: dir })
    }

    pub fn pid(&self) -> Result<u32> {
        self.process.pid().context("the floor has ended")
    }

    /// Commits of one row each, a second.
    pub async fn commits(&self, clients: usize, time: Duration) -> Result<Load> {
        load::closed(self.address, clients, time, |client, n| {
            start_run(&format!("t{client}-{n}"), &format!("r{client}-{n}"), "hello", "{}")
        })
        .await
    }
}
