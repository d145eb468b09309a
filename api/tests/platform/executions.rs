//! Executing agents in the background, and what became of them.
use std::time::Duration;

use runmill_testkit::{
    http_client::soon,
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::{Value, json};

use crate::{
    agent_chat::{agent, who_speaks},
    support::{Session, TestPlatform, databases, each},
};

/// Executes, and answers the execution once it has ended.
async fn execute(platform: &TestPlatform, agent: &str, body: Value) -> Value {
    let bob = platform.as_("bob");
    let (status, started) = bob.post(&format!("/agents/{agent}/execute"), body.clone()).await;
    assert_eq!((status, &started["status"]), (202, &json!("queued")), "{body}: {started}");
    assert_eq!(started["execution_id"], started["task_id"]);
    let id = started["execution_id"].as_str().unwrap();
    platform.ended("bob", id.parse().unwrap()).await;
    let (status, execution) = bob.get(&format!("/executions/{id}")).await;
    assert_eq!(status, 200, "{execution}");
    execution
}

fn keys(execution: &Value) -> Vec<&str> {
    execution["steps"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_executed_in_each_mode() {
    for database in databases().await {
        let platform = TestPlatform::with_model(database, ModelServer::with(who_speaks).await.unwrap(), |_| {}).await;
        let (ada, eva) = (agent(&platform, "Ada").await, agent(&platform, "Eva").await);
        let alone = execute(&platform, &ada, json!({ "input": "hi", "session_id": "s" })).await;
        assert_eq!((&alone["kind"], &alone["status"]), (&json!("agent"), &json!("completed")), "{}: {alone}", platform.name());
        assert_eq!((&alone["input"], &alone["output"]["content"]), (&json!({ "message": "hi" }), &json!("Ada speaks")));
        assert_eq!((&alone["session_id"], &alone["agent_id"]), (&json!("s"), &json!(ada)));
        assert!(alone["usage"]["total_tokens"].as_u64() > Some(0) && alone["finished_at"].is_string(), "{alone}");
        assert_eq!((keys(&alone), &alone["steps"][0]["status"]), (vec!["model:0"], &json!("completed")));
        for (mode, steps, content) in [
            ("sequential", vec!["member:0:0", "member:0:1"], "Eva speaks"),
            ("pipeline", vec!["member:0:0", "member:0:1"], "Eva speaks"),
            ("debate", vec!["member:0:0", "member:0:1", "member:1:0"], "Ada speaks"),
        ] {
            let rounds = if mode == "debate" { json!(1) } else { Value::Null };
            let body = json!({ "input": { "topic": "tea" }, "mode": mode, "agent_ids": [eva], "rounds": rounds });
            let execution = execute(&platform, &ada, body).await;
            let got = (&execution["kind"], keys(&execution), &execution["output"]["content"]);
            assert_eq!(got, (&json!("team"), steps, &json!(content)), "{mode}: {execution}");
            assert_eq!(execution["input"]["message"], "{\"topic\":\"tea\"}");
            let children = execution["children"].as_array().unwrap();
            assert!(children.iter().all(|c| c["status"] == "completed"), "{execution}");
            assert_eq!((children.len(), &children[0]["id"]), (keys(&execution).len(), &execution["steps"][0]["execution_id"]));
        }
        let nodes = json!([{ "id": "x", "type": "agent", "agent_id": eva }]);
        let graph = execute(&platform, &ada, json!({ "input": "go", "mode": "graph", "nodes": nodes })).await;
        assert_eq!((keys(&graph), &graph["output"]["content"]), (vec!["node:x"], &json!("Eva speaks")), "{graph}");
        // Without nodes it is the agent's own workflow.
        let workflow = json!({
            "nodes": [{ "id": "start", "type": "start" }, { "id": "me", "type": "agent" }, { "id": "she", "type": "agent", "agent_id": eva }],
            "edges": [{ "source": "start", "target": "me" }, { "source": "me", "target": "she" }],
        });
        assert_eq!(platform.as_("bob").put(&format!("/agents/{ada}"), json!({ "workflow_config": workflow })).await.0, 200);
        let graph = execute(&platform, &ada, json!({ "input": "go", "mode": "graph" })).await;
        assert_eq!((keys(&graph), &graph["output"]["content"]), (vec!["node:me", "node:she"], &json!("Eva speaks")), "{graph}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_executed_is_its_owners_alone() {
    for platform in each(|_| {}).await {
        let (ada, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let path = format!("/agents/{ada}/execute");
        platform.model.script(Reply::status(401));
        let failed = execute(&platform, &ada, json!({ "input": "hi" })).await;
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("MODEL_AUTH")), "{failed}");
        let (status, refused) = platform.as_("eve").get(&format!("/executions/{}", failed["id"].as_str().unwrap())).await;
        assert_eq!((status, &refused["error"]), (404, &json!("RUN_NOT_FOUND")), "{}", platform.name());
        assert_eq!(bob.get("/executions/01900000-0000-7000-8000-000000000001").await.0, 404);
        for mode in ["agent", "sequential", "graph"] {
            assert_eq!(platform.as_("eve").post(&path, json!({ "input": "hi", "mode": mode })).await.0, 404, "{mode}");
        }
        for (body, field) in [
            (json!({}), "input"),
            (json!({ "input": "" }), "input"),
            (json!({ "input": "x", "mode": "vote" }), "mode"),
            (json!({ "input": "x", "agent_ids": [ada] }), "agent_ids"),
            (json!({ "input": "x", "mode": "debate" }), "agent_ids"),
            (json!({ "input": "x", "mode": "sequential", "rounds": 3 }), "rounds"),
            (json!({ "input": "x", "mode": "graph" }), "nodes"),
        ] {
            let (status, refused) = bob.post(&path, body.clone()).await;
            assert_eq!((status, &refused["details"][0]["field"]), (422, &json!(field)), "{body}: {refused}");
        }
        let unknown = json!({ "input": "x", "mode": "sequential", "agent_ids": ["01900000-0000-7000-8000-000000000001"] });
        assert_eq!(bob.post(&path, unknown).await.0, 404);
    }
}

/// Runs of bob's, oldest first: two of Ada, one of Eva.
async fn several(platform: &TestPlatform) -> (String, Vec<String>) {
    let (ada, eva) = (agent(platform, "Ada").await, agent(platform, "Eva").await);
    let mut ids = Vec::new();
    for (agent, session) in [(&ada, "s1"), (&ada, "s2"), (&eva, "s1")] {
        let body = json!({ "agent_id": agent, "input": { "topic": session }, "session_id": session });
        let (status, started) = platform.as_("bob").post("/executions", body).await;
        assert_eq!(status, 202, "{started}");
        let id = started["execution_id"].as_str().unwrap().to_owned();
        platform.ended("bob", id.parse().unwrap()).await;
        ids.push(id);
    }
    (ada, ids)
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_listed_newest_first_by_what_they_are_and_page_by_page() {
    for platform in each(|_| {}).await {
        let (ada, all) = several(&platform).await;
        let bob = platform.as_("bob");
        let (status, page) = bob.get("/executions").await;
        let newest: Vec<_> = all.iter().rev().map(String::as_str).collect();
        assert_eq!((status, ids(&page), &page["total"]), (200, newest.clone(), &json!(3)), "{}: {page}", platform.name());
        assert!(page["items"][0]["steps"].is_null() && page["next_cursor"].is_null(), "{page}");
        assert_eq!(page["items"][0]["input"], json!({ "message": "{\"topic\":\"s1\"}" }));
        let created = page["items"][1]["created_at"].as_str().unwrap().replace('+', "%2B");
        for (query, expected) in [
            (format!("agent_id={ada}"), vec![1, 2]),
            ("session_id=s1".to_owned(), vec![0, 2]),
            ("session_id=nowhere".to_owned(), vec![]),
            (format!("from={created}"), vec![0, 1]),
            (format!("to={created}"), vec![2]),
            ("status=completed&kind=agent".to_owned(), vec![0, 1, 2]),
            ("status=failed".to_owned(), vec![]),
            ("kind=goal".to_owned(), vec![]),
            ("goal_id=01900000-0000-7000-8000-000000000001".to_owned(), vec![]),
            ("page=2&page_size=2".to_owned(), vec![2]),
        ] {
            let (status, page) = bob.get(&format!("/executions?{query}")).await;
            let expected: Vec<_> = expected.into_iter().map(|n: usize| newest[n]).collect();
            assert_eq!((status, ids(&page)), (200, expected), "{}: {query}: {page}", platform.name());
        }
        let (_, first) = bob.get("/executions?page_size=2").await;
        let cursor = first["next_cursor"].as_str().unwrap();
        let (_, rest) = bob.get(&format!("/executions?page_size=2&cursor={cursor}")).await;
        assert_eq!((ids(&rest), rest["total"].is_null(), rest["next_cursor"].is_null()), (vec![newest[2]], true, true), "{rest}");
        let (status, refused) =
            bob.get("/executions?status=succeeded&kind=x&goal_id=x&from=x&to=x&cursor=x&sort=name&search=x").await;
        let fields: Vec<_> = refused["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
        assert_eq!((status, fields), (422, vec!["status", "sort", "search", "kind", "goal_id", "cursor", "from", "to"]));
        assert_eq!(platform.as_("eve").get("/executions").await.1["total"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_execution_names_an_agent_that_its_owner_may_run_and_has_an_input() {
    for platform in each(|_| {}).await {
        let (ada, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        let nobody = "01900000-0000-7000-8000-000000000001";
        for (body, status, what) in [
            (json!({ "agent_id": ada, "workflow_id": nobody }), 422, vec!["input"]),
            (json!({ "agent_id": ada, "workflow_id": nobody, "input": "" }), 422, vec!["agent_id", "workflow_id", "input"]),
            (json!({ "input": "hi" }), 422, vec!["agent_id", "workflow_id"]),
            (json!({ "agent_id": ada, "input": "hi", "session_id": "" }), 422, vec!["session_id"]),
            (json!({ "workflow_id": nobody, "input": "hi" }), 404, vec!["WORKFLOW_NOT_FOUND"]),
            (json!({ "agent_id": nobody, "input": "hi" }), 404, vec!["AGENT_NOT_FOUND"]),
        ] {
            let (got, refused) = bob.post("/executions", body.clone()).await;
            let details = refused["details"].as_array().into_iter().flatten().map(|d| d["field"].as_str().unwrap());
            let named: Vec<_> = if status == 422 { details.collect() } else { vec![refused["error"].as_str().unwrap()] };
            assert_eq!((got, named), (status, what), "{body}: {refused}");
        }
        assert_eq!(platform.as_("eve").post("/executions", json!({ "agent_id": ada, "input": "hi" })).await.0, 404);
    }
}

/// Once it waits because it was paused.
async fn held_at(bob: &Session<'_>, path: &str) -> Value {
    let parked = async {
        loop {
            let (_, execution) = bob.get(path).await;
            if execution["waiting_for"] == "paused" {
                return execution;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let parked = soon("it is held", parked).await;
    assert_eq!((&parked["status"], &parked["paused"]), (&json!("waiting"), &json!(true)), "{parked}");
    parked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_that_is_held_calls_no_further_member_until_it_goes_on() {
    for database in databases().await {
        let gate = Gate::new();
        let held = gate.clone();
        let speak = move |request: &Request| match request.last("system").as_str() {
            "Ada" => Reply::text("Ada speaks").hold_after(1, &held),
            who => Reply::text(&format!("{who} speaks")),
        };
        let platform = TestPlatform::with_model(database, ModelServer::with(speak).await.unwrap(), |_| {}).await;
        let (ada, eva, bob) = (agent(&platform, "Ada").await, agent(&platform, "Eva").await, platform.as_("bob"));
        let body = json!({ "input": "hi", "mode": "sequential", "agent_ids": [eva] });
        let (_, started) = bob.post(&format!("/agents/{ada}/execute"), body).await;
        let id = started["execution_id"].as_str().unwrap().to_owned();
        let path = format!("/executions/{id}");
        platform.model.until(|c| c.received == 1).await.unwrap();
        let (status, paused) = bob.act(&format!("{path}/pause")).await;
        assert_eq!((status, &paused["paused"]), (200, &json!(true)), "{}: {paused}", platform.name());
        gate.open();
        let parked = held_at(&bob, &path).await;
        assert_eq!(parked["children"].as_array().map(Vec::len), Some(1), "{}: {parked}", platform.name());
        assert_eq!(platform.model.counts().received, 1);
        assert_eq!(bob.act(&format!("{path}/resume")).await.0, 200);
        assert_eq!(platform.ended("bob", id.parse().unwrap()).await["status"], "succeeded");
        let (_, ended) = bob.get(&path).await;
        assert_eq!(
            (&ended["output"]["content"], keys(&ended)),
            (&json!("Eva speaks"), vec!["member:0:0", "member:0:1"]),
            "{ended}"
        );
        assert_eq!(platform.model.counts().received, 2, "{}", platform.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_held_goes_on_is_cancelled_and_retried_from_the_step_that_failed() {
    for platform in each(|_| {}).await {
        let (ada, bob, gate) = (agent(&platform, "Ada").await, platform.as_("bob"), Gate::new());
        platform
            .model
            .script(Reply::tool_calls([("calculator", json!({ "expression": "6*7" }))]).hold_after(1, &gate))
            .script(Reply::status(401))
            .script(Reply::text("forty-two"));
        let (_, started) = bob.post("/executions", json!({ "agent_id": ada, "input": "hi" })).await;
        let id = started["execution_id"].as_str().unwrap().to_owned();
        let path = format!("/executions/{id}");
        platform.model.until(|c| c.received == 1).await.unwrap();
        let (status, refused) = bob.act(&format!("{path}/resume")).await;
        assert_eq!((status, &refused["error"]), (409, &json!("EXECUTION_NOT_PAUSED")), "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("running"), "{refused}");
        assert_eq!(bob.act(&format!("{path}/retry")).await.0, 409);
        let (status, held) = bob.act(&format!("{path}/pause")).await;
        assert_eq!((status, &held["status"], &held["paused"]), (200, &json!("running"), &json!(true)), "{held}");
        gate.open();
        held_at(&bob, &path).await;
        assert_eq!(bob.act(&format!("{path}/resume")).await.0, 200);
        let run = platform.ended("bob", id.parse().unwrap()).await;
        assert_eq!(run["status"], "failed", "{run}");
        for action in ["pause", "resume", "cancel"] {
            let (status, refused) = bob.act(&format!("{path}/{action}")).await;
            assert_eq!((status, &refused["error"]), (409, &json!("EXECUTION_ENDED")), "{action}: {refused}");
            assert!(refused["message"].as_str().unwrap().contains("failed"), "{refused}");
        }
        let (status, again) = bob.act(&format!("{path}/retry")).await;
        assert_eq!(status, 202, "{again}");
        let retried = again["execution_id"].as_str().unwrap();
        assert_eq!(platform.ended("bob", retried.parse().unwrap()).await["status"], "succeeded");
        let (_, retried) = bob.get(&format!("/executions/{retried}")).await;
        assert_eq!((&retried["retry_of"], &retried["output"]["content"]), (&json!(id), &json!("forty-two")), "{retried}");
        let inherited: Vec<_> = retried["steps"].as_array().unwrap().iter().map(|s| s["inherited"].as_bool().unwrap()).collect();
        assert_eq!(inherited, [true, true, false], "{}: {retried}", platform.name());
        assert_eq!(platform.model.counts().received, 3, "{}", platform.name());
        // One that is held is cancelled as any other.
        let gate = Gate::new();
        platform.model.script(Reply::tool_calls([("calculator", json!({ "expression": "1" }))]).hold_after(1, &gate));
        let (_, started) = bob.post("/executions", json!({ "agent_id": ada, "input": "hi" })).await;
        let path = format!("/executions/{}", started["execution_id"].as_str().unwrap());
        assert_eq!(bob.act(&format!("{path}/pause")).await.0, 200);
        let (status, cancelled) = bob.act(&format!("{path}/cancel")).await;
        assert_eq!(
            (status, &cancelled["status"], &cancelled["paused"]),
            (200, &json!("cancelled"), &json!(false)),
            "{cancelled}"
        );
        gate.open();
    }
}
