use runmill_testkit::{
    http_server::{HttpServer, Response},
    model_server::{ModelServer, Reply},
};
use serde_json::{Value, json};

use crate::support::{TestPlatform, databases, each};

/// Answers what it was asked.
fn echo() -> HttpServer {
    HttpServer::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let answer =
            json!({ "method": request.method, "path": request.path, "body": body, "auth": request.header("authorization") });
        Response::json(200, &answer)
    })
}

async fn each_with(server: &HttpServer) -> Vec<TestPlatform> {
    let host = server.url.trim_start_matches("http://").to_owned();
    each(move |config| config.security.allow_private_hosts = vec![host.clone()]).await
}

fn http_tool(name: &str, url: &str) -> Value {
    json!({
        "name": name, "description": "asks the echo", "type": "http",
        "input_schema": { "type": "object", "required": ["q"], "properties": { "q": { "type": "string" } }, "additionalProperties": false },
        "config": { "method": "POST", "url": format!("{url}/v1/{{{{ q }}}}"), "body": { "q": "{{ q }}" }, "response_path": "body" },
    })
}

fn fields(refused: &Value) -> Vec<&str> {
    let mut all: Vec<_> = refused["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn a_tool_is_made_listed_changed_and_deleted() {
    for platform in each(|_| {}).await {
        let (ann, bob) = (platform.as_("ann"), platform.as_("bob"));
        let made = ann.create("/tools", http_tool("echo", "https://x.test")).await;
        let path = format!("/tools/{}", made["id"].as_str().unwrap());
        assert_eq!((&made["version"], &made["category"], &made["type"]), (&json!(1), &json!("custom"), &json!("http")));
        assert_eq!(ann.get(&path).await, (200, made.clone()), "{}", platform.name());
        assert_eq!(ann.get("/tools/echo").await.1["id"], made["id"]);
        for (method, body) in [("GET", None), ("PUT", Some(json!({ "description": "x" }))), ("DELETE", None)] {
            let (status, refused) = bob.absolute(method, &format!("/api/v1{path}"), body.as_ref()).await;
            assert_eq!((status, &refused["error"]), (404, &json!("TOOL_NOT_FOUND")), "{method}");
        }
        assert_eq!(bob.post(&format!("{path}/use"), json!({ "arguments": { "q": "a" } })).await.0, 404);
        let (status, changed) = ann.put(&path, json!({ "description": "changed", "version": 1 })).await;
        assert_eq!((status, &changed["version"], &changed["config"]), (200, &json!(2), &made["config"]));
        let (status, refused) = ann.put(&path, json!({ "description": "late", "version": 1 })).await;
        assert_eq!((status, &refused["error"]), (409, &json!("VERSION_CONFLICT")));
        let (status, refused) = ann.put(&path, json!({ "config": { "url": "ftp://x" } })).await;
        assert_eq!((status, fields(&refused)), (422, vec!["config.url"]));
        assert_eq!(ann.put(&path, json!({ "name": "now" })).await.1["error"], "TOOL_EXISTS");
        assert_eq!(ann.delete(&path).await.0, 204);
        assert_eq!((ann.delete(&path).await.0, ann.get(&path).await.0), (404, 404));
    }
}

#[tokio::test]
async fn names_are_taken_once_a_user_and_never_from_a_built_in_tool() {
    for platform in each(|_| {}).await {
        let (ann, bob) = (platform.as_("ann"), platform.as_("bob"));
        ann.create("/tools", http_tool("echo", "https://x.test")).await;
        bob.create("/tools", http_tool("echo", "https://x.test")).await;
        for name in ["echo", "calculator", "wait"] {
            let (status, refused) = ann.post("/tools", http_tool(name, "https://x.test")).await;
            assert_eq!((status, &refused["error"]), (409, &json!("TOOL_EXISTS")), "{name}");
        }
        let bad = json!({ "name": "a b", "description": "", "type": "http", "category": "", "input_schema": { "type": "string" }, "config": { "method": "GO" } });
        let (status, refused) = ann.post("/tools", bad).await;
        assert_eq!((status, fields(&refused)), (422, vec!["category", "config.method", "config.url", "input_schema", "name"]));
        let code = json!({ "name": "c", "description": "", "type": "code", "input_schema": { "type": "object" }, "config": { "timeout_ms": 0 } });
        assert_eq!(fields(&ann.post("/tools", code).await.1), ["config.code", "config.timeout_ms"]);
        assert_eq!(
            fields(&ann.post("/tools", json!({ "name": "x", "type": "mcp" })).await.1),
            ["config", "description", "input_schema", "type"]
        );
        assert_eq!(ann.request(reqwest::Method::POST, "/tools").body("{").send().await.unwrap().status(), 400);
    }
}

#[tokio::test]
async fn lists_have_the_built_in_tools_first_and_can_be_narrowed() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let builtin = runmill_worker::builtin_tools(&platform.app.config).unwrap();
        for name in ["zeta", "alpha"] {
            ann.create("/tools", http_tool(name, "https://x.test")).await;
        }
        let (status, all) = ann.get("/tools/builtin").await;
        let names: Vec<_> = all["items"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((status, names), (200, builtin.iter().map(|t| t.name.clone()).collect::<Vec<_>>()), "{}", platform.name());
        assert!(
            all["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|t| t["input_schema"]["type"] == "object" && t["output_schema"].is_object())
        );
        let total = builtin.len() + 2;
        let mut seen = Vec::new();
        for page in 1..=total.div_ceil(5) {
            let (_, part) = ann.get(&format!("/tools?page_size=5&page={page}")).await;
            assert_eq!(part["total"], total);
            seen.extend(part["items"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()));
        }
        let mut expected: Vec<_> = builtin.iter().map(|t| t.name.clone()).collect();
        expected.extend(["alpha".to_owned(), "zeta".to_owned()]);
        assert_eq!(seen, expected);
        let names = async |query: &str| -> Vec<String> {
            let (status, list) = ann.get(&format!("/tools?{query}")).await;
            assert_eq!(status, 200, "{list}");
            list["items"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("type=http&sort=-name").await, ["zeta", "alpha"]);
        assert_eq!(names("type=code").await, Vec::<String>::new());
        assert_eq!(names("search=ZET").await, ["zeta"]);
        assert_eq!(names("category=custom").await, ["alpha", "zeta"]);
        assert!(names("category=web&type=builtin").await.contains(&"http_request".to_owned()));
        assert_eq!(fields(&ann.get("/tools?type=x&sort=y").await.1), ["sort", "type"]);
        let (_, categories) = ann.get("/tools/categories?page_size=100").await;
        let custom = categories["items"].as_array().unwrap().iter().find(|c| c["name"] == "custom");
        assert_eq!(custom.map(|c| &c["count"]), Some(&json!(2)));
    }
}

#[tokio::test]
async fn a_built_in_tool_is_read_and_used_and_not_changed() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        assert_eq!(ann.get("/tools/calculator").await.1["type"], "builtin");
        assert_eq!(ann.put("/tools/calculator", json!({ "description": "x" })).await.0, 403);
        assert_eq!(ann.delete("/tools/calculator").await.0, 403);
        let (status, used) = ann.post("/tools/calculator/use", json!({ "arguments": { "expression": "6 * 7" } })).await;
        assert_eq!(
            (status, &used["ok"], &used["result"]),
            (200, &json!(true), &json!({ "result": 42 })),
            "{}: {used}",
            platform.name()
        );
        assert!(used["duration_ms"].is_u64());
        let (status, failed) = ann.post("/tools/calculator/use", json!({ "arguments": { "expression": "6 *" } })).await;
        assert_eq!((status, &failed["ok"], &failed["error"]["code"]), (200, &json!(false), &json!("INVALID_EXPRESSION")));
        let (status, refused) = ann.post("/tools/calculator/use", json!({ "arguments": { "expression": 5, "x": 1 } })).await;
        assert_eq!((status, fields(&refused)), (422, vec!["arguments", "arguments.expression"]));
        assert_eq!(fields(&ann.post("/tools/calculator/use", json!({})).await.1), ["arguments.expression"]);
        assert_eq!(ann.post("/tools/nothing/use", json!({ "arguments": {} })).await.1["error"], "TOOL_NOT_FOUND");
        assert_eq!(platform.nobody().post("/tools/calculator/use", json!({})).await.0, 401);
    }
}

#[tokio::test]
async fn a_tool_that_waits_lets_its_worker_go_and_comes_back() {
    for platform in each(|_| {}).await {
        let (status, used) = platform.as_("ann").post("/tools/wait/use", json!({ "arguments": { "seconds": 1 } })).await;
        assert_eq!((status, &used["ok"]), (200, &json!(true)), "{}: {used}", platform.name());
        assert!(used["result"]["waited_until"].is_string() && used["duration_ms"].as_u64() >= Some(1000), "{used}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_says_where_it_goes_on() {
    for platform in each(|config| config.tools.wait = std::time::Duration::from_millis(200)).await {
        let (status, refused) = platform.as_("ann").post("/tools/wait/use", json!({ "arguments": { "seconds": 3600 } })).await;
        assert_eq!((status, &refused["error"]), (503, &json!("TOOL_STILL_RUNNING")), "{}", platform.name());
    }
}

#[tokio::test]
async fn an_http_tool_is_tried_stored_and_used_with_its_secret() {
    let server = echo();
    for platform in each_with(&server).await {
        let ann = platform.as_("ann");
        ann.put("/secrets/KEY", json!({ "value": "sk-12345" })).await;
        let mut tool = http_tool("echo", &server.url);
        tool["config"]["auth"] = json!({ "type": "bearer", "secret": "KEY" });
        let mut trial = tool.clone();
        trial["arguments"] = json!({ "q": "a b" });
        let (status, tried) = ann.post("/tools/test/http", trial.clone()).await;
        assert_eq!(
            (status, &tried["ok"], &tried["result"]),
            (200, &json!(true), &json!("{\"q\":\"a b\"}")),
            "{}: {tried}",
            platform.name()
        );
        assert_eq!(ann.get("/tools?type=http").await.1["total"], 0, "a trial is not stored");
        let made = ann.create("/tools", tool.clone()).await;
        let (_, used) =
            ann.post(&format!("/tools/{}/use", made["id"].as_str().unwrap()), json!({ "arguments": { "q": "c" } })).await;
        assert_eq!(used["result"], "{\"q\":\"c\"}");
        assert_eq!(ann.post("/tools/echo/use", json!({ "arguments": { "q": "d" } })).await.1["result"], "{\"q\":\"d\"}");
        let seen = server.requests().pop().unwrap();
        assert_eq!((seen.path.as_str(), seen.header("authorization")), ("/v1/d", Some("Bearer sk-12345")));
        let (status, refused) = ann.post("/tools/echo/use", json!({ "arguments": { "x": "d" } })).await;
        assert_eq!((status, fields(&refused)), (422, vec!["arguments", "arguments.q"]));
        trial["config"]["url"] = json!("nonsense");
        assert_eq!(fields(&ann.post("/tools/test/http", trial).await.1), ["config.url"]);
        assert_eq!(fields(&ann.post("/tools/test/code", json!({ "config": {} })).await.1), ["config.code"]);
        tool["name"] = json!("whole");
        tool["config"]["response_path"] = Value::Null;
        ann.create("/tools", tool).await;
        let (_, told) = ann.post("/tools/whole/use", json!({ "arguments": { "q": "e" } })).await;
        assert!(told["ok"] == true && !told.to_string().contains("sk-12345"), "{told}");
    }
}

#[tokio::test]
async fn private_addresses_are_refused_at_once_and_nothing_is_sent() {
    let server = echo();
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "127.1",
            "[::ffff:127.0.0.1]",
            "localhost",
            "169.254.169.254",
            "10.0.0.1",
            "0.0.0.0",
        ] {
            let body = json!({ "config": { "url": format!("http://{host}:{port}/") }, "arguments": {} });
            let (status, told) = ann.post("/tools/test/http", body).await;
            assert_eq!(
                (status, &told["ok"], &told["error"]["code"]),
                (200, &json!(false), &json!("BLOCKED_ADDRESS")),
                "{host}: {told}"
            );
            let arguments = json!({ "arguments": { "method": "GET", "url": format!("http://{host}:{port}/") } });
            assert_eq!(ann.post("/tools/http_request/use", arguments).await.1["error"]["code"], "BLOCKED_ADDRESS", "{host}");
        }
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn the_quota_is_a_users_own() {
    let server = echo();
    let host = server.url.trim_start_matches("http://").to_owned();
    let tweak = |config: &mut runmill_shared::config::Config| {
        config.security.allow_private_hosts = vec![host.clone()];
        config.tools.calls_per_minute = 2;
    };
    for platform in each(tweak).await {
        let body = json!({ "config": { "url": server.url }, "arguments": {} });
        for _ in 0..2 {
            assert_eq!(platform.as_("ann").post("/tools/test/http", body.clone()).await.1["ok"], true);
        }
        let (status, refused) = platform.as_("ann").post("/tools/test/http", body.clone()).await;
        assert_eq!((status, &refused["error"]["code"]), (200, &json!("RATE_LIMITED")), "{}", platform.name());
        assert_eq!(platform.as_("bob").post("/tools/test/http", body).await.1["ok"], true);
    }
}

/// Two answers of the scripted model: a call of `name`, and then text.
async fn calling(name: &'static str) -> ModelServer {
    ModelServer::with(move |request| {
        if request.tool_results().is_empty() {
            Reply::tool_calls([(name, json!({ "q": "from a model" }))])
        } else {
            Reply::text("done")
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_agent_calls_its_owners_tools_and_no_others() {
    let server = echo();
    let host = server.url.trim_start_matches("http://").to_owned();
    for database in databases().await {
        let tweak = |config: &mut runmill_shared::config::Config| config.security.allow_private_hosts = vec![host.clone()];
        let platform = TestPlatform::with_model(database, calling("echo").await, tweak).await;
        let before = server.requests().len();
        for (user, owns) in [("ann", true), ("bob", false)] {
            let session = platform.as_(user);
            if owns {
                session.create("/tools", http_tool("echo", &server.url)).await;
            }
            let names = if owns { json!(["echo"]) } else { json!(["now"]) };
            let agent = session.create("/agents", json!({ "name": "Caller", "include_tools": names })).await;
            let body = json!({
                "threadId": "t", "runId": format!("r-{user}"), "messages": [{ "id": "m1", "role": "user", "content": "call it" }],
                "forwardedProps": { "agentId": agent["id"] },
            });
            let (status, accepted) = session.post("/agent/runs", body).await;
            assert!(status < 300, "{accepted}");
            let mut frames = runmill_testkit::http_client::Sse::open(
                session.request(reqwest::Method::GET, "/agent/runs/t/events?Last-Event-ID=0"),
            )
            .await;
            let told = frames.rest().await;
            assert!(told.iter().any(|frame| frame.ends_with("run.finished")), "{user}: {told:?}");
        }
        assert_eq!(server.requests().len() - before, 1, "{}: ann's agent called it, bob's could not", platform.name());
        assert_eq!(server.requests().pop().unwrap().path, "/v1/from%20a%20model");
    }
}

#[tokio::test]
async fn a_call_in_a_session_is_its_turn_and_no_message() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let missing = json!({ "arguments": { "expression": "1+1" }, "session_id": "nowhere" });
        assert_eq!(ann.post("/tools/calculator/use", missing).await.1["error"], "SESSION_NOT_FOUND");
        let body = json!({ "threadId": "s", "runId": "r1", "messages": [{ "id": "m1", "role": "user", "content": "hello" }] });
        assert!(ann.post("/agent/runs", body.clone()).await.0 < 300);
        let (status, used) =
            ann.post("/tools/calculator/use", json!({ "arguments": { "expression": "1+1" }, "session_id": "s" })).await;
        assert_eq!((status, &used["result"]), (200, &json!({ "result": 2 })), "{}: {used}", platform.name());
        let history = ann.get("/agent/history?threadId=s").await;
        let roles: Vec<_> =
            history.1["messages"].as_array().map(|all| all.iter().map(|m| m["role"].clone()).collect()).unwrap_or_default();
        assert_eq!(roles, ["user", "assistant"], "{history:?}");
        let other = json!({ "arguments": { "expression": "1+1" }, "session_id": "s" });
        assert_eq!(platform.as_("bob").post("/tools/calculator/use", other).await.0, 404);
    }
}
