//! A server of its own for each test: the platform as it is, and a dialect of probes that misbehave on request.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use poem::{Endpoint, EndpointExt, Route};
use poem_openapi::{
    Object, OpenApi, OpenApiService,
    param::Query,
    payload::{Binary, PlainText},
};
use reqwest::{Client, RequestBuilder, Response};
use runmill_api::{
    Health, Listeners, Setup, Stopping,
    http::{
        auth::{Auth, Authenticator, StreamAuth},
        error::{Dialect, Envelope, Failed, Refusal},
        patience::Patience,
        server,
    },
};
use runmill_shared::{
    App,
    clock::{Clock, Timestamp},
    config::{AuthMode, Config, Secret},
    domain::{caller::Scope, tool::ToolDescriptor},
    tasks,
};
use runmill_testkit::database::TestDatabase;
pub use runmill_testkit::http_client::{content as read, soon};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub const SECRET: &str = "a secret of more than thirty-two bytes";

/// What the probes and the test tell each other.
#[derive(Clone, Default)]
pub struct Signals {
    pub entered: Arc<Notify>,
    pub go_on: Arc<Notify>,
    pub dropped: CancellationToken,
}

pub struct TestServer {
    pub app: App,
    pub address: SocketAddr,
    pub client: Client,
    pub signals: Signals,
    pub stop: CancellationToken,
    pub stopped: JoinHandle<()>,
    pub _database: TestDatabase,
}

/// The settings of a server that wants sign-in.
pub fn required(database: &TestDatabase) -> Config {
    let mut config = database.config();
    config.auth.mode = AuthMode::Required;
    config.auth.jwt_secret = Secret::new(SECRET);
    config
}

pub fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

impl TestServer {
    pub async fn start(database: TestDatabase, config: Config) -> Self {
        let mut app = App::open(config).await.unwrap();
        app.clock = Clock::manual(Timestamp(1_800_000_000_000_000));
        let (signals, stop) = (Signals::default(), CancellationToken::new());
        let listener = server::bind(app.config.listen.platform).await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = routes(&app, &signals, &stop);
        let (config, token) = (app.config.clone(), stop.clone());
        let stopped = tasks::spawn("test server", async move {
            server::serve("test", listener, endpoint, &config, token).await.unwrap();
        });
        Self { app, address, client: client(), signals, stop, stopped, _database: database }
    }

    pub async fn sqlite() -> Self {
        let database = TestDatabase::sqlite().await;
        let config = required(&database);
        Self::start(database, config).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub async fn register(&self, name: &str) -> Response {
        let body = serde_json::json!({ "email": format!("{name}@example.org"), "password": "correct horse", "nickname": name });
        self.post("/api/v1/auth/register").json(&body).send().await.unwrap()
    }

    pub async fn login(&self, username: &str, password: &str) -> Response {
        let form = [("username", username), ("password", password)];
        self.post("/api/v1/auth/login").form(&form).send().await.unwrap()
    }

    /// The token of a new account.
    pub async fn signed_in(&self, name: &str) -> String {
        assert_eq!(self.register(name).await.status(), 201);
        let (status, body) = read(self.login(name, "correct horse").await).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }
}

fn tool() -> ToolDescriptor {
    let (input_schema, output_schema) = (serde_json::json!({ "type": "object" }), serde_json::json!({}));
    let (category, description) = ("time".into(), "The time.".into());
    ToolDescriptor { name: "now".into(), category, description, input_schema, output_schema }
}

fn routes(app: &App, signals: &Signals, stop: &CancellationToken) -> impl Endpoint + 'static {
    let setup = Setup { builtin_tools: vec![tool()], health: Health::of(app) };
    let probes = OpenApiService::new(Probes { signals: signals.clone() }, "probes", "1");
    Route::new()
        .nest_no_strip("/probe", probes.with(Envelope::<Probe>::new(app.config.http.request_timeout)))
        .nest("/", runmill_api::routes(app, &setup, stop.clone()))
        .data(Authenticator::new(app.clone()))
        .data(Stopping(stop.clone()))
        .data(app.clone())
}

pub async fn listeners(config: &Config) -> Listeners {
    Listeners::bind(config).await.unwrap()
}

/// An envelope as the Agent API's.
struct Probe;

#[derive(Object)]
struct DetailBody {
    detail: String,
}

impl Dialect for Probe {
    type Body = DetailBody;

    fn body(refusal: Refusal) -> DetailBody {
        DetailBody { detail: refusal.message.into_owned() }
    }
}

struct Probes {
    signals: Signals,
}

#[OpenApi(prefix_path = "/probe")]
impl Probes {
    #[oai(path = "/panic", method = "get")]
    async fn panic(&self) -> PlainText<String> {
        panic!("the secret of the house is 42");
    }

    /// Waits for the test, for as long as it allows itself.
    #[oai(path = "/wait", method = "get")]
    async fn wait(&self, patience: Patience, seconds: Query<Option<u64>>) -> PlainText<String> {
        if let Some(seconds) = seconds.0 {
            patience.allow(Duration::from_secs(seconds));
        }
        self.signals.entered.notify_one();
        self.signals.go_on.notified().await;
        PlainText("done".into())
    }

    /// An answer without end; `dropped` is cancelled when nobody sends it any more.
    #[oai(path = "/flood", method = "get")]
    async fn flood(&self) -> Binary<poem::Body> {
        let guard = self.signals.dropped.clone().drop_guard();
        self.signals.entered.notify_one();
        let parts = futures::stream::unfold(guard, |guard| async move {
            Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'.'; 65_536])), guard))
        });
        Binary(poem::Body::from_bytes_stream(parts))
    }

    /// A stream that is open and idle until the server stops.
    #[oai(path = "/idle", method = "get")]
    async fn idle(&self, stopping: Stopping) -> Binary<poem::Body> {
        let parts = async_stream::stream! {
            yield Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"open\n"));
            stopping.0.cancelled().await;
            yield Ok(bytes::Bytes::from_static(b"retry\n"));
        };
        Binary(poem::Body::from_bytes_stream(parts))
    }

    #[oai(path = "/read", method = "get")]
    async fn read(&self, caller: StreamAuth, thread: Query<String>) -> Result<PlainText<String>, Failed<Probe>> {
        Ok(PlainText(caller.0.can(Scope::Stream { thread: &thread.0 })?.as_str().to_owned()))
    }

    #[oai(path = "/whoami", method = "get")]
    async fn whoami(&self, caller: Auth) -> Result<PlainText<String>, Failed<Probe>> {
        Ok(PlainText(caller.0.can(Scope::Read)?.as_str().to_owned()))
    }
}
