//! Executing agents in the background, and what became of them.
use runmill_testkit::model_server::{ModelServer, Reply};
use serde_json::{Value, json};

use crate::{
    agent_chat::{agent, who_speaks},
    support::{TestPlatform, databases, each},
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
