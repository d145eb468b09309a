//! Goals over HTTP: their life, their plans, and chats about them.
use std::time::Duration;

use runmill_testkit::{
    http_client::soon,
    model_server::{ModelServer, Reply, Request},
};
use serde_json::{Value, json};

use crate::support::{TestPlatform, databases, each};

/// Plans three tasks; whatever else it is asked it answers with `ok`.
fn planner(request: &Request) -> Reply {
    if !request.last("system").contains("You plan how a goal is reached") {
        return Reply::text("ok");
    }
    let tasks = json!([
        { "key": "a", "title": "first" },
        { "key": "b", "title": "second", "depends_on": ["a"] },
        { "key": "c", "title": "a part of the second", "parent": "b" },
    ]);
    Reply::text(&json!({ "tasks": tasks }).to_string())
}

async fn platforms() -> Vec<TestPlatform> {
    let mut all = Vec::new();
    for database in databases().await {
        let model = ModelServer::with(planner).await.unwrap();
        all.push(TestPlatform::with_model(database, model, |c| c.worker.reconcile = Duration::from_millis(20)).await);
    }
    all
}

async fn goal(platform: &TestPlatform, body: Value) -> String {
    platform.as_("bob").create("/goals", body).await["id"].as_str().unwrap().to_owned()
}

/// Once the goal is no longer being planned.
async fn planned(platform: &TestPlatform, id: &str) -> Value {
    let asked = async {
        loop {
            let (_, goal) = platform.as_("bob").get(&format!("/goals/{id}")).await;
            if goal["status"] != "planning" {
                return goal;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the end of the planning", asked).await
}

fn fields(refused: &Value) -> Vec<&str> {
    refused["details"].as_array().into_iter().flatten().filter_map(|d| d["field"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_kept_as_it_is_written() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let made = bob.create("/goals", json!({ "title": " Paint the fence " })).await;
        let expected = json!({ "title": "Paint the fence", "description": "", "agent_id": null, "autonomy": "auto", "deadline": null,
            "max_parallel": 4, "task_attempts": 2, "on_failure": "fail", "status": "draft", "plan_version": 0, "version": 1,
            "progress": { "done": 0, "total": 0, "percent": 0 }, "error": null, "execution_id": null });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&made[field], value, "{}: {field} of {made}", platform.name());
        }
        let path = format!("/goals/{}", made["id"].as_str().unwrap());
        let change = json!({ "description": "before winter", "deadline": "2999-01-01T00:00:00Z", "autonomy": "plan_only",
            "on_failure": "replan", "max_parallel": 2, "budget": { "max_tokens": 9 }, "version": 1 });
        let (status, changed) = bob.put(&path, change.clone()).await;
        assert_eq!((status, &changed["version"], &changed["title"]), (200, &json!(2), &json!("Paint the fence")), "{changed}");
        assert_eq!((&changed["autonomy"], &changed["max_parallel"]), (&json!("plan_only"), &json!(2)));
        let (status, stale) = bob.put(&path, change).await;
        assert_eq!((status, &stale["error"]), (409, &json!("VERSION_CONFLICT")), "{stale}");
        let (status, changed) = bob.put(&path, json!({ "budget": { "max_seconds": 5 }, "deadline": null })).await;
        assert_eq!((status, &changed["deadline"]), (200, &Value::Null), "{changed}");
        assert_eq!((&changed["budget"]["max_tokens"], &changed["budget"]["max_seconds"]), (&json!(9), &json!(5)));

        bob.create("/goals", json!({ "title": "another" })).await;
        let (_, page) = bob.get("/goals?sort=title&page_size=1&search=a").await;
        assert_eq!((&page["total"], &page["items"][0]["title"]), (&json!(2), &json!("another")), "{page}");
        assert_eq!(bob.get("/goals?status=active").await.1["total"], 0);
        assert_eq!(fields(&bob.get("/goals?status=gone&sort=cost").await.1), ["status", "sort"]);
        assert_eq!(platform.as_("eve").get("/goals").await.1["total"], 0);

        assert_eq!(bob.delete(&path).await.0, 204);
        for status in [bob.delete(&path).await.0, bob.get(&path).await.0, bob.get(&format!("{path}/tasks")).await.0] {
            assert_eq!(status, 404);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_goals_are_refused_by_all_their_fields() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let past = json!({ "title": "x", "deadline": "2001-01-01T00:00:00Z", "max_parallel": 17 });
        for (body, bad) in [
            (json!({ "title": "", "max_parallel": 0, "autonomy": "wild" }), vec!["autonomy", "max_parallel", "title"]),
            (json!({ "deadline": "tomorrow", "budget": { "max_tokens": 0 } }), vec!["budget.max_tokens", "deadline", "title"]),
            (past, vec!["deadline", "max_parallel"]),
        ] {
            let (status, refused) = bob.post("/goals", body.clone()).await;
            let mut named = fields(&refused);
            named.sort_unstable();
            assert_eq!((status, named), (422, bad), "{}: {body}: {refused}", platform.name());
        }
        let anns = platform.as_("ann").create("/agents", json!({ "name": "ann's" })).await["id"].clone();
        for agent in [anns, json!("01900000-0000-7000-8000-000000000001")] {
            let (status, refused) = bob.post("/goals", json!({ "title": "x", "agent_id": agent })).await;
            assert_eq!((status, &refused["error"]), (404, &json!("AGENT_NOT_FOUND")), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_planned_started_paused_and_cancelled() {
    for platform in platforms().await {
        let bob = platform.as_("bob");
        let path = format!("/goals/{}", goal(&platform, json!({ "title": "g", "autonomy": "plan_only" })).await);
        let id = path.trim_start_matches("/goals/").to_owned();
        for action in ["pause", "resume"] {
            let (status, refused) = bob.post(&format!("{path}/{action}"), json!({})).await;
            assert_eq!((status, &refused["error"]), (409, &json!("GOAL_STATE")), "{refused}");
            assert!(refused["message"].as_str().unwrap().contains("the goal is draft"), "{refused}");
        }
        let (status, started) = bob.post(&format!("{path}/decompose"), json!({})).await;
        assert_eq!((status, &started["status"]), (202, &json!("queued")), "{}: {started}", platform.name());
        assert_eq!(started["execution_id"], started["task_id"]);
        let goal = planned(&platform, &id).await;
        assert_eq!((&goal["status"], &goal["plan_version"]), (&json!("draft"), &json!(1)), "{goal}");
        assert_eq!(
            (&goal["progress"], &goal["plan_execution_id"]),
            (&json!({ "done": 0, "total": 3, "percent": 0 }), &started["task_id"])
        );
        platform.ended("bob", started["execution_id"].as_str().unwrap().parse().unwrap()).await;
        let (status, run) = bob.get(&format!("/executions/{}", started["execution_id"].as_str().unwrap())).await;
        assert_eq!((status, &run["kind"], &run["output"]["added"]), (200, &json!("goal_plan"), &json!(["a", "b", "c"])), "{run}");

        let (_, tree) = bob.get(&format!("{path}/tasks")).await;
        let shape: Vec<_> =
            tree.as_array().unwrap().iter().map(|t| (&t["key"], &t["status"], t["children"].as_array().unwrap().len())).collect();
        let (a, b) = (json!("a"), json!("b"));
        assert_eq!(shape, [(&a, &json!("ready"), 0), (&b, &json!("pending"), 1)], "{tree}");
        assert_eq!((&tree[1]["depends_on_keys"], &tree[1]["depends_on"][0]), (&json!(["a"]), &tree[0]["id"]));
        assert_eq!(tree[1]["children"][0]["key"], "c");

        let (status, refused) = bob.post(&format!("{path}/decompose"), json!({})).await;
        assert_eq!((status, &refused["error"]), (409, &json!("GOAL_HAS_TASKS")), "{refused}");
        let (status, replanned) = bob.post(&format!("{path}/replan"), json!({ "instructions": "the same" })).await;
        assert_eq!(status, 202, "{replanned}");
        assert_eq!(planned(&platform, &id).await["plan_version"], 2);

        for (action, status) in [("start", "active"), ("pause", "paused"), ("resume", "active")] {
            let (code, goal) = bob.post(&format!("{path}/{action}"), json!({})).await;
            assert_eq!((code, &goal["status"]), (200, &json!(status)), "{action}: {goal}");
        }
        let (status, refused) = bob.delete(&path).await;
        assert_eq!((status, &refused["error"]), (409, &json!("GOAL_ACTIVE")), "{refused}");
        let (status, goal) = bob.post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!((status, &goal["status"], &goal["progress"]["total"]), (200, &json!("cancelled"), &json!(0)), "{goal}");
        assert!(goal["finished_at"].is_string());
        let (_, tree) = bob.get(&format!("{path}/tasks")).await;
        assert!(tree.as_array().unwrap().iter().all(|t| t["status"] == "cancelled"), "{tree}");
        let (_, runs) = bob.get(&format!("/executions?goal_id={id}")).await;
        let ids: Vec<_> = runs["items"].as_array().unwrap().iter().map(|run| &run["id"]).collect();
        assert_eq!(ids, [&replanned["execution_id"], &started["execution_id"]], "{}: {runs}", platform.name());
        for action in ["start", "pause", "resume", "cancel", "decompose", "replan", "execute-async"] {
            let (status, refused) = bob.post(&format!("{path}/{action}"), json!({})).await;
            assert_eq!((status, &refused["error"]), (409, &json!("GOAL_STATE")), "{action}: {refused}");
        }
        assert_eq!(bob.delete(&path).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_twice_makes_one_run() {
    for mut platform in platforms().await {
        // What is accepted stays queued.
        platform.stop_worker().await;
        let bob = platform.as_("bob");
        let id = goal(&platform, json!({ "title": "g" })).await;
        let path = format!("/goals/{id}/execute-async");
        let all = futures::future::join_all((0..8).map(|_| bob.post(&path, json!({})))).await;
        let run = all[0].1["execution_id"].clone();
        assert!(all.iter().all(|(status, told)| *status == 202 && told["execution_id"] == run), "{}: {all:?}", platform.name());
        let (_, goal) = bob.get(&format!("/goals/{id}")).await;
        assert_eq!((&goal["status"], &goal["execution_id"]), (&json!("active"), &run), "{goal}");
        assert_eq!(bob.delete(&format!("/goals/{id}")).await.0, 409);
        assert_eq!(bob.post(&format!("/goals/{id}/cancel"), json!({})).await.0, 200);
        let ended = platform.ended("bob", run.as_str().unwrap().parse().unwrap()).await;
        assert_eq!(ended["status"], "cancelled", "{ended}");
        assert_eq!(bob.delete(&format!("/goals/{id}")).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_about_a_goal_answers_as_any_chat() {
    for platform in platforms().await {
        let bob = platform.as_("bob");
        let id = goal(&platform, json!({ "title": "Paint the fence" })).await;
        let (status, answer) = bob.post(&format!("/goals/{id}/interact"), json!({ "message": "how is it going?" })).await;
        assert_eq!((status, &answer["content"]), (200, &json!("ok")), "{}: {answer}", platform.name());
        assert_eq!(answer["session_id"], format!("goal-{id}-chat"));
        assert!(platform.model.requests()[0].last("system").contains("Paint the fence"));
        let body = json!({ "message": "and now?", "session_id": "mine" });
        assert_eq!(bob.post(&format!("/goals/{id}/interact"), body).await.1["session_id"], "mine");
        let (status, refused) = bob.post(&format!("/goals/{id}/interact"), json!({ "message": "" })).await;
        assert_eq!((status, fields(&refused)), (422, vec!["message"]));
    }
}
