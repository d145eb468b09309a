//! A whole API for each test, and a worker in the hands of the test.
use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, Method, RequestBuilder, multipart};
use runmill_api::{Health, Listeners, Setup};
use runmill_shared::{
    App,
    clock::{Clock, Timestamp},
    config::{AuthMode, Config, Secret},
    domain::{
        event::{NewEvent, kind},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Claimed, RunUsage},
    },
    services::runs::execution::{self, Claim, Doubt, End, Unit, Writes},
    store::{runs::moves, sessions},
    tasks,
};
use runmill_testkit::database::{TestDatabase, databases};
pub use runmill_testkit::http_client::{Sse, content, read, soon};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);
/// 2026-03-16T10:00:00Z
pub const START: Timestamp = Timestamp(1_773_655_200_000_000);
/// A Redis that tests may use: `redis://…`.
const REDIS: &str = "RUNMILL_TEST_REDIS_URL";

pub struct TestApi {
    pub app: App,
    pub address: SocketAddr,
    client: Client,
    /// What requests are sent with.
    token: Option<String>,
    session: Uuid,
    pub stop: CancellationToken,
    pub stopped: Option<JoinHandle<()>>,
    pub database: TestDatabase,
}

fn redis() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests and not of the product")]
    std::env::var(REDIS).ok().filter(|url| !url.is_empty())
}

/// One on SQLite; one on Postgres, with Redis, where services are given. Open, as the user `local`, unless `adjust` says otherwise.
pub async fn each(adjust: impl Fn(&mut Config)) -> Vec<TestApi> {
    let mut all = Vec::new();
    for database in databases().await {
        let mut config = database.config();
        if let (true, Some(url)) = (!config.database.url.is_empty(), redis()) {
            config.redis.url = Secret::new(url);
            config.redis.prefix = format!("test-{}", new_id());
        }
        adjust(&mut config);
        all.push(TestApi::start(database, config).await);
    }
    all
}

pub fn required(config: &mut Config) {
    config.auth.mode = AuthMode::Required;
    config.auth.jwt_secret = Secret::new("a secret of more than thirty-two bytes");
}

impl TestApi {
    async fn start(database: TestDatabase, config: Config) -> Self {
        let mut app = App::open(config).await.unwrap();
        app.clock = Clock::manual(START);
        let session = new_id();
        sessions::open(&app.db, session, "test worker", START, START.after(DAY * 1000)).await.unwrap();
        let listeners = Listeners::bind(&app.config).await.unwrap();
        let (address, stop) = (listeners.platform_addr().unwrap(), CancellationToken::new());
        let (served, token) = (app.clone(), stop.clone());
        let setup = Setup { builtin_tools: Vec::new(), health: Health::of(&app) };
        let stopped = tasks::spawn("test server", async move {
            runmill_api::serve(served, setup, listeners, token).await.unwrap();
        });
        let client = Client::builder().no_proxy().build().unwrap();
        Self { app, address, client, token: None, session, stop, stopped: Some(stopped), database }
    }

    pub fn name(&self) -> &'static str {
        self.database.name()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Below `/api/v1/agent`.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, &format!("/api/v1/agent{path}"))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/api/v1/agent{path}"))
    }

    /// From here on requests are those of a new account; answers the token.
    pub async fn sign_in(&mut self, name: &str) -> String {
        self.token = None;
        let body = json!({ "email": format!("{name}@example.org"), "password": "correct horse", "nickname": name });
        let registered = self.request(Method::POST, "/api/v1/auth/register").json(&body).send().await.unwrap();
        assert_eq!(registered.status(), 201);
        let form = [("username", name), ("password", "correct horse")];
        let (status, body) = read(self.request(Method::POST, "/api/v1/auth/login").form(&form)).await;
        assert_eq!(status, 200, "{body}");
        let token = body["access_token"].as_str().unwrap().to_owned();
        self.token = Some(token.clone());
        token
    }

    pub fn be(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    /// Posts a run of one message; answers its taskId.
    pub async fn post_run(&self, thread: &str, run: &str) -> Uuid {
        let (status, body) = read(self.post("/runs").json(&run_body(thread, run))).await;
        assert_eq!(status, 200, "{body}");
        body["taskId"].as_str().unwrap().parse().unwrap()
    }

    pub async fn claim(&self, task: Uuid) -> Claimed {
        let claim = Claim { run: task, session: self.session };
        let claimed = moves::claim(&self.app.db, &[claim], self.app.clock.now()).await.unwrap();
        claimed.into_iter().next().expect("the run is not ready")
    }

    pub async fn tell(&self, run: &Claimed, events: Vec<NewEvent>) {
        let unit = Unit { run, writes: Writes { events, ..Writes::default() } };
        assert!(execution::flush(&self.app, vec![unit], &mut Doubt::default()).await.unwrap().is_empty());
    }

    /// What a run tells that answers with one text, up to the last fragment.
    pub async fn answer(&self, run: &Claimed, message: &str, text: &str) {
        let event = NewEvent::new;
        self.tell(
            run,
            vec![
                event(kind::RUN_STARTED, json!({ "attempt": 0, "agentId": "demo", "model": "offline:scripted-demo" })),
                event(kind::MESSAGE_STARTED, json!({ "messageId": message, "role": "assistant" })),
                event(kind::TEXT_DELTA, json!({ "messageId": message, "delta": text })),
            ],
        )
        .await;
    }

    pub async fn finish(&self, run: &Claimed, message: &str, text: &str) {
        let usage = RunUsage { input_tokens: 3, output_tokens: 5, ..RunUsage::default() };
        let result = json!(text);
        let finished = json!({ "messageId": message, "role": "assistant", "content": text });
        let said = NewMessage { id: message.into(), role: MessageRole::Assistant, body: MessageBody::text(text) };
        let events = vec![NewEvent::new(kind::MESSAGE_FINISHED, finished), NewEvent::finished(&result, usage, &[])];
        let last = Writes { events, messages: vec![said], ..Writes::default() };
        let end = End::succeeded(result.clone()).using(usage);
        execution::end(&self.app, run, end, last).await.unwrap();
    }

    /// Posts, executes and ends a run that answers `text` under the message id `{run}-answer`.
    pub async fn complete(&self, thread: &str, run: &str, text: &str) -> Uuid {
        let task = self.post_run(thread, run).await;
        let claimed = self.claim(task).await;
        self.answer(&claimed, &format!("{run}-answer"), text).await;
        self.finish(&claimed, &format!("{run}-answer"), text).await;
        task
    }

    pub async fn history(&self, thread: &str) -> Value {
        let (status, body) = read(self.get("/history").query(&[("threadId", thread)])).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn upload(&self, thread: &str, name: &str, bytes: &[u8]) -> (u16, Value) {
        let form = multipart::Form::new().text("threadId", thread.to_owned()).part("file", file(name, bytes));
        read(self.post("/attachments").multipart(form)).await
    }

    pub async fn open(&self, request: RequestBuilder) -> Sse {
        Sse::open(request).await
    }

    pub async fn events(&self, thread: &str, query: &str) -> Sse {
        self.open(self.get(&format!("/runs/{thread}/events?{query}"))).await
    }
}

pub fn file(name: &str, bytes: &[u8]) -> multipart::Part {
    multipart::Part::bytes(bytes.to_vec()).file_name(name.to_owned())
}

pub fn run_body(thread: &str, run: &str) -> Value {
    json!({
        "threadId": thread, "runId": run, "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{ "id": format!("{run}-question"), "role": "user", "content": format!("question of {run}") }],
    })
}
