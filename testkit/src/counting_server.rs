//! A web server that counts what it is asked, for tools that reach out. `/held/…` answers once its gate is open.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use poem::{EndpointExt, Route, Server, handler, listener::TcpAcceptor, web::Data};
use tokio::sync::{oneshot, watch};

use crate::{model_server::Gate, turnstile::Turnstile};

const DEADLINE: Duration = Duration::from_secs(120);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub idempotency_key: Option<String>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    gate: Gate,
    turnstile: OnceLock<Turnstile>,
}

/// Stops when it is dropped.
pub struct CountingServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl CountingServer {
    /// `gate` holds back the answers of `/held/…`.
    pub async fn start(gate: &Gate) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            gate: gate.clone(),
            turnstile: OnceLock::new(),
        });
        let app = Route::new().at("/*path", poem::RouteMethod::new().get(answer).post(answer)).data(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
        spawn(server.run_with_graceful_shutdown(app, stopped, Some(Duration::ZERO)));
        Ok(Self { addr, shared, _stop: stop })
    }

    /// From now on only requests that the turnstile has let in are seen.
    pub fn behind(&self, turnstile: &Turnstile) {
        self.shared.turnstile.set(turnstile.clone()).ok();
    }

    /// `host:port`, as for `security.allow_private_hosts`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests came.
    ///
    /// # Errors
    /// When they have not within two minutes.
    pub async fn until(&self, wanted: usize) -> Result<()> {
        let mut count = self.shared.count.subscribe();
        let reached = tokio::time::timeout(DEADLINE, count.wait_for(|n| *n >= wanted)).await.map(|found| found.map(|_| ()));
        Ok(reached.with_context(|| format!("the web server has only seen {:?}", self.seen()))??)
    }
}

#[handler]
async fn answer(shared: Data<&Arc<Shared>>, request: &poem::Request) -> String {
    if let Some(turnstile) = shared.turnstile.get()
        && !turnstile.pass().await
    {
        return String::new();
    }
    let path = request.uri().path().to_owned();
    let key = request.header("idempotency-key").map(str::to_owned);
    let seen = Seen { method: request.method().to_string(), path: path.clone(), idempotency_key: key };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    shared.count.send_modify(|n| *n += 1);
    if path.starts_with("/held") {
        shared.gate.opened().await;
    }
    format!("answer to {path}")
}

#[expect(clippy::disallowed_methods, reason = "a server of the tests: no span to keep, and it ends with its CountingServer")]
fn spawn(task: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(task);
}
