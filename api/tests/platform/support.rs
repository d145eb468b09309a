//! The whole system for each test: the API on a port of its own, a worker, a scripted model, and three users.
use std::{collections::HashMap, net::SocketAddr, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use runmill_api::{Health, Listeners, Setup};
use runmill_shared::{
    App,
    config::{AuthMode, Config, Secret},
    tasks,
};
use runmill_testkit::{
    app::TestWorker,
    database::TestDatabase,
    http_client::{Sse, read, soon},
    model_server::ModelServer,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PREFIX: &str = "/api/v1";
const PASSWORD: &str = "correct horse";
/// The first is the administrator.
const USERS: [&str; 3] = ["ann", "bob", "eve"];

pub struct TestPlatform {
    /// What the API has; the worker of a distributed one has its own.
    pub app: App,
    /// The default model; whatever was not scripted it answers with `ok`.
    pub model: ModelServer,
    address: SocketAddr,
    client: Client,
    tokens: HashMap<&'static str, String>,
    worker: Option<TestWorker>,
    stop: CancellationToken,
    database: TestDatabase,
}

/// Embedded (SQLite, all in one process) always; distributed (Postgres and Redis) too where they are given.
pub async fn databases() -> Vec<TestDatabase> {
    let mut all = vec![TestDatabase::sqlite().await];
    all.extend(TestDatabase::distributed_from_env().await);
    all
}

/// One on each of `databases`.
pub async fn each(tweak: impl Fn(&mut Config)) -> Vec<TestPlatform> {
    let mut all = Vec::new();
    for database in databases().await {
        all.push(TestPlatform::start(database, &tweak).await);
    }
    all
}

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The API on a free port, until the token is cancelled.
async fn serve(app: &App) -> (SocketAddr, CancellationToken) {
    let listeners = Listeners::bind(&app.config).await.unwrap();
    let (address, stop) = (listeners.platform_addr().unwrap(), CancellationToken::new());
    let builtin_tools = runmill_worker::builtin_tools(&app.config).unwrap();
    let setup = Setup { builtin_tools, health: Health::of(app) };
    let (served, token) = (app.clone(), stop.clone());
    tasks::spawn("test server", async move { runmill_api::serve(served, setup, listeners, token).await.unwrap() });
    (address, stop)
}

impl TestPlatform {
    /// With sign-in required, and settings changed by `tweak`.
    pub async fn start(database: TestDatabase, tweak: impl FnOnce(&mut Config)) -> Self {
        Self::with_model(database, ModelServer::start().await.unwrap(), tweak).await
    }

    pub async fn with_model(database: TestDatabase, model: ModelServer, tweak: impl FnOnce(&mut Config)) -> Self {
        let mut config = database.config();
        config.auth.mode = AuthMode::Required;
        config.auth.jwt_secret = Secret::new("a secret of more than thirty-two bytes");
        config.models.openai_base_url = model.base_url();
        config.models.openai_api_key = Secret::new("sk-test");
        config.models.default = "openai:test".into();
        tweak(&mut config);
        let app = App::open(config).await.unwrap();
        let (address, stop) = serve(&app).await;
        let client = Client::builder().no_proxy().build().unwrap();
        let mut this = Self { app, model, address, client, tokens: HashMap::new(), worker: None, stop, database };
        this.start_worker().await;
        for name in USERS {
            this.sign_in(name).await;
        }
        this
    }

    pub fn name(&self) -> &'static str {
        self.database.name()
    }

    /// Tells the API to stop, as SIGTERM does, and starts another one, at another address.
    pub async fn restart_api(&mut self) {
        self.stop.cancel();
        (self.address, self.stop) = serve(&self.app).await;
    }

    /// Opens a socket below `/api/v1`, or answers the status of the refusal. `token` as `?token=`.
    pub async fn socket(&self, path: &str, token: Option<&str>) -> Result<Socket, u16> {
        self.socket_of(path, token, None).await
    }

    /// As `socket`, for a page of that origin, as in `http://127.0.0.1:8080`.
    pub async fn socket_of(&self, path: &str, token: Option<&str>, origin: Option<&str>) -> Result<Socket, u16> {
        let query = token.map_or_else(String::new, |token| format!("?token={token}"));
        let mut request = format!("ws://{}{PREFIX}{path}{query}", self.address).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(refused)) => Err(refused.status().as_u16()),
            Err(e) => panic!("{path}: {e}"),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    async fn sign_in(&mut self, name: &'static str) {
        let body = json!({ "email": format!("{name}@example.org"), "password": PASSWORD, "nickname": name });
        let (status, registered) = self.nobody().post("/auth/register", body).await;
        assert_eq!(status, 201, "{registered}");
        let login = self.nobody().request(Method::POST, "/auth/login").form(&[("username", name), ("password", PASSWORD)]);
        let (status, token) = read(login).await;
        assert_eq!(status, 200, "{token}");
        self.tokens.insert(name, token["access_token"].as_str().unwrap().to_owned());
    }

    /// Whose requests they are: `ann` (the administrator), `bob` or `eve`.
    pub fn as_(&self, name: &str) -> Session<'_> {
        Session { platform: self, token: Some(self.tokens[name].clone()) }
    }

    /// Requests without a token.
    pub fn nobody(&self) -> Session<'_> {
        Session { platform: self, token: None }
    }

    /// Says something in a session through the Agent API, and waits until the run has ended well; answers its id. The answer's id is
    /// the worker's. `props` are AG-UI's forwardedProps: `{"agentId"}`.
    pub async fn converse(&self, name: &str, session: &str, message: &str, props: Value) -> Uuid {
        let execution = self.say(name, session, message, props).await;
        let run = self.ended(name, execution).await;
        assert_eq!(run["status"], "succeeded", "{run}");
        execution
    }

    /// As `converse`, without waiting.
    pub async fn say(&self, name: &str, session: &str, message: &str, props: Value) -> Uuid {
        let said = json!({ "id": message, "role": "user", "content": format!("text of {message}") });
        let body = json!({ "threadId": session, "runId": format!("run of {message} in {session}"), "messages": [said],
            "state": {}, "tools": [], "context": [], "forwardedProps": props });
        let (status, accepted) = self.as_(name).post("/agent/runs", body).await;
        assert_eq!(status, 200, "{accepted}");
        accepted["taskId"].as_str().unwrap().parse().unwrap()
    }

    /// A run as the Agent API tells it, once it has ended.
    pub async fn ended(&self, name: &str, execution: Uuid) -> Value {
        let path = format!("/agent/runs/{execution}");
        let asked = async {
            loop {
                let (status, run) = self.as_(name).get(&path).await;
                assert_eq!(status, 200, "{run}");
                if ["succeeded", "failed", "cancelled"].iter().any(|state| run["status"] == *state) {
                    return run;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the end of the run", asked).await
    }

    /// The ids of a session's messages, as the Agent API's history has them.
    pub async fn history(&self, name: &str, session: &str) -> Vec<String> {
        let request = self.as_(name).request(Method::GET, "/agent/history").query(&[("threadId", session)]);
        let (status, history) = read(request).await;
        assert_eq!(status, 200, "{history}");
        history["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A worker shares the API's process when embedded, and has handles of its own when distributed.
    pub async fn start_worker(&mut self) {
        let app = match self.app.db.is_postgres() {
            true => App::open((*self.app.config).clone()).await.unwrap(),
            false => self.app.clone(),
        };
        self.worker = Some(TestWorker::start(&app));
    }

    /// As SIGTERM does: what does not end soon goes back to the queue.
    pub async fn stop_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.drain().await.unwrap();
        }
    }

    /// As a crash does.
    pub async fn kill_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill().await;
        }
    }
}

impl Drop for TestPlatform {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Requests of one user, below `/api/v1`. Each answers the status, and the body as JSON (`null` when it is empty).
pub struct Session<'a> {
    platform: &'a TestPlatform,
    token: Option<String>,
}

impl Session<'_> {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.at(method, &format!("{PREFIX}{path}"))
    }

    fn at(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.platform.client.request(method, format!("http://{}{path}", self.platform.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.request(Method::POST, path).json(&body)).await
    }

    /// For actions that take no body.
    pub async fn act(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::POST, path)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::DELETE, path)).await
    }

    /// Posts, and reads the answer as server-sent events.
    pub async fn stream(&self, path: &str, body: Value) -> Sse {
        Sse::open(self.request(Method::POST, path).json(&body)).await
    }

    /// Any method, on a path of the whole server.
    pub async fn absolute(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = self.at(method.parse().unwrap(), path);
        read(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Posts what has to be made, and answers it.
    pub async fn create(&self, path: &str, body: Value) -> Value {
        let (status, created) = self.post(path, body).await;
        assert_eq!(status, 201, "{path}: {created}");
        created
    }
}
