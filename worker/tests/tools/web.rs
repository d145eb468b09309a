//! The web tools against real sockets on loopback, each with a known answer.
use std::sync::atomic::Ordering;

use runmill_shared::{
    config::{Config, Secret},
    domain::caller::Caller,
    services::secrets,
};
use runmill_worker::tools::{ToolContext, ToolScope, Tools};
use serde_json::{Value, json};

use crate::support::{Server, answer, context, tools};

const HTML: &str = "content-type: text/html; charset=utf-8\r\n";

#[tokio::test]
async fn a_page_is_read_as_markdown_text_or_html() {
    let page = "<html><head><title>A page</title></head><body><nav>menu</nav><h1>News</h1><p>See <a href=\"/more\">more</a>.</p></body></html>";
    let server = Server::fixed(answer("200 OK", HTML, page)).await;
    let tools = tools(&[server.host()]);
    let fetch = async |arguments: Value| tools.call("web_fetch", &context().await, arguments).await.unwrap();
    let url = server.url();
    let markdown = fetch(json!({ "url": url })).await;
    let expected = format!("# News\n\nSee [more]({url}more).");
    assert_eq!(markdown, json!({ "url": url, "title": "A page", "content_type": "text/html", "content": expected }));
    assert_eq!(fetch(json!({ "url": url, "format": "text" })).await["content"], "News\n\nSee more.");
    assert_eq!(fetch(json!({ "url": url, "format": "html" })).await["content"], page);
    let plain = Server::fixed(answer("200 OK", "content-type: application/json\r\n", "{\"a\":1}")).await;
    let plain_tools = crate::support::tools(&[plain.host()]);
    let json_page = plain_tools.call("web_fetch", &context().await, json!({ "url": plain.url() })).await.unwrap();
    assert_eq!(json_page["content"], "{\"a\":1}");
}

#[tokio::test]
async fn a_page_that_is_no_text_or_not_there_is_an_error() {
    for (status, kind, code) in [("200 OK", "image/png", "UNSUPPORTED_CONTENT"), ("404 Not Found", "text/html", "HTTP_ERROR")] {
        let server = Server::fixed(answer(status, &format!("content-type: {kind}\r\n"), "x")).await;
        let e = tools(&[server.host()]).call("web_fetch", &context().await, json!({ "url": server.url() })).await.unwrap_err();
        assert_eq!(e.code, code, "{e}");
    }
}

#[tokio::test]
async fn a_page_larger_than_what_is_read_is_cut_and_says_so() {
    let page = format!("<p>{}</p>", "word ".repeat(100_000));
    let server = Server::fixed(answer("200 OK", HTML, &page)).await;
    let cx = ToolContext { max_output_bytes: 2000, ..context().await };
    let made = tools(&[server.host()]).call("web_fetch", &cx, json!({ "url": server.url() })).await.unwrap();
    assert!(made["truncated"] == true && made.to_string().len() <= 2000, "{}", made.to_string().len());
}

#[tokio::test]
async fn a_feed_is_read() {
    let feed = "<?xml version=\"1.0\"?><rss version=\"2.0\"><channel><title>News</title><link>https://x.test/</link><description>All</description>\
        <item><title>One &amp; all</title><link>https://x.test/1</link><guid>g1</guid><pubDate>Mon, 16 Mar 2026 10:00:00 GMT</pubDate>\
        <description>&lt;p&gt;First &lt;b&gt;item&lt;/b&gt;&lt;/p&gt;</description></item>\
        <item><title>Two</title><guid>g2</guid></item></channel></rss>";
    let server = Server::fixed(answer("200 OK", "content-type: application/rss+xml\r\n", feed)).await;
    let tools = tools(&[server.host()]);
    let read = async |arguments: Value| tools.call("rss_read", &context().await, arguments).await.unwrap();
    let all = read(json!({ "url": server.url() })).await;
    assert_eq!(
        (&all["title"], &all["description"], all["items"].as_array().map(Vec::len)),
        (&json!("News"), &json!("All"), Some(2))
    );
    let first = json!({ "id": "g1", "title": "One & all", "link": "https://x.test/1", "published": "2026-03-16T10:00:00Z", "summary": "First item" });
    assert_eq!(all["items"][0], first);
    assert_eq!(read(json!({ "url": server.url(), "limit": 1 })).await["items"].as_array().map(Vec::len), Some(1));
    let page = Server::fixed(answer("200 OK", HTML, "<html>no feed</html>")).await;
    let e =
        crate::support::tools(&[page.host()]).call("rss_read", &context().await, json!({ "url": page.url() })).await.unwrap_err();
    assert_eq!(e.code, "NO_FEED");
}

#[tokio::test]
async fn a_url_is_taken_apart() {
    let tools = tools(&[]);
    let parse = async |url: &str| tools.call("url_parse", &context().await, json!({ "url": url })).await;
    let parts = parse("HTTPS://ann@Example.com/a%20b/?q=1&q=%C3%A4&r#part").await.unwrap();
    let expected = json!({
        "url": "https://ann@example.com/a%20b/?q=1&q=%C3%A4&r#part", "scheme": "https", "username": "ann", "host": "example.com", "port": 443,
        "path": "/a%20b/", "query": { "q": ["1", "ä"], "r": [""] }, "fragment": "part",
    });
    assert_eq!(parts, expected);
    assert_eq!(
        parse("mailto:a@b.c").await.unwrap(),
        json!({ "url": "mailto:a@b.c", "scheme": "mailto", "path": "a@b.c", "query": {} })
    );
    assert_eq!(parse("no url").await.unwrap_err().code, "INVALID_URL");
}

#[tokio::test]
async fn a_search_asks_the_operators_server_and_is_listed_only_with_one() {
    assert!(tools(&[]).get("web_search").is_none());
    let found = json!({ "results": [
        { "title": "A", "url": "https://a.test/", "content": "about a", "engine": "x" }, { "title": "B", "url": "https://b.test/" },
    ] });
    let server = Server::fixed(answer("200 OK", "content-type: application/json\r\n", &found.to_string())).await;
    let mut config = Config::defaults().unwrap();
    config.tools.search_endpoint = format!("http://{}/search", server.host());
    let tools = Tools::builtin(&config).unwrap();
    let made = tools.call("web_search", &context().await, json!({ "query": "a & b", "limit": 1 })).await.unwrap();
    assert_eq!(made, json!({ "results": [{ "title": "A", "url": "https://a.test/", "snippet": "about a" }] }));
    let seen = server.requests.lock().unwrap().remove(0);
    assert!(seen.starts_with("GET /search?q=a+%26+b&format=json HTTP/1.1"), "{seen}");
    let e = tools.call("http_request", &context().await, json!({ "method": "GET", "url": server.url() })).await.unwrap_err();
    assert_eq!(e.code, "BLOCKED_ADDRESS", "the endpoint is open to the search alone");
    config.tools.search_endpoint = "search.test".into();
    assert!(Tools::builtin(&config).is_err());
}

#[tokio::test]
async fn a_webhook_is_signed_and_keeps_its_id() {
    let server = Server::fixed(answer("204 No Content", "", "")).await;
    let tools = tools(&[server.host()]);
    let caller = Caller::local();
    let mut cx = context().await;
    cx.scope = ToolScope { owner: runmill_shared::domain::caller::Owner::of_row("local"), ..cx.scope };
    cx.step_key = "msg_p5jXN8AQM9LWM0D4loKWxJek".into();
    secrets::put(&cx.app, &caller, "HOOK", &Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).await.unwrap();
    let arguments = json!({ "url": server.url(), "payload": { "test": 1 }, "secret": "HOOK" });
    let sent = tools.call("send_webhook", &cx, arguments.clone()).await.unwrap();
    assert_eq!(sent, json!({ "status": 204, "webhook_id": "msg_p5jXN8AQM9LWM0D4loKWxJek" }));
    tools.call("send_webhook", &cx, arguments.clone()).await.unwrap();
    assert!(tools.get("send_webhook").unwrap().idempotent(&arguments));
    let requests = server.requests.lock().unwrap().clone();
    for seen in &requests {
        for header in ["webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp: 1773655200", "webhook-signature: v1,"] {
            assert!(seen.contains(header), "{header} in {seen}");
        }
        assert!(seen.starts_with("POST / ") && seen.ends_with("{\"test\":1}"), "{seen}");
    }
    assert_eq!(requests.len(), 2);
    let unsigned = tools.call("send_webhook", &cx, json!({ "url": server.url(), "payload": {} })).await;
    assert!(unsigned.is_ok() && !server.requests.lock().unwrap()[2].contains("webhook-signature"));
    let missing = json!({ "url": server.url(), "payload": {}, "secret": "NONE" });
    assert_eq!(tools.call("send_webhook", &cx, missing).await.unwrap_err().code, "SECRET_NOT_FOUND");
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_webhook_follows_no_redirect() {
    let target = Server::fixed(answer("200 OK", "", "")).await;
    let front = Server::fixed(answer("307 Temporary Redirect", &format!("location: {}\r\n", target.url()), "")).await;
    let tools = tools(&[front.host(), target.host()]);
    let e = tools.call("send_webhook", &context().await, json!({ "url": front.url(), "payload": {} })).await.unwrap_err();
    assert_eq!(e.code, "HTTP_ERROR", "{e}");
    target.was_never_reached().await;
}

#[tokio::test]
async fn no_web_tool_reaches_a_private_address() {
    let server = Server::fixed(answer("200 OK", HTML, "secret")).await;
    let tools = tools(&[]);
    for name in ["web_fetch", "rss_read", "send_webhook"] {
        let mut arguments = json!({ "url": format!("http://127.0.0.1:{}/", server.port) });
        if name == "send_webhook" {
            arguments["payload"] = json!({});
        }
        assert_eq!(tools.call(name, &context().await, arguments).await.unwrap_err().code, "BLOCKED_ADDRESS", "{name}");
    }
    server.was_never_reached().await;
}

#[tokio::test]
async fn calls_beyond_the_quota_are_refused_as_data() {
    let server = Server::fixed(answer("200 OK", "", "x")).await;
    let tools = tools(&[server.host()]);
    let mut cx = context().await;
    let mut config = (*cx.app.config).clone();
    config.tools.calls_per_minute = 2;
    cx.app.config = config.into();
    let request = json!({ "method": "GET", "url": server.url() });
    for _ in 0..2 {
        tools.call("http_request", &cx, request.clone()).await.unwrap();
    }
    let e = tools.call("http_request", &cx, request.clone()).await.unwrap_err();
    assert_eq!(e.code, "RATE_LIMITED", "{e}");
    tools.call("now", &cx, json!({})).await.unwrap();
    let other = ToolContext {
        scope: ToolScope { owner: runmill_shared::domain::caller::Owner::of_row("bob"), ..cx.scope.clone() },
        ..cx
    };
    tools.call("http_request", &other, request).await.unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}
