use std::time::{Duration, Instant};

use runmill_testkit::model_server::Reply;
use serde_json::{Value, json};

use crate::support::{Session, TestPlatform, each};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs of an agent that asks a user these questions; answers the user's approvals when all have been asked.
pub async fn ask(platform: &TestPlatform, name: &str, questions: &[&str]) -> Value {
    let session = platform.as_(name);
    let agent = session.create("/agents", json!({ "name": "Asker", "include_tools": ["ask_human"] })).await;
    for question in questions {
        platform.model.script(Reply::tool_calls([("ask_human", json!({ "question": question }))]));
        let run = json!({
            "threadId": question, "runId": question, "messages": [{ "id": question, "role": "user", "content": "go" }],
            "forwardedProps": { "agentId": agent["id"] },
        });
        let (status, accepted) = session.post("/agent/runs", run).await;
        assert_eq!(status, 200, "{accepted}");
        pending(&session, question).await;
    }
    session.get("/approval").await.1
}

/// The approval of that reason, once it waits for a decision.
async fn pending(session: &Session<'_>, reason: &str) -> Value {
    let begun = Instant::now();
    loop {
        let (status, list) = session.get("/approval?status=pending").await;
        assert_eq!(status, 200, "{list}");
        if let Some(found) = list["items"].as_array().unwrap().iter().find(|a| a["reason"] == reason) {
            return found.clone();
        }
        assert!(begun.elapsed() < LIMIT, "nobody asks {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_ones_come_first_and_only_their_owners() {
    for platform in each(|_| {}).await {
        let list = ask(&platform, "bob", &["one", "two", "three"]).await;
        let bob = platform.as_("bob");
        let reasons = |list: &Value| -> Vec<String> {
            list["items"].as_array().unwrap().iter().map(|a| a["reason"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(reasons(&list), ["three", "two", "one"], "{}", platform.name());
        assert_eq!((&list["total"], &list["page"], &list["page_size"]), (&json!(3), &json!(1), &json!(20)));
        let newest = &list["items"][0];
        assert_eq!(
            (&newest["kind"], &newest["status"], &newest["subject"]["question"]),
            (&json!("question"), &json!("pending"), &json!("three"))
        );
        let path = format!("/approval/{}/resolve", newest["id"].as_str().unwrap());
        let (status, resolved) = bob.post(&path, json!({ "decision": "approve", "comment": "yes" })).await;
        assert_eq!((status, &resolved["status"], &resolved["comment"]), (200, &json!("approved"), &json!("yes")), "{resolved}");
        assert_eq!(reasons(&bob.get("/approval").await.1), ["two", "one", "three"]);
        assert_eq!(reasons(&bob.get("/approval?page=2&page_size=2").await.1), ["three"]);
        assert_eq!(reasons(&bob.get("/approval?status=approved").await.1), ["three"]);
        assert_eq!(reasons(&bob.get("/approval?search=TW").await.1), ["two"]);
        assert_eq!(platform.as_("eve").get("/approval").await.1["total"], 0);
        // The run goes on, and its log says so.
        let log = bob.request(reqwest::Method::GET, "/agent/runs/three/events?Last-Event-ID=0").send().await.unwrap();
        let log = log.text().await.unwrap();
        let at = |kind: &str| log.find(&format!("event: {kind}\n")).unwrap_or_else(|| panic!("no {kind} in {log}"));
        assert!(at("approval.requested") < at("run.waiting") && at("run.waiting") < at("approval.resolved"));
        assert!(at("approval.resolved") < at("run.finished"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_made_once_by_whom_it_is_asked_of() {
    for platform in each(|_| {}).await {
        ask(&platform, "bob", &["well"]).await;
        let bob = platform.as_("bob");
        let id = pending(&bob, "well").await["id"].as_str().unwrap().to_owned();
        let path = format!("/approval/{id}/resolve");
        let approve = json!({ "decision": "approve" });
        assert_eq!(platform.nobody().post(&path, approve.clone()).await.0, 401);
        let (status, error) = platform.as_("eve").post(&path, approve.clone()).await;
        assert_eq!((status, &error["error"]), (404, &json!("APPROVAL_NOT_FOUND")), "{}", platform.name());
        let unknown = "/approval/01890000-0000-7000-8000-000000000000/resolve";
        assert_eq!(bob.post(unknown, approve.clone()).await.0, 404);
        let long = json!({ "decision": "maybe", "comment": "x".repeat(4001) });
        let (status, error) = bob.post(&path, long).await;
        let fields: Vec<_> = error["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
        assert_eq!((status, fields.len()), (422, 2), "{error}");
        let (one, two) = tokio::join!(bob.post(&path, json!({ "decision": "reject" })), bob.post(&path, approve));
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{one:?} {two:?}");
        for bad in ["status=gone", "page=0", "page_size=101", "sort=id"] {
            assert_eq!(bob.get(&format!("/approval?{bad}")).await.0, 422, "{bad}");
        }
    }
}
