use std::fmt::Write;

use reqwest::{Body, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{TestServer, read, soon};

const GOLDEN: &str = include_str!("../golden/refusals.txt");

fn cases(server: &TestServer, token: &str) -> Vec<(&'static str, RequestBuilder)> {
    let register = || server.post("/api/v1/auth/register");
    let keys = || server.post("/api/v1/auth/api-keys").bearer_auth(token);
    let large = server.app.config.http.max_body_bytes + 1;
    vec![
        ("unknown path", server.get("/api/v1/nothing")),
        ("no path of the probes, though it begins like one", server.get("/probes")),
        ("unknown path of the other dialect", server.get("/probe/nothing")),
        ("wrong method", server.get("/api/v1/auth/login")),
        ("empty body", register()),
        ("malformed JSON", register().body("{\"email\": \"a@b\",\n nickname")),
        ("not UTF-8", register().body(vec![b'"', 0xff, b'"'])),
        ("no object", register().body("[1]")),
        ("every field missing", register().json(&json!({}))),
        ("wrong types and a short password", register().json(&json!({ "email": 5, "password": "short", "nickname": null }))),
        ("every field bad", register().json(&json!({ "email": "no", "password": "short", "nickname": "a@b" }))),
        ("bad for the service alone", register().json(&json!({ "email": "a@-b", "password": "12345678", "nickname": " " }))),
        ("email taken", register().json(&json!({ "email": "ADA@example.org", "password": "12345678", "nickname": "x" }))),
        ("nickname taken", register().json(&json!({ "email": "x@y", "password": "12345678", "nickname": "ADA" }))),
        ("too large", register().body(vec![b' '; large])),
        ("too large, without a length", register().body(Body::wrap_stream(parts(large)))),
        ("no form", server.post("/api/v1/auth/login").json(&json!({ "username": "ada", "password": "x" }))),
        ("half a form", server.post("/api/v1/auth/login").form(&[("username", "ada")])),
        ("wrong password", server.post("/api/v1/auth/login").form(&[("username", "ada"), ("password", "wrong")])),
        ("no token", server.get("/api/v1/auth/me")),
        ("bad token", server.get("/api/v1/auth/me").bearer_auth("nonsense")),
        ("bad key", server.get("/api/v1/auth/me").bearer_auth("rm_nonsense")),
        ("no token, other dialect", server.get("/probe/whoami")),
        ("bad query", server.get("/api/v1/auth/api-keys?page=x").bearer_auth(token)),
        ("bad page", server.get("/api/v1/auth/api-keys?page=0&page_size=101").bearer_auth(token)),
        ("bad id", server.client.delete(server.url("/api/v1/auth/api-keys/x")).bearer_auth(token)),
        ("name too long", keys().json(&json!({ "name": "x".repeat(65) }))),
        ("panic", server.get("/probe/panic")),
    ]
}

/// `size` bytes in two parts, so that no Content-Length is sent.
fn parts(size: usize) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures::stream::iter([Ok(vec![b' '; size / 2]), Ok(vec![b' '; size - size / 2])])
}

#[tokio::test]
async fn each_refusal_has_its_status_and_its_dialects_envelope() {
    let server = TestServer::sqlite().await;
    let token = server.signed_in("ada").await;
    let mut seen = String::new();
    for (name, request) in cases(&server, &token) {
        let response = request.send().await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{name}");
        assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8", "{name}");
        assert_eq!(response.headers().contains_key("www-authenticate"), response.status() == 401, "{name}");
        let (status, body) = read(response).await;
        writeln!(seen, "{name}\n  {status} {body}").unwrap();
    }
    assert!(seen == GOLDEN, "api/tests/golden/refusals.txt differs; seen:\n{seen}");
}

#[tokio::test]
async fn a_body_without_a_length_is_read_and_nul_is_left_out() {
    let server = TestServer::sqlite().await;
    let body = r#"{"email": "ada@example.org", "password": "correct\u0000 horse", "nickname": "A\u0000da"}"#;
    let halves: Vec<_> = body.as_bytes().chunks(20).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
    let request = server.post("/api/v1/auth/register").body(Body::wrap_stream(futures::stream::iter(halves)));
    let (status, user) = read(request.send().await.unwrap()).await;
    assert_eq!((status, &user["nickname"]), (201, &"Ada".into()), "{user}");
    assert_eq!(server.login("ada", "correct horse").await.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent() {
    let server = TestServer::sqlite().await;
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    soon("an answer", socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
