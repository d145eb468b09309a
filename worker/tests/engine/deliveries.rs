//! Notifications that leave: to a webhook's receiver over HTTP and to a mail server over SMTP, both real, in every mood.
use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use runmill_shared::{
    config::{Config, Secret},
    domain::{
        caller::{Owner, Scope},
        new_id,
        page::PageRequest,
        run::{Run, RunKind, RunState},
    },
    services::{
        notification_channels::{self as channels, Change, Channel},
        notifications,
        runs::control::{self, Filter},
    },
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    database::{TestDatabase, databases},
    http_client::soon,
    http_server::{HttpServer, Request, Response},
    smtp_server::SmtpServer,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::told::{until, until_state};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn start(database: TestDatabase, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        quick_recovery(config);
        config.notifications.backoff = Duration::from_millis(20);
        tweak(config);
    };
    TestApp::start(database, quick).await.unwrap()
}

/// That may reach the server.
async fn with_hook(database: TestDatabase, server: &HttpServer) -> TestApp {
    let host = server.url.trim_start_matches("http://").to_owned();
    start(database, |config| config.security.allow_private_hosts = vec![host]).await
}

async fn channel(app: &TestApp, kind: &str, target: &str) -> Channel {
    let (name, secret) = (Some(kind.to_owned()), (kind == "webhook").then(|| Secret::new(SECRET)));
    let new = Change { name, kind: Some(kind.into()), target: Some(target.into()), secret, ..Change::default() };
    channels::create(&app.app, &app.caller, new).await.unwrap().0
}

fn owner(app: &TestApp) -> Owner {
    app.caller.can(Scope::Write).unwrap().clone()
}

/// Tells the owner something, and answers its delivery, once it is there.
async fn tell(app: &TestApp, title: &str, text: &str) -> Run {
    notifications::message(&app.app, &owner(app), new_id(), "key", title, text).await.unwrap();
    let page = PageRequest { number: 1, size: 1, search: None, status: None, sort: None };
    let told = notifications::list(&app.app, &app.caller, &page, notifications::Filter::default()).await.unwrap();
    let name = format!("delivery-{}-", told.listed.items[0].id);
    let found = async {
        loop {
            let runs = control::list(&app.app, &app.caller, Filter { limit: 50, ..Filter::default() }).await.unwrap();
            if let Some(run) = runs.into_iter().find(|r| r.external_id.starts_with(&name)) {
                assert_eq!(run.kind, RunKind::Delivery);
                return run;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a delivery", found).await
}

/// RFC 2104, by hand: what is signed by one library is not to be verified by the same.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn is_signed(request: &Request, secret: &str) -> bool {
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let (id, at) = (request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap());
    let signed = [format!("{id}.{at}.").as_bytes(), &request.body].concat();
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(&key, &signed)));
    request.header("webhook-signature") == Some(expected.as_str())
}

/// Answers the first requests with these, all others with the last.
fn in_turn(answers: Vec<Response>) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let left = Mutex::new(answers);
    move |_| {
        let mut left = left.lock().unwrap();
        if left.len() > 1 { left.remove(0) } else { left[0].clone() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_and_tried_again_under_the_same_id() {
    for database in databases().await {
        let server =
            HttpServer::start(in_turn(vec![Response::new(503, "later"), Response::new(302, ""), Response::new(204, "")]));
        let app = with_hook(database, &server).await;
        channel(&app, "webhook", &format!("{}/hook?a=b", server.url)).await;
        let run = tell(&app, "It is done", "All of \"it\".\näöü").await;
        let run = until_state(&app, run.id, RunState::Succeeded).await;
        assert_eq!((run.result, run.attempt), (Some(json!({ "status": 204 })), 2), "{}", app.name());
        let requests = server.requests();
        assert_eq!(requests.len(), 3, "{requests:?}");
        for request in &requests {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?a=b"));
            assert!(is_signed(request, SECRET) && !is_signed(request, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
            assert_eq!((&request.body, request.header("webhook-id")), (&requests[0].body, requests[0].header("webhook-id")));
        }
        let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
        let data = &body["data"];
        assert_eq!(
            (&body["type"], &data["title"], &data["body"]),
            (&json!("message"), &json!("It is done"), &json!("All of \"it\".\näöü"))
        );
        assert_eq!((data["id"].as_str(), &data["subject"]["type"]), (requests[0].header("webhook-id"), &json!("execution")));
        assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_side_says_when_and_whether_to_try_again() {
    for database in databases().await {
        let server = HttpServer::start(|request: &Request| match request.path.as_str() {
            "/busy" => Response::new(429, "").with("retry-after", "3600"),
            "/gone" => Response::new(410, ""),
            path => Response::new(400, format!("no such thing: {path}")),
        });
        let app = with_hook(database, &server).await;
        let busy = channel(&app, "webhook", &format!("{}/busy", server.url)).await;
        let run = tell(&app, "one", "1").await;
        let run = until(&app, run.id, |run| run.attempt == 1).await;
        let wait = run.due_at.unwrap().since(app.app.clock.now());
        assert!(run.state == RunState::Queued && wait > Duration::from_secs(3500), "{}: {wait:?}", app.name());
        control::cancel(&app.app, &app.caller, run.id).await.unwrap();
        let moved = async |path: &str| {
            let change = Change { target: Some(format!("{}{path}", server.url)), ..Change::default() };
            channels::update(&app.app, &app.caller, busy.id, change).await.unwrap();
        };
        moved("/wrong").await;
        let run = tell(&app, "two", "2").await;
        let run = until_state(&app, run.id, RunState::Failed).await;
        let error = run.error.unwrap();
        assert_eq!((error.code.as_str(), error.retryable, run.attempt), ("HTTP_ERROR", false, 0));
        assert!(error.message.contains("400") && error.message.contains("no such thing: /wrong"), "{error:?}");
        moved("/gone").await;
        let run = tell(&app, "three", "3").await;
        let run = until_state(&app, run.id, RunState::Failed).await;
        assert_eq!(run.error.unwrap().code, "CHANNEL_GONE");
        assert!(!channels::get(&app.app, &app.caller, busy.id).await.unwrap().enabled, "{}", app.name());
        assert_eq!(server.requests().len(), 3);
        // A disabled one can be tested still, once.
        let test = channels::test(&app.app, &app.caller, busy.id).await.unwrap();
        until_state(&app, test.id, RunState::Failed).await;
        assert_eq!(server.requests().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_told_anything() {
    for database in databases().await {
        let server = HttpServer::start(|_| Response::new(200, ""));
        let app = start(database, |_| {}).await;
        let port = server.url.rsplit(':').next().unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
            let made = channel(&app, "webhook", &format!("http://{host}:{port}/")).await;
            let test = channels::test(&app.app, &app.caller, made.id).await.unwrap();
            let run = until_state(&app, test.id, RunState::Failed).await;
            assert_eq!(run.error.unwrap().code, "BLOCKED_ADDRESS", "{}: {host}", app.name());
            channels::remove(&app.app, &app.caller, made.id).await.unwrap();
        }
        assert!(server.requests().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_by_a_worker_that_died_is_sent_again_under_the_same_id() {
    for database in databases().await {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(Some(held));
        let server = HttpServer::start(move |_| {
            // The first is answered when nobody listens any more.
            let first = held.lock().unwrap().take();
            first.map(|held| held.recv().ok());
            Response::new(200, "")
        });
        let mut app = with_hook(database, &server).await;
        channel(&app, "webhook", &server.url).await;
        let run = tell(&app, "twice", "perhaps").await;
        let came = async {
            while server.requests().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the first request", came).await;
        app.kill_worker().await;
        drop(release);
        app.start_worker();
        let run = until_state(&app, run.id, RunState::Succeeded).await;
        let requests = server.requests();
        assert_eq!((run.crashes, run.attempt, requests.len()), (1, 0, 2), "{}", app.name());
        assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
        assert_eq!(requests[0].body, requests[1].body);
        assert!(requests.iter().all(|request| is_signed(request, SECRET)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_tried_again_until_it_is_taken_or_refused_for_good() {
    for database in databases().await {
        let tries = Mutex::new(0);
        let server = SmtpServer::start(move |mail| {
            if mail.data.contains("never") {
                return "550 no such user";
            }
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            if *tries == 1 { "451 come back later" } else { "250 taken" }
        });
        let url = Secret::new(server.url.clone());
        let app = start(database, |config| {
            config.notifications.smtp_url = url;
            config.notifications.from = "Mill <mill@example.org>".into();
        })
        .await;
        let made = channel(&app, "email", "ann@example.org").await;
        let run = tell(&app, "hi\r\nBcc: eve@example.org", "one\n.\ntwo").await;
        let run = until_state(&app, run.id, RunState::Succeeded).await;
        assert_eq!((run.attempt, run.result), (1, Some(json!({ "status": 250 }))), "{}", app.name());
        let mails = server.mails();
        assert_eq!(mails.len(), 2);
        for mail in &mails {
            assert_eq!((mail.from.as_str(), mail.to.as_slice()), ("mill@example.org", &["ann@example.org".to_owned()][..]));
            assert_eq!(mail.header("subject").as_deref(), Some("hi  Bcc: eve@example.org"), "{}", mail.data);
            assert_eq!((mail.header("bcc"), mail.header("to").as_deref()), (None, Some("ann@example.org")));
            assert!(mail.data.contains("one\r\n.\r\ntwo"), "{}", mail.data);
            let id = mail.header("message-id").unwrap();
            assert!(id.contains(&made.id.to_string()) && id.ends_with("@example.org>"), "{id}");
            assert_eq!(Some(id), mails[0].header("message-id"));
        }
        let run = tell(&app, "no", "never").await;
        let run = until_state(&app, run.id, RunState::Failed).await;
        assert_eq!((run.error.unwrap().code.as_str(), run.attempt), ("MAIL_REFUSED", 0), "{}", app.name());
        assert_eq!(server.mails().len(), 3);
    }
}
