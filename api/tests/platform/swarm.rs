//! Agents that hand over to each other.
use runmill_testkit::model_server::{ModelServer, Reply, Request};
use serde_json::{Value, json};

use crate::{
    agent_chat::{agent, frames, text},
    support::{TestPlatform, databases, each},
};

/// Ada hands over to Eva when she can; Eva answers.
fn hand_over(request: &Request) -> Reply {
    let who = request.last("system");
    let tools = request.body["tools"].as_array().cloned().unwrap_or_default();
    let offered = tools.iter().find(|t| t["function"]["name"] == "hand_over");
    match offered {
        Some(tool) if who == "Ada" => {
            assert_eq!(tool["function"]["parameters"]["properties"]["agent"]["enum"], json!(["Eva"]));
            Reply::tool_calls([("hand_over", json!({ "agent": "Eva", "message": "you know better" }))])
        }
        _ => Reply::text(&format!("{who} answers")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_hand_over_until_one_answers() {
    for database in databases().await {
        let platform = TestPlatform::with_model(database, ModelServer::with(hand_over).await.unwrap(), |_| {}).await;
        let (ada, eva) = (agent(&platform, "Ada").await, agent(&platform, "Eva").await);
        let bob = platform.as_("bob");
        let body = json!({ "message": "who knows?", "agent_ids": [ada, eva], "session_id": "s" });
        let (status, answer) = bob.post("/swarm/run", body.clone()).await;
        assert_eq!((status, &answer["content"]), (200, &json!("Eva answers")), "{}: {answer}", platform.name());
        let ids: Vec<_> = answer["participants"].as_array().unwrap().iter().map(|p| p["agent_id"].as_str().unwrap()).collect();
        assert_eq!(ids, [&ada, &eva]);
        let told = platform.model.requests()[1].user();
        assert!(told.starts_with("who knows?") && told.contains("Ada, handing over to Eva\nyou know better"), "{told}");

        let told = frames(&mut bob.stream("/swarm/run/stream", body).await).await;
        assert_eq!(text(&told), "Eva answers");
        let (_, kind, done) = told.last().unwrap();
        assert_eq!((kind.as_str(), done["participants"].as_array().map(Vec::len)), ("done", Some(2)), "{done}");
        // The same request with what was seen goes on after it.
        let again = bob.request(reqwest::Method::POST, "/swarm/run/stream").header("Last-Event-ID", told[0].0.clone());
        let again = again.json(&json!({ "message": "who knows?", "agent_ids": [ada, eva] }));
        let rest = frames(&mut runmill_testkit::http_client::Sse::open(again).await).await;
        assert_eq!(rest, told[1..]);
        assert_eq!(platform.model.counts().received, 4, "no third run");
        // The last turn has to answer.
        let (_, answer) = bob.post("/swarm/run", json!({ "message": "go", "agent_ids": [ada, eva], "max_rounds": 1 })).await;
        assert_eq!(answer["content"], "Ada answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused() {
    for platform in each(|_| {}).await {
        let (ada, bob) = (agent(&platform, "Ada").await, platform.as_("bob"));
        for path in ["/swarm/run", "/swarm/run/stream"] {
            let cases = [
                (json!({ "agent_ids": [ada] }), "message"),
                (json!({ "message": "x" }), "agent_ids"),
                (json!({ "message": "x", "agent_ids": [] }), "agent_ids"),
                (json!({ "message": "x", "agent_ids": [ada, ada] }), "agent_ids.1"),
                (json!({ "message": "x", "agent_ids": [ada], "max_rounds": 0 }), "max_rounds"),
                (json!({ "message": "x", "agent_ids": [ada], "max_rounds": 11 }), "max_rounds"),
            ];
            for (body, field) in cases {
                let (status, refused) = bob.post(path, body.clone()).await;
                let named: Vec<&Value> = refused["details"].as_array().unwrap().iter().map(|d| &d["field"]).collect();
                assert!(status == 422 && named.contains(&&json!(field)), "{body}: {status} {refused}");
            }
            let body = json!({ "message": "x", "agent_ids": [ada] });
            assert_eq!(platform.as_("eve").post(path, body.clone()).await.0, 404, "another's draft");
            let with = json!({ "message": "x", "agent_ids": [ada], "aggregator": "01900000-0000-7000-8000-000000000001" });
            assert_eq!(bob.post(path, with).await.0, 404);
        }
    }
}
