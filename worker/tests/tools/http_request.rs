//! Requests to the web, against real sockets on loopback.
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use runmill_worker::tools::ToolContext;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use crate::support::{DEADLINE, Server, answer, context, get, tools};

#[tokio::test]
async fn no_spelling_of_a_private_address_is_reached() {
    let server = Server::fixed(answer("200 OK", "", "secret")).await;
    let tools = tools(&["127.0.0.1:1".to_owned(), "allowed.test".to_owned()]);
    let hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127.0.0.2",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.LOCALhost",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "[ff02::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "0xa9fea9fe",
        "100.100.100.200",
        "168.63.129.16",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ];
    for host in hosts {
        let e = get(&tools, &format!("http://{host}:{}/", server.port)).await.unwrap_err();
        assert_eq!(e.code, "BLOCKED_ADDRESS", "{host}: {e}");
        let e = get(&tools, &format!("https://{host}:{}/", server.port)).await.unwrap_err();
        assert_eq!(e.code, "BLOCKED_ADDRESS", "{host} over TLS: {e}");
    }
    server.was_never_reached().await;
}

#[tokio::test]
async fn a_redirect_is_no_way_around() {
    let secret = Server::fixed(answer("200 OK", "", "secret")).await;
    for host in ["127.0.0.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"] {
        for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let location = format!("location: http://{host}:{}/\r\n", secret.port);
            let front = Server::fixed(answer(status, &location, "")).await;
            let e = get(&tools(&[front.host()]), &front.url()).await.unwrap_err();
            assert_eq!(e.code, "BLOCKED_ADDRESS", "{status} to {host}: {e}");
            assert_eq!(front.connections.load(Ordering::SeqCst), 1);
        }
    }
    let front = Server::fixed(answer("302 Found", "location: file:///etc/passwd\r\n", "")).await;
    assert_eq!(get(&tools(&[front.host()]), &front.url()).await.unwrap_err().code, "INVALID_URL");
    secret.was_never_reached().await;
}

#[tokio::test]
async fn redirects_are_bounded() {
    let server = Server::fixed(answer("302 Found", "location: /again\r\n", "")).await;
    let e = get(&tools(&[server.host()]), &server.url()).await.unwrap_err();
    assert_eq!(e.code, "TOO_MANY_REDIRECTS");
    assert_eq!(server.connections.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_listed_host_is_reached_and_gets_the_step_key() {
    let server = Server::fixed(answer("404 Not Found", "etag: \"v1\"\r\nset-cookie: secret\r\n", "no such page")).await;
    let listed = tools(&["localhost".to_owned()]);
    let url = format!("http://localhost:{}/a?b=c", server.port);
    let request = json!({"method": "POST", "url": url, "headers": {"X-Api-Version": "2"}, "body": "{\"a\":1}"});
    let result = listed.call("http_request", &context().await, request).await.unwrap();
    assert_eq!(
        result,
        json!({"status": 404, "url": url, "headers": {"etag": "\"v1\"", "content-length": "12"}, "body": "no such page"})
    );
    let seen = server.requests.lock().unwrap().remove(0);
    assert!(seen.starts_with("POST /a?b=c HTTP/1.1\r\n") && seen.ends_with("\r\n\r\n{\"a\":1}"), "{seen}");
    for header in ["idempotency-key: run-1/3/0/http_request/abc", "x-api-version: 2", "content-type: application/json"] {
        assert!(seen.contains(header), "{header} in {seen}");
    }
    assert_eq!(get(&listed, &server.url()).await.unwrap_err().code, "BLOCKED_ADDRESS");
}

#[tokio::test]
async fn a_redirect_changes_method_and_credentials_as_in_a_browser() {
    let target = Server::fixed(answer("200 OK", "", "done")).await;
    for (status, expected) in [("303 See Other", "GET / "), ("302 Found", "GET / "), ("307 Temporary Redirect", "POST / ")] {
        let front = Server::fixed(answer(status, &format!("location: {}\r\n", target.url()), "")).await;
        let listed = tools(&[front.host(), target.host()]);
        let headers = json!({"Authorization": "Bearer secret", "X-Trace": "7"});
        let request = json!({"method": "POST", "url": front.url(), "headers": headers, "body": "hello"});
        let result = listed.call("http_request", &context().await, request).await.unwrap();
        assert_eq!((&result["body"], &result["url"]), (&json!("done"), &json!(target.url())));
        let seen = target.requests.lock().unwrap().pop().unwrap();
        assert!(seen.starts_with(expected) && seen.contains("x-trace: 7") && !seen.contains("secret"), "{status}: {seen}");
        assert_eq!(seen.ends_with("hello"), expected.starts_with("POST"), "{status}: {seen}");
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_while_reading() {
    let cut_off = Arc::new(Notify::new());
    let told = Arc::clone(&cut_off);
    let server = Server::start(move |mut stream| {
        let told = Arc::clone(&told);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n").await.unwrap();
            while stream.write_all("é\"".repeat(1000).as_bytes()).await.is_ok() {}
            told.notify_one();
        }
    })
    .await;
    let cx = ToolContext { max_output_bytes: 5001, ..context().await };
    let request = json!({"method": "GET", "url": server.url()});
    let result = tools(&[server.host()]).call("http_request", &cx, request).await.unwrap();
    timeout(DEADLINE, cut_off.notified()).await.expect("the connection is closed");
    assert_eq!((&result["status"], &result["truncated"]), (&json!(200), &json!(true)));
    let size = result.to_string().len();
    assert!((4990..=5001).contains(&size), "{size}");
    assert!(result["body"].as_str().is_some_and(|b| b.starts_with("é\"é\"") && !b.contains('\u{fffd}')));
}

/// Accepts, reads the request, and says nothing; `connected` and `closed` tell what the client did.
async fn silent(connected: Arc<Notify>, closed: Arc<Notify>) -> Server {
    Server::start(move |mut stream| {
        let (connected, closed) = (Arc::clone(&connected), Arc::clone(&closed));
        async move {
            connected.notify_one();
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
            closed.notify_one();
        }
    })
    .await
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_no_more() {
    let closed = Arc::new(Notify::new());
    let server = silent(Arc::default(), Arc::clone(&closed)).await;
    let cx = ToolContext { timeout: Duration::from_millis(300), ..context().await };
    let request = json!({"method": "GET", "url": server.url()});
    let e = tools(&[server.host()]).call("http_request", &cx, request).await.unwrap_err();
    assert_eq!(e.code, "TIMEOUT");
    timeout(DEADLINE, closed.notified()).await.expect("the connection is closed");
}

#[tokio::test]
async fn a_cancel_ends_a_call_at_once() {
    let (connected, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = silent(Arc::clone(&connected), Arc::clone(&closed)).await;
    let (tools, cx) = (tools(&[server.host()]), context().await);
    let call = tools.call("http_request", &cx, json!({"method": "GET", "url": server.url()}));
    let cancel = async {
        connected.notified().await;
        cx.cancel.cancel();
    };
    let (result, ()) = timeout(DEADLINE / 2, async { tokio::join!(call, cancel) }).await.expect("long before its timeout");
    assert_eq!(result.unwrap_err().code, "CANCELLED");
    timeout(DEADLINE, closed.notified()).await.expect("the connection is closed");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_data_without_the_url() {
    let server = Server::fixed("this is no HTTP\r\n\r\n").await;
    let e = get(&tools(&[server.host()]), &format!("{}?token=secret", server.url())).await.unwrap_err();
    assert_eq!(e.code, "REQUEST_FAILED");
    assert!(!e.message.contains("secret"), "{e}");
}
