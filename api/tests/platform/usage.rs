//! What models cost: per call in the journal, per run in its row, per agent, model and day over `/usage`.
use std::time::Duration;

use runmill_shared::{
    config::Price,
    domain::{
        caller::{Caller, Role},
        run::{Run, RunState},
    },
    services::runs::wait,
};
use runmill_testkit::model_server::Reply;
use serde_json::{Value, json};

use crate::support::{TestPlatform, each};

/// Runs an agent through the Agent API, and answers its row once it has ended.
async fn run(platform: &TestPlatform, user: &str, run: &str, props: Value) -> Run {
    let session = platform.as_(user);
    let thread = format!("thread-{run}");
    let body = json!({
        "threadId": thread, "runId": run, "state": {}, "tools": [], "context": [], "forwardedProps": props,
        "messages": [{ "id": "1", "role": "user", "content": "hi" }],
    });
    let (status, accepted) = session.post("/agent/runs", body).await;
    assert_eq!(status, 200, "{accepted}");
    let me = session.get("/auth/me").await.1["id"].as_str().unwrap().parse().unwrap();
    let id = accepted["taskId"].as_str().unwrap().parse().unwrap();
    let caller = Caller::user(me, Role::User);
    let ended = wait::ended(&platform.app, &caller, &thread, id, Duration::from_secs(120)).await.unwrap();
    assert!(ended.state.is_ended(), "{ended:?}");
    ended
}

#[tokio::test]
async fn a_run_is_priced_and_summed_by_agent_model_and_day() {
    let priced = each(|config| {
        let price = Price { input: 1.0, cached_input: None, output: 10.0 };
        config.models.prices.insert("openai:test".into(), price);
    });
    for platform in priced.await {
        let bob = platform.as_("bob");
        platform.model.script(Reply::text("one").usage(1000, 20));
        let ended = run(&platform, "bob", "run-1", json!({})).await;
        assert_eq!(ended.state, RunState::Succeeded, "{ended:?}");
        assert_eq!(ended.usage.unwrap().cost_micros, 1000 + 200);
        platform.model.script(Reply::text("two").usage(7, 3));
        run(&platform, "bob", "run-2", json!({ "model": "openai:unpriced" })).await;
        let (status, usage) = bob.get("/usage?group_by=model").await;
        assert_eq!(status, 200, "{usage}");
        let test = json!({
            "key": "openai:test", "runs": 1, "calls": 1, "input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 20,
            "cost_micros": 1200,
        });
        assert_eq!(usage["items"][0], test);
        assert_eq!((&usage["items"][1]["key"], &usage["items"][1]["cost_micros"]), (&json!("openai:unpriced"), &json!(0)));
        let (_, by_agent) = bob.get("/usage?group_by=agent").await;
        assert_eq!((&by_agent["items"][0]["key"], &by_agent["items"][0]["runs"]), (&json!("demo"), &json!(2)), "{by_agent}");
        assert_eq!(by_agent["items"][0]["input_tokens"], 1007);
        let (_, by_day) = bob.get("/usage").await;
        let today = platform.app.clock.now().utc().format("%Y-%m-%d").to_string();
        assert_eq!((&by_day["items"][0]["key"], &by_day["items"][0]["output_tokens"]), (&json!(today), &json!(23)), "{by_day}");
        assert_eq!(bob.get("/usage?to=2020-01-01T00:00:00Z").await.1["items"], json!([]));
        assert_eq!(platform.as_("eve").get("/usage").await.1["items"], json!([]));
        let (status, bad) = bob.get("/usage?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z").await;
        assert_eq!((status, &bad["details"][0]["field"]), (422, &json!("from")));
        assert_eq!(bob.get("/usage?group_by=planet").await.0, 400);
    }
}

#[tokio::test]
async fn an_agent_answers_with_its_own_configuration_and_falls_back() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let config = |name: &str| {
            json!({ "provider": "openai", "model_name": name, "base_url": platform.model.base_url(), "api_key": format!("sk-{name}"),
                "prices": { "input": 1, "output": 1 } })
        };
        let main = ann.create("/model-configs", config("main")).await;
        ann.create("/model-configs", config("spare")).await;
        let agent = ann
            .create(
                "/agents",
                json!({ "name": "Thrifty", "description": "d", "system_prompt": "Be brief.", "model_config": {
                    "model_config_id": main["id"], "temperature": 0.5,
                    "fallbacks": [{ "provider": "openai", "model_name": "spare" }],
                } }),
            )
            .await;
        platform.model.script(Reply::status(503)).script(Reply::text("spared").usage(3, 4));
        let ended = run(&platform, "ann", "run-1", json!({ "agentId": agent["id"] })).await;
        assert_eq!(ended.state, RunState::Succeeded, "{ended:?}");
        let asked: Vec<_> = platform.model.requests();
        assert_eq!((asked[0].model(), asked[1].model()), ("main", "spare"));
        assert_eq!(asked[1].headers["authorization"], "Bearer sk-spare");
        assert_eq!(asked[1].body["temperature"], 0.5);
        assert_eq!(ann.get("/usage?group_by=model").await.1["items"][0]["key"], "openai:spare");
        assert_eq!(ann.get("/usage?group_by=agent").await.1["items"][0]["cost_micros"], 7);
        // A model that nobody configured is no model to wish for.
        let refused = run(&platform, "ann", "run-2", json!({ "agentId": agent["id"], "model": "anthropic:claude" })).await;
        assert_eq!((refused.state, refused.error.unwrap().code.as_str()), (RunState::Failed, "MODEL_NOT_CONFIGURED"));
        assert_eq!(platform.model.counts().received, 2);
    }
}
