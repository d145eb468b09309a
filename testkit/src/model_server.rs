//! A model server on the OpenAI wire (`POST /v1/chat/completions`, streamed and whole) that answers by script, and has bad days on
//! order. Many runs may talk to one server at once: a responder sees the conversation and decides (`ModelServer::with`), or
//! answers are queued (`script`). It records what it was asked; tests wait for its counts instead of sleeping.
mod gate;
mod reply;
mod request;
mod wire;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use poem::{
    EndpointExt, Route, Server, get, handler,
    listener::TcpAcceptor,
    post,
    web::{Data, Json},
};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use self::reply::Told;
pub use self::{gate::Gate, reply::Reply, request::Request};
use crate::turnstile::Turnstile;

/// How long [`ModelServer::until`] waits.
const DEADLINE: Duration = Duration::from_secs(120);

/// How many requests came, and how their answers ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: usize,
    /// Answers that are being given, silence included.
    pub open: usize,
    /// The most that were open at once.
    pub most_open: usize,
    /// Answers given to their scripted end.
    pub finished: usize,
    /// Answers that the client left.
    pub left: usize,
}

type Responder = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    queue: Mutex<VecDeque<Reply>>,
    respond: Responder,
    requests: Mutex<Vec<Request>>,
    forgets: AtomicBool,
    counts: watch::Sender<Counts>,
    turnstile: OnceLock<Turnstile>,
}

impl Shared {
    fn answer(&self, request: &Request) -> Reply {
        let queued = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        queued.unwrap_or_else(|| (self.respond)(request))
    }

    fn record(&self, request: Request) {
        if !self.forgets.load(Ordering::Relaxed) {
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
        self.counts.send_modify(|counts| {
            counts.received += 1;
            counts.open += 1;
            counts.most_open = counts.most_open.max(counts.open);
        });
    }
}

/// Stops when it is dropped.
pub struct ModelServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl ModelServer {
    /// Answers what was scripted, in order, and then `ok`.
    pub async fn start() -> Result<Self> {
        Self::with(|_| Reply::text("ok")).await
    }

    /// Answers what was scripted, and else what `respond` makes of the conversation.
    pub async fn with(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            respond: Box::new(respond),
            requests: Mutex::default(),
            forgets: AtomicBool::new(false),
            counts: watch::Sender::default(),
            turnstile: OnceLock::new(),
        });
        let app = Route::new().at("/v1/chat/completions", post(complete)).at("/v1/models", get(models)).data(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
        spawn(server.run_with_graceful_shutdown(app, stopped, Some(Duration::ZERO)));
        Ok(Self { addr, shared, _stop: stop })
    }

    /// As for `models.openai_base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// From now on only requests that the turnstile has let in are seen.
    pub fn behind(&self, turnstile: &Turnstile) {
        self.shared.turnstile.set(turnstile.clone()).ok();
    }

    /// From now on it keeps no requests, only their counts: for benchmarks, which ask a hundred thousand times.
    pub fn keep_no_requests(&self) {
        self.shared.forgets.store(true, Ordering::Relaxed);
    }

    /// Queues an answer.
    pub fn script(&self, reply: Reply) -> &Self {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(reply);
        self
    }

    /// Every request so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted.
    ///
    /// # Errors
    /// When they are not within two minutes; the error shows them.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Result<Counts> {
        let mut counts = self.shared.counts.subscribe();
        let reached = tokio::time::timeout(DEADLINE, counts.wait_for(wanted)).await.map(|found| found.map(|counts| *counts));
        Ok(reached.with_context(|| format!("the model server is still at {:?}", self.counts()))??)
    }
}

#[handler]
async fn complete(shared: Data<&Arc<Shared>>, head: &poem::Request, body: Json<Value>) -> poem::Response {
    if let Some(turnstile) = shared.turnstile.get()
        && !turnstile.pass().await
    {
        return poem::http::StatusCode::SERVICE_UNAVAILABLE.into();
    }
    let request = Request::new(head.headers(), body.0);
    let reply = shared.answer(&request);
    shared.record(request.clone());
    let answering = Answering::new(shared.counts.clone(), reply.told.clone());
    wire::answer(reply, &request, answering).await
}

#[handler]
fn models() -> Json<Value> {
    Json(json!({"object": "list", "data": [{"id": "scripted", "object": "model"}]}))
}

/// One answer that is being given; when it is dropped before its end, the client has left.
struct Answering {
    counts: watch::Sender<Counts>,
    told: Option<Told>,
    finished: bool,
}

impl Answering {
    fn new(counts: watch::Sender<Counts>, told: Option<Told>) -> Self {
        Self { counts, told, finished: false }
    }

    fn finish(&mut self) {
        self.finished = true;
        if let Some(Told(tell)) = self.told.take() {
            tell();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| {
            counts.open -= 1;
            *(if self.finished { &mut counts.finished } else { &mut counts.left }) += 1;
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "a server of the tests: no span to keep, and it ends with its ModelServer")]
fn spawn(task: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(task);
}
