//! Plugins as a whole: made by a user, read by the worker, called as an agent calls them. Real MCP servers, a real OpenAPI server.
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use runmill_shared::{
    App,
    config::{Config, Secret},
    domain::{
        caller::{Caller, Owner, Role, Scope},
        new_id,
        run::RunState,
        tool::{CustomTool, ToolType},
    },
    services::plugins::{self, Change, Detail},
    store::db::{Class, FromRow, Row, Sql, query},
};
use runmill_testkit::{
    app::TestApp,
    database::databases,
    http_server::{HttpServer, Request, Response},
    mcp_server::{Called, KEY_HEADER, McpServer, child_process},
};
use runmill_worker::tools::{Tool, ToolContext, ToolError, ToolScope, Tools, custom::plugin_tool};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

fn new(name: &str, source: Value) -> Change {
    Change { name: Some(name.to_owned()), source: Some(source), ..Change::default() }
}

async fn create(app: &TestApp, name: &str, source: Value) -> Detail {
    plugins::create(&app.app, &app.caller, new(name, source)).await.unwrap()
}

/// As `create`, and its tools were read.
async fn made(app: &TestApp, name: &str, source: Value) -> Detail {
    let detail = create(app, name, source).await;
    let sync = detail.sync.as_ref().unwrap();
    assert_eq!(sync.state, RunState::Succeeded, "{}: {sync:?}", app.name());
    detail
}

/// Why its tools could not be read.
async fn refused(app: &TestApp, name: &str, source: Value) -> String {
    let detail = create(app, name, source).await;
    let sync = detail.sync.unwrap();
    assert_eq!((sync.state, detail.tools.len()), (RunState::Failed, 0), "{}: {:?}", app.name(), sync.error);
    sync.error.unwrap().code
}

fn names(detail: &Detail) -> Vec<&str> {
    detail.tools.iter().map(|t| t.name.as_str()).collect()
}

struct Stored(CustomTool);

impl FromRow for Stored {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self(CustomTool {
            id: row.get("id")?,
            owner: row.get("owner")?,
            plugin_id: row.get("plugin_id")?,
            name: row.get("name")?,
            description: row.get("description")?,
            kind: ToolType::parse(&row.get::<String>("type")?).unwrap(),
            category: row.get("category")?,
            input_schema: row.json("input_schema")?,
            output_schema: row.opt_json("output_schema")?,
            config: row.json("config")?,
        }))
    }
}

async fn tool(app: &App, name: &str) -> Arc<dyn Tool> {
    let found: Vec<Stored> = query(Sql::both("SELECT * FROM tools WHERE name = $1")).bind(name).all(&app.db).await.unwrap();
    let Stored(custom) = found.into_iter().next().unwrap_or_else(|| panic!("no tool {name}"));
    plugin_tool(app, custom).await.unwrap()
}

/// As the engine calls it, within `timeout`.
async fn call_within(app: &App, name: &str, arguments: Value, timeout: Duration) -> Result<Value, ToolError> {
    let cx = ToolContext {
        app: app.clone(),
        scope: ToolScope {
            owner: Owner::of_row("local"),
            run_id: new_id(),
            thread_id: new_id(),
            thread: "t".into(),
            agent_id: None,
            goal_id: None,
        },
        step_key: "run/1/0".into(),
        clock: app.clock.clone(),
        cancel: CancellationToken::new(),
        timeout,
        max_output_bytes: 65_536,
    };
    Tools::new(vec![tool(app, name).await]).unwrap().call(name, &cx, arguments).await
}

async fn call(app: &TestApp, name: &str, arguments: Value) -> Result<Value, ToolError> {
    call_within(&app.app, name, arguments, DEADLINE).await
}

async fn code(app: &TestApp, name: &str, arguments: Value) -> String {
    call(app, name, arguments).await.unwrap_err().code.into_owned()
}

fn over_http(server: &McpServer) -> Value {
    json!({"type": "mcp", "transport": "http", "url": server.url, "headers": {KEY_HEADER: server.key}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_of_an_mcp_server_are_found_and_called_over_one_connection() {
    for database in databases().await {
        let server = McpServer::start().await.unwrap();
        let app = TestApp::start(database, |c| c.security.allow_private_hosts = vec![server.host.clone()]).await.unwrap();
        let detail = made(&app, "My Server", over_http(&server)).await;
        let expected = ["echo", "fail", "hang", "picture", "sum"].map(|n| format!("my_server__{n}"));
        assert_eq!(names(&detail), expected, "{}", app.name());
        assert_eq!(detail.plugin.enabled, Some(true), "its owner has it installed");
        let shown = serde_json::to_string(&detail.plugin.source).unwrap();
        assert!(shown.contains("x-key") && !shown.contains(&server.key), "{shown}");
        let row = query(Sql::both("SELECT source, credentials FROM plugins")).one(&app.app.db).await.unwrap();
        let stored = row.get::<String>("source").unwrap() + &row.get::<String>("credentials").unwrap();
        assert!(!stored.contains(&server.key), "{stored}");
        let sum = tool(&app.app, "my_server__sum").await;
        assert!(sum.idempotent(&json!({})) && sum.output()["properties"]["sum"].is_object());
        assert!(!tool(&app.app, "my_server__echo").await.idempotent(&json!({})));
        assert_eq!(call(&app, "my_server__sum", json!({"a": 1, "b": 2})).await, Ok(json!({"sum": 3.0})));
        assert_eq!(call(&app, "my_server__echo", json!({"text": "it's é"})).await, Ok(json!("it's é")));
        let picture = json!({"content": [
            {"type": "text", "text": "a dot"}, {"type": "image", "mime_type": "image/png", "data": "aGk="},
        ]});
        assert_eq!(call(&app, "my_server__picture", json!({})).await, Ok(picture));
        let failed = call(&app, "my_server__fail", json!({})).await.unwrap_err();
        assert_eq!(failed, ToolError::new("TOOL_ERROR", "it did not work"));
        assert_eq!(code(&app, "my_server__sum", json!({"a": "x"})).await, "INVALID_ARGUMENTS");
        let called: Vec<_> = server.calls().into_iter().map(|Called { tool, .. }| tool).collect();
        assert_eq!(called, ["sum", "echo", "picture", "fail"]);
        assert_eq!(server.sessions(), 1, "one connection served them all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_cancelled_at_the_server() {
    for database in databases().await {
        let server = McpServer::start().await.unwrap();
        let app = TestApp::start(database, |c| c.security.allow_private_hosts = vec![server.host.clone()]).await.unwrap();
        made(&app, "s", over_http(&server)).await;
        let slow = call_within(&app.app, "s__hang", json!({}), Duration::from_millis(200)).await;
        assert_eq!(slow.unwrap_err().code, "TIMEOUT");
        server.until_cancelled(1).await.unwrap();
        assert_eq!(call(&app, "s__echo", json!({"text": "still here"})).await, Ok(json!("still here")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_again_keeps_the_ids_of_the_tools_that_stay() {
    for database in databases().await {
        let server = McpServer::start().await.unwrap();
        let app = TestApp::start(database, |c| c.security.allow_private_hosts = vec![server.host.clone()]).await.unwrap();
        let before = made(&app, "Tools", over_http(&server)).await;
        let id = before.plugin.id;
        let echo = json!({"name": "echo", "description": "Louder.", "inputSchema": {"type": "object"}});
        server.set_tools(vec![echo, json!({"name": "new", "inputSchema": {"type": "object"}})]);
        // The headers are left out, and stay.
        let source = json!({"type": "mcp", "transport": "http", "url": server.url});
        let change = Change { source: Some(source), version: Some(1), ..Change::default() };
        let after = plugins::update(&app.app, &app.caller, id, change.clone()).await.unwrap();
        assert_eq!((names(&after), after.plugin.version), (vec!["tools__echo", "tools__new"], 2), "{:?}", after.sync);
        assert_eq!((after.tools[0].id, after.tools[0].description.as_str()), (before.tools[0].id, "Louder."));
        let conflict = plugins::update(&app.app, &app.caller, id, change).await.unwrap_err();
        assert_eq!(conflict.code, "VERSION_CONFLICT");
        let renamed = Change { name: Some("Others".into()), ..Change::default() };
        let renamed = plugins::update(&app.app, &app.caller, id, renamed).await.unwrap();
        assert_eq!(names(&renamed), ["others__echo", "others__new"]);
        // Another plugin whose tools would be called the same.
        let twin = made(&app, "others!", over_http(&server)).await;
        assert_eq!(names(&twin), ["others__echo_2", "others__new_2"]);
        let again = plugins::create(&app.app, &app.caller, new("others!", over_http(&server))).await.unwrap_err();
        assert_eq!(again.code, "PLUGIN_EXISTS", "{}", app.name());
        // Headers that are taken away are not sent.
        let bare = json!({"type": "mcp", "transport": "http", "url": server.url, "headers": {}});
        let bare = plugins::update(&app.app, &app.caller, id, Change { source: Some(bare), ..Change::default() }).await.unwrap();
        assert_eq!(bare.sync.unwrap().error.unwrap().code, "HTTP_ERROR");
        assert_eq!(bare.tools.len(), 2, "what cannot be read again stays as it was");
        plugins::delete(&app.app, &app.caller, id).await.unwrap();
        assert_eq!(plugins::get(&app.app, &app.caller, id).await.unwrap_err().code, "PLUGIN_NOT_FOUND");
        assert_eq!(plugins::delete(&app.app, &app.caller, id).await.unwrap_err().code, "PLUGIN_NOT_FOUND");
    }
}

fn lives(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}

async fn until_gone(pid: &str) {
    let begun = Instant::now();
    while lives(pid) {
        assert!(begun.elapsed() < DEADLINE, "the process {pid} stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_process_is_started_once_again_when_it_dies_and_ended_when_it_is_idle() {
    for database in databases().await {
        let servers = BTreeMap::from([("shell".to_owned(), child_process("s3cret"))]);
        let app = TestApp::start(database, |c| c.mcp = servers).await.unwrap();
        let detail = made(&app, "sh", json!({"type": "mcp", "transport": "stdio", "command": "shell"})).await;
        assert_eq!(names(&detail), ["sh__die", "sh__env", "sh__pid"], "{}", app.name());
        let pid = async || call(&app, "sh__pid", json!({})).await.unwrap().as_str().unwrap().to_owned();
        let first = pid().await;
        assert_eq!(pid().await, first);
        assert_eq!(call(&app, "sh__env", json!({})).await, Ok(json!("s3cret none none")), "its environment and no other");
        assert_eq!(code(&app, "sh__die", json!({})).await, "CONNECTION_LOST");
        until_gone(&first).await;
        let mut impatient = app.app.clone();
        let mut config = (*impatient.config).clone();
        config.plugins.idle_timeout = Duration::from_millis(100);
        impatient.config = Arc::new(config);
        let second = call_within(&impatient, "sh__pid", json!({}), DEADLINE).await.unwrap().as_str().unwrap().to_owned();
        assert_ne!(first, second);
        until_gone(&second).await;
        assert_ne!(pid().await, second, "and it is started again when it is needed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_public_is_not_reached() {
    for database in databases().await {
        let (mcp, web) = (McpServer::start().await.unwrap(), HttpServer::start(|_| Response::new(200, "{}")));
        let app = TestApp::start(database, |_| {}).await.unwrap();
        assert_eq!(refused(&app, "a", over_http(&mcp)).await, "BLOCKED_ADDRESS", "{}", app.name());
        let port = mcp.host.rsplit(':').next().unwrap();
        for (name, host) in [("b", "localhost"), ("c", "2130706433"), ("d", "[::ffff:127.0.0.1]")] {
            let source = json!({"type": "mcp", "transport": "http", "url": format!("http://{host}:{port}/mcp")});
            assert_eq!(refused(&app, name, source).await, "BLOCKED_ADDRESS", "{host}");
        }
        assert_eq!(refused(&app, "e", json!({"type": "openapi", "url": web.url})).await, "BLOCKED_ADDRESS");
        let document = json!({"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a"}}}});
        made(&app, "f", json!({"type": "openapi", "document": document, "base_url": web.url})).await;
        assert_eq!(code(&app, "f__a", json!({})).await, "BLOCKED_ADDRESS");
        assert_eq!((mcp.sessions(), web.requests().len()), (0, 0), "nothing was sent");
        assert_eq!(
            refused(&app, "g", json!({"type": "mcp", "transport": "http", "url": "http://x.invalid/"})).await,
            "REQUEST_FAILED"
        );
    }
}

/// A service of pets that wants a bearer token. `/openapi.yaml` is its document, `/moved` leads there.
fn pets(request: &Request) -> Response {
    let (path, body) = (request.path.as_str(), String::from_utf8_lossy(&request.body).into_owned());
    match path {
        "/moved" => return Response::new(302, "").with("location", "/openapi.yaml"),
        "/openapi.yaml" => return Response::new(200, DOCUMENT).with("content-type", "application/yaml"),
        _ => {}
    }
    if request.header("authorization") != Some("Bearer t0ken") {
        return Response::json(401, &json!({"error": "who are you?"}));
    }
    match (request.method.as_str(), path) {
        ("GET", "/v1/pets?tag=a+b&tag=c&limit=2") => Response::json(200, &json!([{"name": "Rex"}])),
        ("GET", "/v1/pets/a%2Fb") => Response::json(404, &json!({"error": "no such pet"})),
        ("GET", "/v1/pets/huge") => Response::new(200, "x".repeat(300_000)),
        ("GET", "/v1/pets/text") => Response::new(200, "just text").with("content-type", "text/plain"),
        ("POST", "/v1/pets") => Response::json(201, &json!({"got": serde_json::from_str::<Value>(&body).unwrap()})),
        ("DELETE", "/v1/pets/1") => Response::new(204, ""),
        _ => Response::new(500, format!("unexpected {path}")),
    }
}

const DOCUMENT: &str = r"
openapi: 3.0.3
servers: [{url: /v1}]
paths:
  /pets:
    get:
      operationId: list
      summary: All pets
      parameters:
        - {name: tag, in: query, schema: {type: array, items: {type: string}}}
        - {name: limit, in: query, schema: {type: integer, maximum: 100}}
    post:
      operationId: add
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
  /pets/{id}:
    parameters: [&id {name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: get pet}
    delete: {operationId: drop}
components:
  schemas:
    Pet: {type: object, required: [name], properties: {name: {type: string}, friends: {type: array, items: {$ref: '#/components/schemas/Pet'}}}}
";

async fn keep_secret(app: &TestApp, name: &str, value: &str) {
    let owner = app.caller.can(Scope::Write).unwrap().as_str();
    let sealed = app.app.vault.seal(owner, &Secret::new(value)).unwrap();
    let insert =
        "INSERT INTO secrets (id, owner, name, sealed, created_at, updated_at) VALUES ($1, $2, $3, $4, 0, 0) RETURNING id";
    let insert = query(Sql::both(insert)).bind(new_id()).bind(owner).bind(name).bind(sealed);
    insert.write::<uuid::Uuid>(&app.app.db, Class::Request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_of_an_openapi_document_are_tools() {
    for database in databases().await {
        let web = HttpServer::start(pets);
        let host = web.url.trim_start_matches("http://").to_owned();
        let tweak = |c: &mut Config| {
            c.security.allow_private_hosts = vec![host];
            c.plugins.max_response_bytes = 100_000;
        };
        let app = TestApp::start(database, tweak).await.unwrap();
        let auth = json!({"type": "bearer", "secret": "PETS"});
        let detail = made(&app, "Pets", json!({"type": "openapi", "url": format!("{}/moved", web.url), "auth": auth})).await;
        assert_eq!(names(&detail), ["pets__add", "pets__drop", "pets__get_pet", "pets__list"], "{}", app.name());
        assert_eq!(code(&app, "pets__list", json!({})).await, "SECRET_MISSING");
        keep_secret(&app, "PETS", "t0ken").await;
        let found = call(&app, "pets__list", json!({"tag": ["a b", "c"], "limit": 2})).await;
        assert_eq!(found, Ok(json!([{"name": "Rex"}])));
        let missing = call(&app, "pets__get_pet", json!({"id": "a/b"})).await.unwrap_err();
        assert_eq!(missing, ToolError::new("HTTP_ERROR", r#"the server answered 404: {"error":"no such pet"}"#));
        assert_eq!(call(&app, "pets__get_pet", json!({"id": "text"})).await, Ok(json!("just text")));
        assert_eq!(code(&app, "pets__get_pet", json!({"id": "huge"})).await, "RESPONSE_TOO_LARGE");
        assert_eq!(code(&app, "pets__get_pet", json!({"id": ".."})).await, "INVALID_ARGUMENTS");
        let pet = json!({"name": "Tom", "friends": [{"name": "Rex"}]});
        assert_eq!(call(&app, "pets__add", pet.clone()).await, Ok(json!({ "got": pet })));
        assert_eq!(code(&app, "pets__add", json!({"friends": []})).await, "INVALID_ARGUMENTS");
        assert_eq!(call(&app, "pets__drop", json!({"id": "1"})).await, Ok(json!({"status": 204})));
        let keys: Vec<_> = web.requests().iter().map(|r| (r.method.clone(), r.header("idempotency-key").is_some())).collect();
        assert!(keys.iter().all(|(method, has_key)| (method != "GET") == *has_key), "{keys:?}");
        assert!(
            tool(&app.app, "pets__list").await.idempotent(&json!({}))
                && !tool(&app.app, "pets__add").await.idempotent(&json!({}))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_fail_and_say_why() {
    for database in databases().await {
        let web = HttpServer::start(|_| Response::new(200, "x".repeat(2_000_000)));
        let host = web.url.trim_start_matches("http://").to_owned();
        let tweak = |c: &mut Config| {
            c.security.allow_private_hosts = vec![host];
            c.plugins.max_document_bytes = 1_000_000;
        };
        let app = TestApp::start(database, tweak).await.unwrap();
        let document = |text: String| json!({"type": "openapi", "document": text, "base_url": "http://a.test"});
        assert_eq!(
            refused(&app, "large", json!({"type": "openapi", "url": web.url})).await,
            "RESPONSE_TOO_LARGE",
            "{}",
            app.name()
        );
        let laughs = (1..12).fold("a0: &a0 lol\n".to_owned(), |text, n| {
            text + &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))
        });
        assert_eq!(refused(&app, "laughs", document(laughs)).await, "INVALID_DOCUMENT");
        let remote = json!({"openapi": "3.1.0", "paths": {"/a": {"$ref": "http://169.254.169.254/latest"}}});
        assert_eq!(refused(&app, "remote", document(remote.to_string())).await, "INVALID_DOCUMENT");
        assert_eq!(refused(&app, "deep", document("[".repeat(500_000))).await, "INVALID_DOCUMENT");
        assert_eq!(refused(&app, "old", document("swagger: '2.0'".into())).await, "INVALID_DOCUMENT");
        let too_large = plugins::create(&app.app, &app.caller, new("huge", document("x".repeat(1_000_001)))).await.unwrap_err();
        assert_eq!(too_large.fields[0].field, "source.document");
        let other = Caller::user(new_id(), Role::User);
        assert!(plugins::create(&app.app, &other, Change::default()).await.unwrap_err().fields.len() == 2);
    }
}
