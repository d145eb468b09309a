//! Model configurations: kept with a key that nobody sees again, tested by a real call, used by agents, and what it costs.
use reqwest::StatusCode;
use runmill_testkit::model_server::Reply;
use serde_json::{Value, json};

use crate::support::{TestPlatform, each};

const KEY: &str = "sk-very-secret-0123";

fn openai(platform: &TestPlatform) -> Value {
    json!({
        "provider": "openai", "model_name": "gpt-test", "base_url": platform.model.base_url(), "api_key": KEY,
        "temperature": 0.25, "max_tokens": 321, "prices": { "input": 2.0, "cached_input": 0.5, "output": 8.0 },
    })
}

/// The bad fields that an answer names, in order.
fn fields(answer: &Value) -> Vec<&str> {
    let mut all: Vec<_> = answer["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn a_key_goes_in_and_never_comes_out() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let made = ann.create("/model-configs", openai(&platform)).await;
        assert_eq!((&made["name"], &made["version"], &made["has_api_key"]), (&json!("openai:gpt-test"), &json!(1), &json!(true)));
        assert_eq!(made["prices"], json!({ "input": 2.0, "cached_input": 0.5, "output": 8.0 }));
        let path = format!("/model-configs/{}", made["id"].as_str().unwrap());
        // Left out: kept; the name follows as long as nobody gave one.
        let (status, changed) = ann.put(&path, json!({ "model_name": "gpt-next", "version": 1, "temperature": null })).await;
        assert_eq!((status, &changed["version"], &changed["has_api_key"]), (200, &json!(2), &json!(true)), "{changed}");
        assert_eq!((&changed["name"], &changed["temperature"]), (&json!("openai:gpt-next"), &Value::Null));
        assert_eq!(changed["max_tokens"], 321);
        let (status, conflict) = ann.put(&path, json!({ "name": "mine", "version": 1 })).await;
        assert_eq!((status, &conflict["error"]), (409, &json!("VERSION_CONFLICT")));
        for nothing in [json!(null), json!("")] {
            assert_eq!(ann.put(&path, json!({ "api_key": KEY })).await.1["has_api_key"], true);
            assert_eq!(ann.put(&path, json!({ "api_key": nothing })).await.1["has_api_key"], false);
        }
        ann.put(&path, json!({ "api_key": KEY })).await;
        let (_, list) = ann.get("/model-configs?search=NEXT").await;
        assert_eq!((&list["total"], &list["page"], &list["items"][0]["id"]), (&json!(1), &json!(1), &made["id"]));
        assert_eq!(ann.get("/model-configs?search=other").await.1["total"], 0);
        for answer in [&made, &changed, &list, &ann.get(&path).await.1] {
            assert!(!answer.to_string().contains(KEY), "{answer}");
        }
        assert_eq!(ann.delete(&path).await.0, 204);
        assert_eq!((ann.delete(&path).await.0, ann.get(&path).await.0), (404, 404));
    }
}

#[tokio::test]
async fn every_bad_field_is_named_and_a_name_is_taken_once() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let bad = json!({
            "name": "", "provider": "acme", "model_name": "", "base_url": "ftp://x", "api_key": "two words", "temperature": 3,
            "max_tokens": 0, "prices": { "input": -1, "output": 1 },
        });
        let (status, answer) = ann.post("/model-configs", bad).await;
        assert_eq!((status, &answer["error"]), (422, &json!("VALIDATION_ERROR")));
        let all = ["api_key", "base_url", "max_tokens", "model_name", "name", "prices", "provider", "temperature"];
        assert_eq!(fields(&answer), all, "{answer}");
        let (status, answer) = ann.post("/model-configs", json!({ "provider": 5 })).await;
        assert_eq!((status, fields(&answer)), (422, vec!["model_name", "provider"]));
        let with_secret = json!({ "provider": "openai", "model_name": "x", "base_url": "https://me:pw@example.com" });
        let (status, answer) = ann.post("/model-configs", with_secret).await;
        assert_eq!((status, fields(&answer)), (422, vec!["base_url"]));
        assert!(!answer.to_string().contains("pw@"), "{answer}");
        let compatible = json!({ "provider": "openai_compatible", "model_name": "x" });
        let made = ann.create("/model-configs", compatible.clone()).await;
        assert_eq!(made["provider"], "openai_compatible");
        let (status, answer) = ann.post("/model-configs", compatible.clone()).await;
        assert_eq!((status, &answer["error"]), (409, &json!("MODEL_CONFIG_EXISTS")));
        platform.as_("bob").create("/model-configs", compatible).await;
    }
}

#[tokio::test]
async fn anothers_is_not_there() {
    for platform in each(|_| {}).await {
        let made = platform.as_("ann").create("/model-configs", openai(&platform)).await;
        let (bob, path) = (platform.as_("bob"), format!("/model-configs/{}", made["id"].as_str().unwrap()));
        assert_eq!(bob.get("/model-configs").await.1["total"], 0);
        let answers = [
            bob.get(&path).await,
            bob.put(&path, json!({ "name": "mine" })).await,
            bob.delete(&path).await,
            bob.act(&format!("{path}/test")).await,
        ];
        for (status, answer) in answers {
            assert_eq!((status, &answer["error"]), (404, &json!("MODEL_CONFIG_NOT_FOUND")));
        }
        assert_eq!(platform.nobody().get(&path).await.0, StatusCode::UNAUTHORIZED.as_u16());
        assert_eq!(platform.model.counts().received, 0);
    }
}

#[tokio::test]
async fn a_test_is_one_real_call() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let made = ann.create("/model-configs", openai(&platform)).await;
        let path = format!("/model-configs/{}/test", made["id"].as_str().unwrap());
        platform.model.script(Reply::text("OK").usage(10, 1));
        let (status, tested) = ann.act(&path).await;
        assert_eq!((status, &tested["ok"], &tested["reply"]), (200, &json!(true), &json!("OK")), "{tested}");
        assert!(tested["latency_ms"].is_u64() && tested.get("error").is_none());
        let request = &platform.model.requests()[0];
        assert_eq!((request.headers["authorization"].as_str(), request.model()), (format!("Bearer {KEY}").as_str(), "gpt-test"));
        assert_eq!(request.body["temperature"], 0.25);
        platform.model.script(Reply::status(401));
        let (status, tested) = ann.act(&path).await;
        assert_eq!((status, &tested["ok"], &tested["error"]["code"]), (200, &json!(false), &json!("MODEL_AUTH")), "{tested}");
        assert_eq!(platform.model.counts().received, 2, "a refusal is not asked again");
        let (_, usage) = ann.get("/usage?group_by=model").await;
        assert_eq!(usage["items"][0]["key"], "openai:gpt-test");
        assert_eq!((&usage["items"][0]["calls"], &usage["items"][0]["cost_micros"]), (&json!(1), &json!(10 * 2 + 8)));
    }
}

#[tokio::test]
async fn only_an_admin_may_name_an_address_of_this_network() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let made = bob.create("/model-configs", openai(&platform)).await;
        let path = format!("/model-configs/{}", made["id"].as_str().unwrap());
        let (status, tested) = bob.act(&format!("{path}/test")).await;
        assert_eq!(
            (status, &tested["ok"], &tested["error"]["code"]),
            (200, &json!(false), &json!("BLOCKED_ADDRESS")),
            "{tested}"
        );
        assert_eq!(platform.model.counts().received, 0, "nothing is sent");
        // Without an address of its own it is the deployment's; its own key stays out of reach of any other address.
        let (_, changed) = bob.put(&path, json!({ "base_url": null, "api_key": null })).await;
        assert_eq!((&changed["base_url"], &changed["has_api_key"]), (&Value::Null, &json!(false)));
        let (_, tested) = bob.act(&format!("{path}/test")).await;
        assert_eq!(tested["reply"], "ok", "{tested}");
        assert_eq!(platform.model.requests()[0].headers["authorization"], "Bearer sk-test");
    }
}

#[tokio::test]
async fn an_address_of_ones_own_never_gets_the_deployments_key() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let mut body = openai(&platform);
        body["api_key"] = Value::Null;
        let made = ann.create("/model-configs", body).await;
        let (_, tested) = ann.act(&format!("/model-configs/{}/test", made["id"].as_str().unwrap())).await;
        assert_eq!(tested["ok"], true, "{tested}");
        assert!(!platform.model.requests()[0].headers.contains_key("authorization"));
    }
}

#[tokio::test]
async fn a_test_that_nobody_answers_says_so() {
    for platform in each(|config| config.models.test_wait = std::time::Duration::from_millis(300)).await {
        let ann = platform.as_("ann");
        let made = ann.create("/model-configs", openai(&platform)).await;
        platform.model.script(Reply::silence(std::time::Duration::from_secs(600)));
        let (status, tested) = ann.act(&format!("/model-configs/{}/test", made["id"].as_str().unwrap())).await;
        assert_eq!((status, &tested["error"]["code"]), (200, &json!("TEST_TIMEOUT")), "{tested}");
        let (_, runs) = ann.get("/agent/runs").await;
        let run = &runs["runs"][0];
        assert_eq!((&run["kind"], &run["status"]), (&json!("model_test"), &json!("cancelled")), "{runs}");
    }
}
