use runmill_testkit::{
    http_client::Sse,
    mcp_server::{KEY_HEADER, McpServer},
    model_server::{ModelServer, Reply},
};
use serde_json::{Value, json};

use crate::support::{Session, TestPlatform, databases};

const UNKNOWN: &str = "/plugins/0197b2f0-0000-7000-8000-000000000000";

fn source(server: &McpServer) -> Value {
    json!({"type": "mcp", "transport": "http", "url": server.url, "headers": {KEY_HEADER: server.key}})
}

/// With an MCP server that it may reach.
async fn each() -> Vec<(TestPlatform, McpServer)> {
    let mut all = Vec::new();
    for database in databases().await {
        let server = McpServer::start().await.unwrap();
        let host = server.host.clone();
        all.push((TestPlatform::start(database, |c| c.security.allow_private_hosts.push(host)).await, server));
    }
    all
}

fn path(plugin: &Value) -> String {
    format!("/plugins/{}", plugin["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_made_with_its_tools_and_changed() {
    for (platform, server) in each().await {
        let bob = platform.as_("bob");
        let made = bob.create("/plugins", json!({"name": "Maths", "description": "Adds.", "source": source(&server)})).await;
        assert_eq!(
            (&made["sync"]["status"], &made["sync"]["error"]),
            (&json!("completed"), &Value::Null),
            "{}: {made}",
            platform.name()
        );
        assert_eq!(
            (&made["type"], &made["installed"], &made["enabled"], &made["tool_count"]),
            (&json!("mcp"), &json!(true), &json!(true), &json!(5))
        );
        assert_eq!(made["tools"][4]["name"], "maths__sum");
        assert_eq!(made["tools"][4]["input_schema"]["required"], json!(["a", "b"]));
        assert!(!made.to_string().contains(&server.key), "{made}");
        assert_eq!(bob.get(&path(&made)).await, (200, made.clone()));
        let (status, changed) = bob.put(&path(&made), json!({"description": "Adds numbers.", "version": 1})).await;
        assert_eq!(
            (status, &changed["description"], &changed["version"], &changed["name"]),
            (200, &json!("Adds numbers."), &json!(2), &json!("Maths"))
        );
        let (status, conflict) = bob.put(&path(&made), json!({"name": "Other", "version": 1})).await;
        assert_eq!((status, &conflict["error"]), (409, &json!("VERSION_CONFLICT")));
        let (status, renamed) = bob.put(&path(&made), json!({"name": "Other", "source": source(&server)})).await;
        assert_eq!((status, &renamed["tools"][4]["name"]), (200, &json!("other__sum")), "{renamed}");
        assert_eq!(bob.delete(&path(&made)).await, (204, Value::Null));
        for (status, gone) in [bob.delete(&path(&made)).await, bob.get(&path(&made)).await] {
            assert_eq!((status, &gone["error"]), (404, &json!("PLUGIN_NOT_FOUND")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_read_is_told_and_a_wrong_one_is_refused() {
    for (platform, server) in each().await {
        let bob = platform.as_("bob");
        let wrong_key = json!({"type": "mcp", "transport": "http", "url": server.url, "headers": {KEY_HEADER: "guess"}});
        let made = bob.create("/plugins", json!({"name": "a", "source": wrong_key})).await;
        assert_eq!((&made["sync"]["status"], &made["sync"]["error"]["code"]), (&json!("failed"), &json!("HTTP_ERROR")), "{made}");
        let blocked = json!({"type": "openapi", "url": "http://[::1]/openapi.json"});
        let made = bob.create("/plugins", json!({"name": "b", "source": blocked})).await;
        assert_eq!(made["sync"]["error"]["code"], "BLOCKED_ADDRESS", "{made}");
        let (status, taken) = bob.post("/plugins", json!({"name": "a", "source": source(&server)})).await;
        assert_eq!((status, &taken["error"]), (409, &json!("PLUGIN_EXISTS")));
        let bad = json!({"name": "", "source": {"type": "mcp", "transport": "stdio", "command": "rm", "args": ["-rf"]}});
        let (status, refused) = bob.post("/plugins", bad).await;
        let fields: Vec<_> = refused["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
        assert_eq!((status, fields), (422, vec!["name", "source.command", "source.args"]), "{refused}");
        let (status, refused) = bob.put(&path(&made), json!({"source": {"type": "openapi"}})).await;
        assert_eq!((status, &refused["details"][0]["field"]), (422, &json!("source.document")));
        assert_eq!(bob.post("/plugins", json!({})).await.0, 422);
        assert_eq!(bob.get("/plugins?sort=secret").await.0, 422);
        assert_eq!(bob.get("/plugins?status=odd").await.0, 422);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_plugin_is_installed_by_others_and_a_private_one_is_not_seen() {
    for (platform, server) in each().await {
        let (ann, bob, eve) = (platform.as_("ann"), platform.as_("bob"), platform.as_("eve"));
        let private = bob.create("/plugins", json!({"name": "Private", "source": source(&server)})).await;
        let public = bob.create("/plugins", json!({"name": "Public", "source": source(&server), "is_public": true})).await;
        for wanted in [path(&private), UNKNOWN.to_owned()] {
            let (status, hidden) = eve.get(&wanted).await;
            assert_eq!((status, &hidden["error"]), (404, &json!("PLUGIN_NOT_FOUND")));
            let refused = [
                eve.put(&wanted, json!({"name": "x"})).await.0,
                eve.delete(&wanted).await.0,
                eve.act(&format!("{wanted}/install")).await.0,
                eve.delete(&format!("{wanted}/install")).await.0,
                eve.act(&format!("{wanted}/enable")).await.0,
                eve.act(&format!("{wanted}/disable")).await.0,
            ];
            assert_eq!(refused, [404; 6], "{}", platform.name());
        }
        let path = path(&public);
        let (status, market) = eve.get("/plugins/market").await;
        assert_eq!((status, &market["total"], &market["items"][0]["name"]), (200, &json!(1), &json!("Public")));
        assert_eq!((&market["items"][0]["installed"], &market["items"][0]["source"]), (&json!(false), &Value::Null));
        assert_eq!(bob.get("/plugins/market").await.1["total"], 0, "one's own are no news");
        assert_eq!(eve.act(&format!("{path}/disable")).await.0, 409, "it is not installed");
        assert_eq!(eve.put(&path, json!({"name": "x"})).await.0, 403);
        assert_eq!(eve.delete(&path).await.0, 403);
        for _ in 0..2 {
            let (status, installed) = eve.act(&format!("{path}/install")).await;
            assert_eq!(
                (status, &installed["installed"], &installed["enabled"], &installed["sync"]),
                (200, &json!(true), &json!(true), &Value::Null)
            );
            assert_eq!(installed["tools"].as_array().unwrap().len(), 5);
        }
        let (_, disabled) = eve.act(&format!("{path}/disable")).await;
        assert_eq!((&disabled["installed"], &disabled["enabled"]), (&json!(true), &json!(false)));
        assert_eq!(bob.get(&path).await.1["enabled"], true, "each has an install of their own");
        assert_eq!(eve.get("/plugins?status=enabled").await.1["total"], 0);
        assert_eq!(eve.get("/plugins?status=disabled").await.1["total"], 1);
        assert_eq!(eve.act(&format!("{path}/enable")).await.1["enabled"], true);
        bob.put(&path, json!({"is_public": false})).await;
        assert_eq!(
            (eve.get(&path).await.0, eve.get("/plugins").await.1["total"].clone()),
            (404, json!(0)),
            "it is bob's alone again"
        );
        bob.put(&path, json!({"is_public": true})).await;
        assert_eq!(eve.get(&path).await.1["installed"], false);
        assert_eq!(eve.act(&format!("{path}/install")).await.0, 200);
        assert_eq!(eve.delete(&format!("{path}/install")).await, (204, Value::Null));
        assert_eq!(eve.delete(&format!("{path}/install")).await.0, 404);
        assert_eq!(ann.delete(&path).await, (204, Value::Null), "an administrator may");
        assert_eq!(bob.get(&path).await.0, 404);
        assert_eq!(platform.nobody().get("/plugins").await.0, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_listed_page_by_page() {
    for (platform, _server) in each().await {
        let bob = platform.as_("bob");
        for name in ["beta", "Alpha", "gamma 100%"] {
            let document = json!({"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a"}}}});
            let source = json!({"type": "openapi", "document": document, "base_url": "https://api.test"});
            let made = bob.create("/plugins", json!({"name": name, "source": source})).await;
            assert_eq!((&made["type"], &made["tool_count"]), (&json!("openapi"), &json!(1)), "{made}");
        }
        let names = async |query: &str| {
            let (status, page) = bob.get(&format!("/plugins?{query}")).await;
            assert_eq!(status, 200, "{page}");
            let names = page["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned());
            (page["total"].as_u64().unwrap(), names.collect::<Vec<_>>())
        };
        assert_eq!(names("").await.1, ["gamma 100%", "Alpha", "beta"], "{}: the newest first", platform.name());
        assert_eq!(names("sort=name").await.1, ["Alpha", "beta", "gamma 100%"]);
        assert_eq!(names("sort=-name&page_size=2&page=2").await, (3, vec!["Alpha".to_owned()]));
        assert_eq!(names("search=ALPH").await, (1, vec!["Alpha".to_owned()]));
        assert_eq!(names("search=%25").await, (1, vec!["gamma 100%".to_owned()]));
    }
}

/// A model that calls `echo` of the plugin `Server`, and then says what it was told.
async fn calling() -> ModelServer {
    ModelServer::with(|request| match request.tool_results().first() {
        None => Reply::tool_calls([("server__echo", json!({ "text": "from a model" }))]),
        Some(_) => Reply::text("done"),
    })
    .await
    .unwrap()
}

/// An agent of theirs answers; the log of its run.
async fn told(session: &Session<'_>, thread: &str) -> String {
    let agent = json!({ "name": thread, "include_tools": ["server__echo"] });
    let agent = session.create("/agents", agent).await;
    let body = json!({
        "threadId": thread, "runId": thread, "messages": [{ "id": "m1", "role": "user", "content": "call it" }],
        "forwardedProps": { "agentId": agent["id"] },
    });
    let (status, accepted) = session.post("/agent/runs", body).await;
    assert!(status < 300, "{accepted}");
    let path = format!("/agent/runs/{thread}/events?Last-Event-ID=0");
    Sse::open(session.request(reqwest::Method::GET, &path)).await.rest().await.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_of_an_enabled_plugin_are_used_by_agents_and_by_hand() {
    for database in databases().await {
        let server = McpServer::start().await.unwrap();
        let host = server.host.clone();
        let tweak = |c: &mut runmill_shared::config::Config| c.security.allow_private_hosts.push(host);
        let platform = TestPlatform::with_model(database, calling().await, tweak).await;
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let made = bob.create("/plugins", json!({"name": "Server", "source": source(&server), "is_public": true})).await;
        let (path, tool) = (path(&made), made["tools"].as_array().unwrap().iter().find(|t| t["name"] == "server__sum").unwrap());
        let using = format!("/tools/{}/use", tool["id"].as_str().unwrap());
        let arguments = json!({ "arguments": { "a": 1, "b": 2 } });
        let (status, used) = bob.post(&using, arguments.clone()).await;
        assert_eq!(
            (status, &used["ok"], &used["result"]),
            (200, &json!(true), &json!({"sum": 3.0})),
            "{}: {used}",
            platform.name()
        );
        assert_eq!(bob.post(&using, json!({ "arguments": { "a": "x" } })).await.0, 422);
        assert_eq!(eve.post(&using, arguments.clone()).await.0, 404, "she has not installed it");
        let calls = || server.calls().len();
        let before = calls();
        eve.act(&format!("{path}/install")).await;
        assert_eq!(eve.post(&using, arguments.clone()).await.0, 200);
        let events = told(&eve, "installed").await;
        assert!(events.contains("run.finished"), "{events}");
        let last = format!("{:?}", server.calls().last());
        assert!(last.contains("from a model"), "{last}");
        assert_eq!(calls(), before + 2);
        eve.act(&format!("{path}/disable")).await;
        assert_eq!(eve.post(&using, arguments.clone()).await.0, 404);
        let agent = json!({ "name": "disabled", "include_tools": ["server__echo"] });
        assert_eq!(eve.post("/agents", agent).await.0, 422, "no such tool");
        eve.act(&format!("{path}/enable")).await;
        bob.put(&path, json!({"is_public": false})).await;
        assert_eq!(eve.post(&using, arguments).await.0, 404, "it is bob's alone");
        assert_eq!(calls(), before + 2, "{}: what is hidden is not called", platform.name());
    }
}
