//! What these tests share: a context of a call, the list, and servers on loopback.
use std::{
    cell::RefCell,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runmill_shared::{
    App,
    clock::{Clock, Timestamp},
    config::Config,
    domain::{caller::Owner, new_id},
    store::threads::{self, Advance},
};
use runmill_testkit::database::TestDatabase;
use runmill_worker::tools::{ToolContext, ToolError, ToolScope, Tools};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(20);

thread_local! {
    /// The files of a test's database, until its thread ends.
    static KEPT: RefCell<Vec<TestDatabase>> = const { RefCell::new(Vec::new()) };
}

pub async fn context() -> ToolContext {
    let database = TestDatabase::sqlite().await;
    let mut app = App::open(database.config()).await.unwrap();
    app.clock = Clock::manual(Timestamp(1_773_655_200_000_000));
    KEPT.with_borrow_mut(|kept| kept.push(database));
    ToolContext {
        scope: ToolScope {
            owner: Owner::of_row("ann"),
            run_id: new_id(),
            thread_id: new_id(),
            thread: "t".into(),
            agent_id: None,
            goal_id: None,
        },
        step_key: "run-1/3/0/http_request/abc".to_owned(),
        clock: app.clock.clone(),
        app,
        cancel: CancellationToken::new(),
        timeout: DEADLINE,
        max_output_bytes: 65_536,
    }
}

/// The context of a call in a thread `t` that is there.
pub async fn in_thread(database: &TestDatabase, tweak: impl FnOnce(&mut Config)) -> ToolContext {
    let mut config = database.config();
    tweak(&mut config);
    let app = App::open(config).await.unwrap();
    let (owner, now) = (Owner::of_row("ann"), app.clock.now());
    let mut tx = app.db.begin().await.unwrap();
    let thread_id = threads::ensure(&mut tx, new_id(), &owner, "t", true, now).await.unwrap();
    threads::advance(&mut tx, thread_id, Advance::default()).await.unwrap();
    tx.commit().await.unwrap();
    ToolContext {
        scope: ToolScope { owner, run_id: new_id(), thread_id, thread: "t".into(), agent_id: None, goal_id: None },
        step_key: "step".to_owned(),
        clock: app.clock.clone(),
        app,
        cancel: CancellationToken::new(),
        timeout: DEADLINE * 3,
        max_output_bytes: 65_536,
    }
}

/// Calls a tool, and checks that what it answers is what its schema says.
pub async fn call(cx: &ToolContext, name: &str, arguments: Value) -> Result<Value, ToolError> {
    let tools = Tools::builtin(&cx.app.config).unwrap();
    let answer = tools.call(name, cx, arguments).await?;
    let schema = jsonschema::validator_for(&tools.get(name).unwrap().output()).unwrap();
    let problems: Vec<_> = schema.iter_errors(&answer).map(|e| e.to_string()).collect();
    assert!(problems.is_empty(), "{name}: {problems:?} in {answer}");
    Ok(answer)
}

pub fn tools(allowed: &[String]) -> Tools {
    let mut config = Config::defaults().unwrap();
    config.security.allow_private_hosts = allowed.to_vec();
    Tools::builtin(&config).unwrap()
}

pub async fn get(tools: &Tools, url: &str) -> Result<Value, ToolError> {
    tools.call("http_request", &context().await, json!({"method": "GET", "url": url})).await
}

/// A server that hands each connection to `serve` with the request's text, and counts them.
pub struct Server {
    pub port: u16,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (count, seen) = (Arc::clone(&connections), Arc::<Mutex<Vec<String>>>::clone(&requests));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let text = request(&mut stream).await;
                seen.lock().unwrap().push(text);
                open.spawn(serve(stream));
            }
        });
        Self { port, connections, requests, _tasks: tasks }
    }

    /// Answers every request with `answer` and closes.
    pub async fn fixed(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        })
        .await
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.host())
    }

    /// Proves that nothing reached it before, and that something would have been counted.
    pub async fn was_never_reached(&self) {
        get(&tools(&[self.host()]), &self.url()).await.unwrap();
        assert_eq!(self.connections.load(Ordering::SeqCst), 1, "{:?}", self.requests.lock().unwrap());
    }
}

/// Reads one request: its head, and as much body as its content-length says.
pub async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        let lower = text.to_lowercase();
        if let Some((head, body)) = lower.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        if n == 0 {
            return text;
        }
    }
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
