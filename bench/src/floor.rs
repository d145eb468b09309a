//! The baseline: poem, the same database, and nothing of ours. `POST /` commits one row for each request, `GET /sse` holds a stream.
use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use anyhow::Result;
use futures::{StreamExt, stream};
use poem::{
    Body, EndpointExt, Response, Route, Server, get, handler,
    http::StatusCode,
    listener::TcpListener,
    post,
    web::{Data, Json},
};
use runmill_shared::domain::new_id;
use runmill_testkit::database::TestDatabase;
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, Executor, PgPool, SqliteConnection,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    process::{Process, free_address},
    system,
};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS floor (id TEXT PRIMARY KEY, body TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO floor (id, body) VALUES ($1, $2)";
/// As Runmill has by default.
const CONNECTIONS: u32 = 16;

/// The floor's own way to a database.
#[derive(Clone)]
pub enum Rows {
    Sqlite(Arc<Mutex<SqliteConnection>>),
    Postgres(PgPool),
}

impl Rows {
    /// `postgres://…`, or the path of an SQLite file.
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
fn health() -> &'static str {
    "ok"
}

#[handler]
fn sse() -> Response {
    let first = stream::once(async { Ok::<_, std::io::Error>("id: 1\nevent: first\ndata: {}\n\n") });
    Response::builder().content_type("text/event-stream").body(Body::from_bytes_stream(first.chain(stream::pending())))
}

pub async fn serve(listen: SocketAddr, database: &str) -> Result<()> {
    let rows = Rows::open(database).await?;
    let routes = Route::new().at("/", post(insert)).at("/health", get(health)).at("/sse", get(sse)).data(rows);
    Ok(Server::new(TcpListener::bind(listen)).run(routes).await?)
}

/// The floor in a process of its own, on a new database.
pub struct Floor {
    pub process: Process,
    pub address: SocketAddr,
    _database: Option<TestDatabase>,
    _dir: TempDir,
}

impl Floor {
    pub async fn sqlite() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("floor.db");
        Self::start(dir, None, &file.to_string_lossy()).await
    }

    pub async fn postgres() -> Result<Self> {
        let database = system::postgres().await?;
        let url = database.config().database.url;
        Self::start(tempfile::tempdir()?, Some(database), url.expose()).await
    }

    async fn start(dir: TempDir, database: Option<TestDatabase>, url: &str) -> Result<Self> {
        let address = free_address()?;
        let log = dir.path().join("floor.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", &address.to_string(), url]);
        let mut process = Process::start(&mut command, Path::new(&log))?;
        process.ready(address, "/health", &log).await?;
        Ok(Self { process, address, _database: database, _dir: dir })
    }
}
