//! HTTP tools of users, against real sockets on loopback.
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use runmill_shared::{
    config::Secret,
    domain::{
        caller::Caller,
        tool::{CustomTool, ToolType},
    },
    services::secrets,
};
use runmill_worker::tools::{ToolContext, ToolError, Tools, custom};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Server, answer, context, tools};

const JSON: &str = "content-type: application/json\r\n";

fn definition(config: Value) -> CustomTool {
    CustomTool {
        id: None,
        owner: "local".into(),
        plugin_id: None,
        name: "mine".into(),
        description: "a tool".into(),
        kind: ToolType::Http,
        category: "custom".into(),
        input_schema: json!({ "type": "object" }),
        output_schema: None,
        config,
    }
}

async fn opened(cx: &ToolContext, allowed: &[String], config: Value) -> Tools {
    let builtin = tools(allowed);
    let tool = custom::open(&cx.app, &builtin.means(&cx.app).unwrap(), definition(config)).await.unwrap();
    builtin.with(vec![tool]).unwrap()
}

async fn call(server: &Server, config: Value, arguments: Value) -> Result<Value, ToolError> {
    let cx = context().await;
    opened(&cx, &[server.host()], config).await.call("mine", &cx, arguments).await
}

#[tokio::test]
async fn a_call_is_one_request_and_its_answer_is_mapped() {
    let server = Server::fixed(answer("200 OK", JSON, "{\"data\":{\"items\":[{\"id\":7}]}}")).await;
    let config = json!({
        "method": "POST", "url": format!("{}v1/{{{{ city }}}}", server.url()), "query": { "days": "{{ days }}" },
        "headers": { "X-Lang": "{{ lang }}" }, "body": { "note": "{{ note }}" }, "response_path": "/data/items/0/id",
    });
    let result = call(&server, config, json!({ "city": "Bad Ischl/x", "days": 3, "note": "a \"b\"" })).await;
    assert_eq!(result, Ok(json!(7)));
    let seen = server.requests.lock().unwrap().remove(0);
    assert!(seen.starts_with("POST /v1/Bad%20Ischl%2Fx?days=3 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("{\"note\":\"a \\\"b\\\"\"}") && seen.contains("content-type: application/json"), "{seen}");
    assert!(seen.contains("idempotency-key: run-1/3/0/http_request/abc") && !seen.contains("x-lang"), "{seen}");
}

#[tokio::test]
async fn an_answer_is_json_text_or_nothing() {
    for (headers, body, expected) in [
        (JSON, "{\"a\":[1]}", json!({ "a": [1] })),
        ("content-type: text/plain\r\n", "hello", json!("hello")),
        (JSON, "", Value::Null),
        (JSON, "{ half", json!("{ half")),
    ] {
        let server = Server::fixed(answer("200 OK", headers, body)).await;
        assert_eq!(call(&server, json!({ "url": server.url() }), json!({})).await, Ok(expected), "{body}");
    }
    for (body, path, code) in [
        ("{\"a\":1}", "/b", "RESPONSE_PATH_MISSING"),
        ("text", "/b", "RESPONSE_UNREADABLE"),
        ("[1]", "5", "RESPONSE_PATH_MISSING"),
    ] {
        let server = Server::fixed(answer("200 OK", "", body)).await;
        let e = call(&server, json!({ "url": server.url(), "response_path": path }), json!({})).await.unwrap_err();
        assert_eq!(e.code, code, "{e}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_status_and_the_beginning_of_its_body() {
    let server =
        Server::fixed(answer("422 Unprocessable Entity", JSON, &format!("{{\"why\":\"no\"}}{}", " ".repeat(5000)))).await;
    let e = call(&server, json!({ "url": server.url() }), json!({})).await.unwrap_err();
    assert_eq!(e.code, "HTTP_ERROR");
    assert!(e.message.starts_with("status 422 Unprocessable Entity: {\"why\":\"no\"}") && e.message.len() < 600, "{e}");
}

#[tokio::test]
async fn a_secret_is_sent_and_never_said_back() {
    let secret = "s3cr3t \"quoted\" value";
    let cx = context().await;
    secrets::put(&cx.app, &Caller::local(), "KEY", &Secret::new(secret)).await.unwrap();
    let basic = "YW5uOnMzY3IzdCAicXVvdGVkIiB2YWx1ZQ==";
    let forms = [
        (json!({ "type": "bearer", "secret": "KEY" }), format!("authorization: Bearer {secret}")),
        (json!({ "type": "basic", "secret": "KEY", "username": "ann" }), format!("authorization: Basic {basic}")),
        (json!({ "type": "header", "secret": "KEY", "header": "X-Api-Key" }), format!("x-api-key: {secret}")),
    ];
    for status in ["200 OK", "401 Unauthorized"] {
        for (auth, header) in &forms {
            let echo = json!({ "you_sent": secret, "basic": basic, "url": "?k=s3cr3t+%22quoted%22+value" }).to_string();
            let server = Server::fixed(answer(status, JSON, &echo)).await;
            let tools = opened(&cx, &[server.host()], json!({ "url": server.url(), "auth": auth })).await;
            let outcome = tools.call("mine", &cx, json!({})).await;
            let seen = server.requests.lock().unwrap().remove(0);
            assert!(seen.contains(header.as_str()), "{header} in {seen}");
            let said = outcome.map_or_else(|e| e.to_string(), |ok| ok.to_string());
            assert!(!said.contains("s3cr3t") && (auth["type"] != "basic" || !said.contains(basic)), "{said}");
        }
    }
    let server = Server::fixed(answer("200 OK", "", "x")).await;
    let tools =
        opened(&cx, &[server.host()], json!({ "url": server.url(), "auth": { "type": "bearer", "secret": "OTHER" } })).await;
    let e = tools.call("mine", &cx, json!({})).await.unwrap_err();
    assert_eq!((e.code.as_ref(), server.connections.load(Ordering::SeqCst)), ("SECRET_NOT_FOUND", 0));
}

#[tokio::test]
async fn another_origin_never_sees_the_secret() {
    let cx = context().await;
    secrets::put(&cx.app, &Caller::local(), "KEY", &Secret::new("s3cr3t")).await.unwrap();
    for auth in [json!({ "type": "bearer", "secret": "KEY" }), json!({ "type": "header", "secret": "KEY", "header": "x-key" })] {
        let target = Server::fixed(answer("200 OK", "", "done")).await;
        let front = Server::fixed(answer("302 Found", &format!("location: {}\r\n", target.url()), "")).await;
        let tools = opened(&cx, &[front.host(), target.host()], json!({ "url": front.url(), "auth": auth })).await;
        assert_eq!(tools.call("mine", &cx, json!({})).await, Ok(json!("done")));
        assert!(front.requests.lock().unwrap()[0].contains("s3cr3t"));
        assert!(!target.requests.lock().unwrap()[0].contains("s3cr3t"));
    }
}

#[tokio::test]
async fn only_reading_may_be_done_again() {
    let (cx, server) = (context().await, Server::fixed(answer("200 OK", "", "x")).await);
    for (method, idempotent) in
        [("GET", true), ("HEAD", true), ("POST", false), ("PUT", false), ("PATCH", false), ("DELETE", false)]
    {
        let tools = opened(&cx, &[server.host()], json!({ "method": method, "url": server.url() })).await;
        assert_eq!(tools.get("mine").unwrap().idempotent(&json!({})), idempotent, "{method}");
        tools.call("mine", &cx, json!({})).await.unwrap();
        let seen = server.requests.lock().unwrap().pop().unwrap();
        assert_eq!(seen.contains("idempotency-key: run-1/3/0/http_request/abc"), !idempotent, "{method}: {seen}");
    }
}

/// Every spelling of an address that is not of the public internet, where an argument can put it and where the tool has it.
#[tokio::test]
async fn no_spelling_of_a_private_address_is_reached() {
    let server = Server::fixed(answer("200 OK", "", "secret")).await;
    let cx = context().await;
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ];
    let by_argument = opened(&cx, &[], json!({ "url": "{{ base }}/x" })).await;
    for host in hosts {
        let url = format!("http://{host}:{}", server.port);
        let e = by_argument.call("mine", &cx, json!({ "base": url })).await.unwrap_err();
        assert_eq!(e.code, "BLOCKED_ADDRESS", "{host} as an argument: {e}");
        let e = opened(&cx, &[], json!({ "url": url })).await.call("mine", &cx, json!({})).await.unwrap_err();
        assert_eq!(e.code, "BLOCKED_ADDRESS", "{host} in the tool: {e}");
    }
    for url in [format!("http://example.com@127.0.0.1:{}/", server.port), format!("http://user:pw@localhost:{}/", server.port)] {
        let e = by_argument.call("mine", &cx, json!({ "base": url })).await.unwrap_err();
        assert_eq!(e.code, "INVALID_URL", "{e}");
    }
    for url in ["file:///etc/passwd", "ftp://127.0.0.1", "gopher://127.0.0.1"] {
        assert_eq!(by_argument.call("mine", &cx, json!({ "base": url })).await.unwrap_err().code, "INVALID_URL", "{url}");
    }
    let host_only = opened(&cx, &[], json!({ "url": format!("http://{{{{ host }}}}:{}/", server.port) })).await;
    for host in ["127.0.0.1", "localhost", "2130706433"] {
        let e = host_only.call("mine", &cx, json!({ "host": host })).await.unwrap_err();
        assert_eq!(e.code, "BLOCKED_ADDRESS", "{host}: {e}");
    }
    server.was_never_reached().await;
}

#[tokio::test]
async fn a_redirect_is_no_way_around() {
    let secret = Server::fixed(answer("200 OK", "", "secret")).await;
    for target in [format!("http://127.1:{}/", secret.port), format!("http://[::ffff:7f00:1]:{}/", secret.port)] {
        for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let front = Server::fixed(answer(status, &format!("location: {target}\r\n"), "")).await;
            let e = call(&front, json!({ "method": "POST", "url": front.url(), "body": {} }), json!({})).await.unwrap_err();
            assert_eq!(e.code, "BLOCKED_ADDRESS", "{status} to {target}: {e}");
        }
    }
    let front = Server::fixed(answer("302 Found", "location: file:///etc/passwd\r\n", "")).await;
    assert_eq!(call(&front, json!({ "url": front.url() }), json!({})).await.unwrap_err().code, "INVALID_URL");
    secret.was_never_reached().await;
}

#[tokio::test]
async fn an_answer_costs_at_most_the_tools_own_time() {
    let server = Server::start(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let began = Instant::now();
    let e = call(&server, json!({ "url": server.url(), "timeout_ms": 200 }), json!({})).await.unwrap_err();
    assert_eq!(e.code, "TIMEOUT");
    assert!(began.elapsed() < DEADLINE && began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn an_answer_beyond_what_is_read_is_refused_or_cut() {
    let (mut cx, long) = (context().await, json!({ "a": "x".repeat(5000) }).to_string());
    let mut config = (*cx.app.config).clone();
    config.tools.max_response_bytes = 1000;
    cx.app.config = config.into();
    let server = Server::fixed(answer("200 OK", JSON, &long)).await;
    let tools = opened(&cx, &[server.host()], json!({ "url": server.url() })).await;
    assert_eq!(tools.call("mine", &cx, json!({})).await.unwrap_err().code, "RESPONSE_TOO_LARGE");
    let text = Server::fixed(answer("200 OK", "content-type: text/plain\r\n", &"é".repeat(5000))).await;
    let tools = opened(&cx, &[text.host()], json!({ "url": text.url() })).await;
    assert_eq!(tools.call("mine", &cx, json!({})).await.unwrap(), json!("é".repeat(500)));
}
