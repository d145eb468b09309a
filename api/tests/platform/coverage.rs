//! The endpoints of this dialect, one line each in `endpoints.tsv`: those that are due have a route, a token is asked for, and what is
//! another's stays theirs. Sockets (`WS`) have no row in the document, and are tried. A body may name ann's resources: `$agent`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{TestPlatform, each};

struct Line {
    due: bool,
    method: &'static str,
    /// Below `/api/v1`.
    path: &'static str,
    public: bool,
    /// The resource whose id is in the path.
    id: Option<&'static str>,
    /// What bob gets with ann's ids.
    stranger: u16,
    body: Option<&'static str>,
}

fn table() -> Vec<Line> {
    let lines = include_str!("endpoints.tsv").lines().skip(1);
    lines
        .map(|line| {
            let cells: Vec<_> = line.split('\t').collect();
            let &[due, method, path, auth, id, stranger, body] = &cells[..] else { panic!("not seven cells: {line}") };
            let given = |cell: &'static str| (cell != "-").then_some(cell);
            let line = Line {
                due: due == "due",
                method,
                path,
                public: auth == "public",
                id: given(id),
                stranger: given(stranger).map_or(0, |status| status.parse().unwrap()),
                body: given(body),
            };
            assert!(!line.due || line.stranger > 0 && path.contains('{') == line.id.is_some(), "{method} {path}");
            line
        })
        .collect()
}

impl Line {
    /// Names of parameters are nobody's business.
    fn is_socket(&self) -> bool {
        self.method == "WS"
    }

    fn key(&self) -> (String, String) {
        key(self.method, &format!("/api/v1{}", self.path))
    }
}

fn key(method: &str, path: &str) -> (String, String) {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    (method.to_uppercase(), segments.collect::<Vec<_>>().join("/"))
}

/// The routes of the OpenAPI document.
fn routes() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(&runmill_api::openapi("platform").unwrap()).unwrap();
    let mut all = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        all.extend(operations.as_object().unwrap().keys().map(|method| key(method, path)));
    }
    all
}

#[test]
fn every_endpoint_that_is_due_has_a_route() {
    let routes = routes();
    let missing: Vec<_> =
        table().iter().filter(|line| line.due && !line.is_socket()).map(Line::key).filter(|key| !routes.contains(key)).collect();
    assert!(missing.is_empty(), "no route: {missing:#?}");
}

#[test]
fn every_route_has_its_line_in_the_table() {
    let known: BTreeSet<_> = table().iter().filter(|line| line.due).map(Line::key).collect();
    let unknown: Vec<_> = routes().into_iter().filter(|(_, path)| path != "/health").filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "add to endpoints.tsv: {unknown:#?}");
}

/// One of each resource, made by ann; those whose routes are not there yet are left out.
async fn resources(platform: &TestPlatform) -> BTreeMap<&'static str, String> {
    let ann = platform.as_("ann");
    let mut all = BTreeMap::new();
    let http = json!({ "method": "GET", "url": "http://127.0.0.1:9/" });
    let document = json!({ "openapi": "3.0.0", "info": { "title": "p", "version": "1" },
        "servers": [{ "url": "http://127.0.0.1:9" }], "paths": {} });
    let made = [
        ("agent", "/agents", json!({ "name": "ann's" })),
        ("api_key", "/auth/api-keys", json!({ "name": "ann's" })),
        ("goal", "/goals", json!({ "title": "ann's" })),
        ("model_config", "/model-configs", json!({ "name": "ann's", "provider": "offline", "model_name": "scripted-demo" })),
        (
            "notification_channel",
            "/notification-channels",
            json!({ "name": "ann's", "kind": "webhook", "target": "http://127.0.0.1:9/", "enabled": false }),
        ),
        (
            "plugin",
            "/plugins",
            json!({ "name": "anns", "description": "d", "source": { "type": "openapi", "document": document } }),
        ),
        ("task", "/tasks", json!({ "title": "ann's" })),
        ("schedule", "/agent-schedules", json!({ "name": "ann's", "workflow_id": uuid::Uuid::nil(), "cron": "@yearly" })),
        (
            "tool",
            "/tools",
            json!({ "name": "anns", "description": "d", "type": "http", "input_schema": { "type": "object" }, "config": http }),
        ),
    ];
    let routes = routes();
    for (name, path, body) in made {
        if routes.contains(&key("POST", &format!("/api/v1{path}"))) {
            all.insert(name, ann.create(path, body).await["id"].as_str().unwrap().to_owned());
        }
    }
    let execution = platform.converse("ann", "ann's session", "m1", json!({ "agentId": all["agent"] })).await;
    let branch = json!({ "session_id": "ann's session", "message_id": "m1" });
    all.insert("branch", ann.create("/agent-chat/branches", branch).await["id"].as_str().unwrap().to_owned());
    let asked = crate::approvals::ask(platform, "ann", &["may I?"]).await;
    all.insert("approval", asked["items"][0]["id"].as_str().unwrap().to_owned());
    let (_, told) = ann.get("/notifications?kind=approval_wanted").await;
    all.insert("notification", told["items"][0]["id"].as_str().unwrap().to_owned());
    all.insert("execution", execution.to_string());
    all.insert("message", "m1".to_owned());
    all.insert("session", "ann's session".to_owned());
    all
}

fn filled(line: &Line, resources: &BTreeMap<&str, String>) -> (String, Option<Value>) {
    let mut path = format!("/api/v1{}", line.path);
    if let Some(resource) = line.id {
        let (before, rest) = path.split_once('{').unwrap();
        let (_, after) = rest.split_once('}').unwrap();
        path = format!("{before}{}{after}", resources[resource]);
    }
    let body = line.body.map(|body| {
        let named = |text: String, (name, id): (&&str, &String)| text.replace(&format!("${name}\""), &format!("{id}\""));
        serde_json::from_str(&resources.iter().fold(body.to_owned(), named)).unwrap()
    });
    (path, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_anybodys_but_its_owners() {
    let routes = routes();
    let table: Vec<_> =
        table().into_iter().filter(|line| line.due && (line.is_socket() || routes.contains(&line.key()))).collect();
    for platform in each(|_| {}).await {
        let resources = resources(&platform).await;
        let mut wrong = Vec::new();
        for line in table.iter().filter(|line| line.is_socket()) {
            let path = filled(line, &resources).0.replace("/api/v1", "");
            let asked = [None, Some("none"), Some(platform.token("bob")), Some(platform.token("ann"))];
            let mut got = Vec::new();
            for token in asked {
                got.push(platform.socket(&path, token).await.map_or_else(|refused| refused, |_| 101));
            }
            if got != [401, 401, line.stranger, 101] {
                wrong.push(format!("socket {path}: {got:?}"));
            }
        }
        for line in table.iter().filter(|line| !line.is_socket()) {
            let (path, body) = filled(line, &resources);
            let (status, told) = platform.as_("bob").absolute(line.method, &path, body.as_ref()).await;
            let text = told.to_string();
            // Its own NOT_FOUND says that there is no such address at all.
            let unknown_address = status == 404 && told["error"] == "NOT_FOUND";
            let leaks = status < 300 && resources.values().any(|id| id.len() == 36 && text.contains(id));
            if status != line.stranger || unknown_address || leaks {
                wrong.push(format!("bob: {} {path}: {status} {text}", line.method));
            }
            let (status, told) = platform.nobody().absolute(line.method, &path, body.as_ref()).await;
            if (status == 401) == line.public || line.public && (status == 404 || status == 405) {
                wrong.push(format!("nobody: {} {path}: {status} {told}", line.method));
            }
        }
        for line in table.iter().filter(|line| line.method == "GET") {
            let (path, _) = filled(line, &resources);
            let (status, told) = platform.as_("ann").absolute("GET", &path, None).await;
            if status != 200 {
                wrong.push(format!("ann: GET {path}: {status} {told}"));
            }
        }
        assert!(wrong.is_empty(), "{}: {wrong:#?}", platform.name());
    }
}
