use std::time::Duration;

use runmill_shared::config::Config;
use runmill_testkit::{
    http_client::soon,
    http_server::{HttpServer, Response},
    model_server::Reply,
};
use serde_json::{Value, json};

use crate::{
    approvals::ask,
    support::{Session, TestPlatform, each},
};

fn strings<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list["items"].as_array().unwrap().iter().map(|n| n[field].as_str().unwrap()).collect()
}

fn fields(error: &Value) -> Vec<&str> {
    error["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect()
}

/// The notifications of that kind, once there are so many.
async fn told(session: &Session<'_>, kind: &str, count: usize) -> Value {
    let path = format!("/notifications?kind={kind}");
    let asked = async {
        loop {
            let (status, list) = session.get(&path).await;
            assert_eq!(status, 200, "{list}");
            if list["items"].as_array().unwrap().len() == count {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(kind, asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_listed_read_and_deleted_by_whom_they_are_for() {
    for platform in each(|_| {}).await {
        ask(&platform, "bob", &["one", "two", "three", "four", "five"]).await;
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let (_, list) = bob.get("/notifications").await;
        assert_eq!(strings(&list, "body"), ["five", "four", "three", "two", "one"], "{}", platform.name());
        assert_eq!((&list["total"], &list["next_cursor"]), (&json!(5), &Value::Null));
        let newest = &list["items"][0];
        assert_eq!((&newest["kind"], &newest["read"]), (&json!("approval_wanted"), &json!(false)));
        let approvals = bob.get("/approval?search=five").await.1;
        assert_eq!(newest["subject"], json!({ "type": "approval", "id": approvals["items"][0]["id"] }));
        // Page by page, whatever comes meanwhile.
        let (_, first) = bob.get("/notifications?page_size=2").await;
        ask(&platform, "bob", &["six"]).await;
        let (mut seen, mut cursor) = (strings(&first, "body").join(" "), first["next_cursor"].clone());
        while let Some(at) = cursor.as_str() {
            let (_, next) = bob.get(&format!("/notifications?page_size=2&cursor={at}")).await;
            seen = format!("{seen} {}", strings(&next, "body").join(" "));
            cursor = next["next_cursor"].clone();
        }
        assert_eq!(seen, "five four three two one", "{}", platform.name());
        assert_eq!(strings(&bob.get("/notifications?page=2&page_size=4").await.1, "body"), ["two", "one"]);
        // Reading.
        assert_eq!(bob.get("/notifications/unread-count").await.1, json!({ "count": 6 }));
        let id = newest["id"].as_str().unwrap();
        let path = format!("/notifications/{id}/read");
        assert_eq!(eve.put(&path, json!({})).await.0, 404);
        let (status, read) = bob.put(&path, json!({})).await;
        assert_eq!((status, &read["read"], &read["id"]), (200, &json!(true), &json!(id)));
        assert_eq!(bob.put(&path, json!({})).await.1["read_at"], read["read_at"], "it stays read since then");
        assert_eq!(strings(&bob.get("/notifications?status=read").await.1, "body"), ["five"]);
        assert_eq!(bob.get("/notifications?status=unread").await.1["total"], 5);
        assert_eq!(eve.put("/notifications/read-all", json!({})).await.1, json!({ "count": 0 }));
        assert_eq!(bob.put("/notifications/read-all", json!({})).await, (200, json!({ "count": 5 })));
        assert_eq!(bob.get("/notifications/unread-count").await.1, json!({ "count": 0 }));
        // Deleting.
        let path = format!("/notifications/{id}");
        assert_eq!(eve.delete(&path).await.0, 404);
        assert_eq!((bob.delete(&path).await.0, bob.delete(&path).await.0), (204, 404));
        assert_eq!(bob.get("/notifications").await.1["total"], 5);
        assert_eq!(eve.get("/notifications").await.1["total"], 0);
        let (status, error) = bob.get("/notifications?status=new&kind=all&cursor=x&sort=id").await;
        assert_eq!((status, fields(&error)), (422, vec!["status", "sort", "kind", "cursor"]), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_execution_in_the_background_is_told() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let agent = bob.create("/agents", json!({ "name": "Ada" })).await;
        let path = format!("/agents/{}/execute", agent["id"].as_str().unwrap());
        let (_, done) = bob.post(&path, json!({ "input": "hi" })).await;
        let list = told(&bob, "run_ended", 1).await;
        assert_eq!(
            list["items"][0]["subject"],
            json!({ "type": "execution", "id": done["execution_id"] }),
            "{}",
            platform.name()
        );
        assert_eq!(list["items"][0]["body"], "ok");
        platform.model.script(Reply::status(401));
        bob.post(&path, json!({ "input": "hi", "mode": "sequential" })).await;
        let list = told(&bob, "run_ended", 2).await;
        assert!(list["items"][0]["title"].as_str().unwrap().contains("failed"), "{list}");
        // Whoever talks to an agent waits for the answer.
        let chat = format!("/agent-chat/{}", agent["id"].as_str().unwrap());
        assert_eq!(bob.post(&chat, json!({ "message": "hi" })).await.0, 200);
        assert_eq!(bob.get("/notifications").await.1["total"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_made_changed_and_deleted_and_never_tell_their_secret_again() {
    for platform in each(|config: &mut Config| config.notifications.max_channels = 3).await {
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let hook = json!({ "name": "hook", "kind": "webhook", "target": "https://example.org/hook", "kinds": ["message"] });
        let made = bob.create("/notification-channels", hook.clone()).await;
        let secret = made["secret"].as_str().unwrap();
        assert!(secret.starts_with("whsec_") && secret.len() > 40, "{made}");
        assert_eq!((&made["enabled"], &made["kinds"], &made["version"]), (&json!(true), &json!(["message"]), &json!(1)));
        let path = format!("/notification-channels/{}", made["id"].as_str().unwrap());
        let (_, shown) = bob.get(&path).await;
        let (_, list) = bob.get("/notification-channels").await;
        assert!(shown["secret"].is_null() && shown["name"] == "hook", "{}: {shown}", platform.name());
        assert_eq!((&list["items"][0], &list["total"]), (&shown, &json!(1)));
        let (status, error) = bob.post("/notification-channels", hook).await;
        assert_eq!((status, &error["error"]), (409, &json!("CHANNEL_EXISTS")));
        let own = json!({ "name": "own", "kind": "webhook", "target": "http://example.org", "secret": secret });
        assert_eq!(bob.create("/notification-channels", own).await["secret"], secret);
        // Partial, and not over somebody else's change.
        let (status, changed) = bob.put(&path, json!({ "version": 1, "enabled": false, "kinds": null })).await;
        assert_eq!((status, &changed["enabled"], &changed["kinds"]), (200, &json!(false), &Value::Null), "{changed}");
        assert_eq!((&changed["target"], &changed["version"]), (&json!("https://example.org/hook"), &json!(2)));
        let (status, error) = bob.put(&path, json!({ "version": 1, "name": "late" })).await;
        assert_eq!((status, &error["error"]), (409, &json!("VERSION_CONFLICT")));
        let bad =
            json!({ "name": " ", "kind": "pigeon", "target": "ftp://x", "kinds": ["message", "gossip"], "secret": "short" });
        let (status, error) = bob.post("/notification-channels", bad).await;
        assert_eq!((status, fields(&error)), (422, vec!["kind", "name", "target", "kinds.1", "secret"]), "{error}");
        let (status, error) =
            bob.post("/notification-channels", json!({ "name": "m", "kind": "email", "target": "a@b.c" })).await;
        assert_eq!((status, fields(&error)), (422, vec!["kind"]));
        assert!(error["message"].as_str().unwrap().contains("smtp_url"), "{error}");
        let (status, error) = bob.put(&path, json!({ "kind": "email", "kinds": [] })).await;
        assert_eq!((status, fields(&error)), (422, vec!["kind", "kinds"]));
        for n in 2..4 {
            let body = json!({ "name": format!("n{n}"), "kind": "webhook", "target": "https://example.org" });
            let (status, made) = bob.post("/notification-channels", body).await;
            assert_eq!(status, if n == 2 { 201 } else { 409 }, "{made}");
        }
        assert_eq!(eve.get(&path).await.0, 404);
        assert_eq!((eve.put(&path, json!({ "name": "x" })).await.0, eve.delete(&path).await.0), (404, 404));
        assert_eq!(eve.act(&format!("{path}/test")).await.0, 404);
        assert_eq!((bob.delete(&path).await.0, bob.delete(&path).await.0, bob.get(&path).await.0), (204, 404, 404));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_tested_and_takes_what_is_told() {
    let server = HttpServer::start(|_| Response::new(200, ""));
    let host = server.url.trim_start_matches("http://").to_owned();
    for platform in each(|config: &mut Config| config.security.allow_private_hosts = vec![host.clone()]).await {
        let before = server.requests().len();
        let bob = platform.as_("bob");
        let hook = json!({ "name": "hook", "kind": "webhook", "target": server.url, "kinds": ["approval_wanted"] });
        let made = bob.create("/notification-channels", hook).await;
        let (status, started) = bob.act(&format!("/notification-channels/{}/test", made["id"].as_str().unwrap())).await;
        assert_eq!((status, &started["status"], &started["task_id"]), (202, &json!("queued"), &started["execution_id"]));
        let run = platform.ended("bob", started["execution_id"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(run["status"], "succeeded", "{}: {run}", platform.name());
        let (_, execution) = bob.get(&format!("/executions/{}", started["execution_id"].as_str().unwrap())).await;
        assert_eq!((&execution["kind"], &execution["output"]), (&json!("delivery"), &json!({ "status": 200 })), "{execution}");
        assert_eq!(bob.get("/notifications/unread-count").await.1["count"], 0, "a test is nothing to read");
        ask(&platform, "bob", &["well?"]).await;
        let sent = async {
            while server.requests().len() < before + 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the webhook", sent).await;
        let types: Vec<Value> = server.requests()[before..].iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
        assert_eq!((&types[0]["type"], &types[1]["type"]), (&json!("test"), &json!("approval_wanted")));
        assert_eq!(types[1]["data"]["body"], "well?");
    }
}

async fn only<'a>(platform: &'a TestPlatform, name: &str) -> (Session<'a>, Value) {
    let session = platform.as_(name);
    let list = session.get("/approval").await.1;
    (session, list)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_decides_what_was_escalated_and_nothing_else() {
    for platform in each(|config: &mut Config| config.approvals.escalate_after = Duration::ZERO).await {
        let asked = ask(&platform, "bob", &["mine"]).await;
        let path = format!("/approval/{}/resolve", asked["items"][0]["id"].as_str().unwrap());
        assert_eq!(asked["items"][0]["escalated"], false);
        let (ann, list) = only(&platform, "ann").await;
        assert_eq!((&list["total"], ann.post(&path, json!({ "decision": "approve" })).await.0), (&json!(0), 404));
    }
    for platform in each(|config: &mut Config| config.approvals.escalate_after = Duration::from_millis(50)).await {
        let asked = ask(&platform, "bob", &["anybody?"]).await;
        let path = format!("/approval/{}/resolve", asked["items"][0]["id"].as_str().unwrap());
        let (ann, bob) = (platform.as_("ann"), platform.as_("bob"));
        let escalated = told(&ann, "approval_escalated", 1).await;
        assert_eq!(escalated["items"][0]["subject"]["id"], asked["items"][0]["id"], "{}", platform.name());
        told(&bob, "approval_escalated", 1).await;
        let (_, list) = only(&platform, "ann").await;
        assert_eq!((&list["total"], &list["items"][0]["escalated"]), (&json!(1), &json!(true)));
        let (eve, none) = only(&platform, "eve").await;
        assert_eq!((&none["total"], eve.post(&path, json!({ "decision": "approve" })).await.0), (&json!(0), 404));
        let (status, resolved) = ann.post(&path, json!({ "decision": "approve", "comment": "go" })).await;
        let me = ann.get("/auth/me").await.1;
        assert_eq!((status, &resolved["resolved_by"]), (200, &me["id"]), "{resolved}");
        assert_eq!(bob.post(&path, json!({ "decision": "reject" })).await.0, 409);
        assert_eq!(bob.get("/approval").await.1["items"][0]["resolved_by"], me["id"]);
    }
}
