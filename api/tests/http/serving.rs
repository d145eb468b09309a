use std::time::{Duration, Instant};

use runmill_api::{Health, Listeners, Setup};
use runmill_shared::{App, Error, tasks};
use runmill_testkit::database::TestDatabase;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::support::{TestServer, client, listeners, read, required, soon};

async fn send(server: &TestServer, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_one_that_reads_is_not() {
    let database = TestDatabase::sqlite().await;
    let mut config = required(&database);
    config.http.write_timeout = Duration::from_secs(1);
    let server = TestServer::start(database, config).await;
    let mut reader = send(&server, "/probe/flood").await;
    soon("the flood", server.signals.entered.notified()).await;
    let began = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    // For longer than the timeout.
    while began.elapsed() < Duration::from_millis(1500) {
        reader.read_exact(&mut buffer).await.unwrap();
    }
    assert!(!server.signals.dropped.is_cancelled());
    // And now nothing more: the answer is dropped on the server's side though the connection is open on ours.
    soon("the cut", server.signals.dropped.cancelled()).await;
}

#[tokio::test]
async fn a_request_in_flight_may_end_and_a_stream_is_told() {
    let server = TestServer::sqlite().await;
    let waiting = server.get("/probe/wait").send();
    let waiting = tasks::spawn("client", async move {
        assert_eq!(waiting.await.unwrap().text().await.unwrap(), "done");
    });
    soon("the request", server.signals.entered.notified()).await;
    let mut stream = server.get("/probe/idle").send().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "open\n");
    server.stop.cancel();
    assert_eq!(soon("the stream's last word", stream.chunk()).await.unwrap().unwrap(), "retry\n");
    assert_eq!(soon("the stream's end", stream.chunk()).await.unwrap(), None);
    assert!(!server.stopped.is_finished(), "a request is still in flight");
    server.signals.go_on.notify_one();
    soon("the answer", waiting).await.unwrap();
    soon("the end", server.stopped).await.unwrap();
    assert!(client().get(format!("http://{}/health", server.address)).send().await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let database = TestDatabase::sqlite().await;
    let mut config = required(&database);
    config.http.shutdown_grace = Duration::from_millis(100);
    let server = TestServer::start(database, config).await;
    let _waiting = send(&server, "/probe/wait").await;
    soon("the request", server.signals.entered.notified()).await;
    server.stop.cancel();
    soon("the end", server.stopped).await.unwrap();
}

#[tokio::test]
async fn a_request_takes_no_longer_than_allowed_unless_it_asks_for_more() {
    let database = TestDatabase::sqlite().await;
    let mut config = required(&database);
    config.http.request_timeout = Duration::from_millis(100);
    let server = TestServer::start(database, config).await;
    let (status, body) = read(server.get("/probe/wait").send().await.unwrap()).await;
    assert_eq!((status, &body["detail"]), (503, &"the request took too long".into()));

    soon("the first request", server.signals.entered.notified()).await;
    let patient = server.get("/probe/wait?seconds=60").send();
    let patient = tasks::spawn("client", async move { assert_eq!(patient.await.unwrap().status(), 200) });
    soon("the request", server.signals.entered.notified()).await;
    // A short request that began later has timed out, so the patient one is past that time.
    assert_eq!(server.get("/probe/wait").send().await.unwrap().status(), 503);
    soon("the second short request", server.signals.entered.notified()).await;
    assert!(!patient.is_finished());
    server.signals.go_on.notify_one();
    soon("the answer", patient).await.unwrap();
}

#[tokio::test]
async fn health_docs_and_the_document() {
    let server = TestServer::sqlite().await;
    let (status, health) = read(server.get("/health").send().await.unwrap()).await;
    let tools = serde_json::json!({ "count": 1, "ready": true });
    assert_eq!((status, &health["status"], &health["builtin_tools"]), (200, &"ok".into(), &tools));
    let (_, document) = read(server.get("/openapi.json").send().await.unwrap()).await;
    let login = &document["paths"]["/api/v1/auth/login"]["post"];
    assert!(login["requestBody"]["content"]["application/x-www-form-urlencoded"].is_object(), "{login}");
    assert_eq!(login["responses"]["401"]["content"].as_object().unwrap().len(), 1);
    let docs = server.get("/docs").send().await.unwrap();
    assert_eq!(docs.status(), 200);
    assert!(docs.text().await.unwrap().contains("swagger"));
}

struct Whole {
    platform: String,
    ops: String,
    stop: CancellationToken,
    stopped: tokio::task::JoinHandle<()>,
    _database: TestDatabase,
}

async fn whole(health: impl FnOnce(Health) -> Health) -> Whole {
    let database = TestDatabase::sqlite().await;
    let app = App::open(required(&database)).await.unwrap();
    let listeners: Listeners = listeners(&app.config).await;
    let platform = format!("http://{}", listeners.platform_addr().unwrap());
    let ops = format!("http://{}", listeners.ops_addr().unwrap());
    let setup = Setup { builtin_tools: Vec::new(), health: health(Health::of(&app)) };
    let stop = CancellationToken::new();
    let token = stop.clone();
    let stopped = tasks::spawn("whole server", async move {
        runmill_api::serve(app, setup, listeners, token).await.unwrap();
    });
    Whole { platform, ops, stop, stopped, _database: database }
}

#[tokio::test]
async fn the_ops_listener_names_what_is_missing_and_counts_by_route() {
    let server = whole(|health| {
        let away = || async { Err(Error::unavailable("REDIS_UNAVAILABLE", "away")) };
        health.needs("redis", away).live_when(|| Err("the reconciler has stood still for 30 s".into()))
    })
    .await;
    let client = client();
    let get = async |url: String| read(client.get(url).send().await.unwrap()).await;
    let (status, ready) = get(format!("{}/readyz", server.ops)).await;
    assert_eq!((status, &ready["missing"], &ready["checks"]["database"]), (503, &serde_json::json!(["redis"]), &"ok".into()));
    let (status, live) = get(format!("{}/livez", server.ops)).await;
    assert_eq!((status, &live["reason"]), (503, &"the reconciler has stood still for 30 s".into()));

    let revoke = client.delete(format!("{}/api/v1/auth/api-keys/{}", server.platform, uuid::Uuid::nil()));
    assert_eq!(revoke.send().await.unwrap().status(), 401);
    assert_eq!(client.get(format!("{}/wp-login.php", server.platform)).send().await.unwrap().status(), 404);
    let (_, metrics) = get(format!("{}/metrics", server.ops)).await;
    let metrics = metrics.as_str().unwrap();
    for wanted in [
        r#"http_requests_total{method="DELETE",route="/api/v1/auth/api-keys/:param0",status="401"}"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"}"#,
        r#"http_request_duration_seconds_bucket{route="/api/v1/auth/api-keys/:param0",status_class="4xx",le="60"}"#,
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in:\n{metrics}");
    }
    assert!(!metrics.contains("wp-login"), "a guessed address makes no series");
    server.stop.cancel();
    soon("the end", server.stopped).await.unwrap();
}

#[tokio::test]
async fn ready_and_live_when_nothing_is_missing() {
    let server = whole(|health| health).await;
    for path in ["readyz", "livez"] {
        let (status, body) = read(client().get(format!("{}/{path}", server.ops)).send().await.unwrap()).await;
        assert_eq!((status, &body["status"]), (200, &"ok".into()), "{path}");
    }
    server.stop.cancel();
    soon("the end", server.stopped).await.unwrap();
}

#[tokio::test]
async fn an_open_start_is_refused_on_an_address_that_others_reach() {
    let database = TestDatabase::sqlite().await;
    let mut config = database.config();
    config.listen.platform = "0.0.0.0:0".parse().unwrap();
    let app = App::open(config).await.unwrap();
    let listeners = listeners(&app.config).await;
    let setup = Setup { builtin_tools: Vec::new(), health: Health::of(&app) };
    let refused = soon("a refusal", runmill_api::serve(app, setup, listeners, CancellationToken::new())).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "auth.mode");
}
