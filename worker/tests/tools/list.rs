//! The list itself: schemas, bad arguments, and the answers of the smallest tools.
use serde_json::json;

use crate::support::{context, tools};

#[tokio::test]
async fn the_list_has_the_tools_and_their_schemas_in_the_order_asked() {
    let tools = tools(&[]);
    let names = ["http_request", "nothing", "now", "calculator"].map(str::to_owned);
    let specs = tools.specs(&names);
    assert_eq!(specs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["http_request", "now", "calculator"]);
    assert!(
        specs.iter().all(|s| s.parameters["type"] == "object"
            && s.parameters["additionalProperties"] == false
            && !s.description.is_empty())
    );
    let http = tools.get("http_request").unwrap();
    assert!(http.idempotent(&json!({"method": "GET"})) && http.idempotent(&json!({"method": "HEAD"})));
    assert!(!http.idempotent(&json!({"method": "POST"})) && !http.idempotent(&json!({})));
    assert!(tools.get("calculator").unwrap().idempotent(&json!({})));
}

#[tokio::test]
async fn now_and_calculator_know_their_answers() {
    let tools = tools(&[]);
    let now = tools.call("now", &context().await, json!({"timezone": "Europe/Vienna"})).await;
    assert_eq!(
        now,
        Ok(json!({
            "utc": "2026-03-16T10:00:00Z", "local": "2026-03-16T11:00:00+01:00", "timezone": "Europe/Vienna", "weekday": "Monday",
        }))
    );
    assert_eq!(tools.call("now", &context().await, json!({})).await.unwrap()["timezone"], "UTC");
    let e = tools.call("now", &context().await, json!({"timezone": "Mars/Olympus"})).await.unwrap_err();
    assert_eq!(e.code, "INVALID_ARGUMENTS");
    let sum = tools.call("calculator", &context().await, json!({"expression": "(17 + 4) * 2"})).await;
    assert_eq!(sum, Ok(json!({"result": 42})));
    let e = tools.call("calculator", &context().await, json!({"expression": "1 +"})).await.unwrap_err();
    assert_eq!(e.code, "INVALID_EXPRESSION");
    let e = tools.call("calculator", &context().await, json!({"expression": "1".repeat(1_000_000)})).await.unwrap_err();
    assert_eq!(e.code, "INVALID_ARGUMENTS");
    assert!(e.message.len() <= 2048);
}

#[tokio::test]
async fn bad_arguments_are_named_all_at_once() {
    let tools = tools(&[]);
    let e = tools
        .call("http_request", &context().await, json!({"method": "FETCH", "headers": {"a": 1}, "extra": true}))
        .await
        .unwrap_err();
    assert_eq!(e.code, "INVALID_ARGUMENTS");
    for part in ["method", "headers/a", "extra", "url"] {
        assert!(e.message.contains(part), "{part} in {}", e.message);
    }
    let headers = json!({"Host": "x", "Idempotency-Key": "x", "proxy-authorization": "x", "b d": "x", "c": "x\ny"});
    let e = tools
        .call("http_request", &context().await, json!({"method": "GET", "url": "http://", "headers": headers, "body": "x"}))
        .await
        .unwrap_err();
    assert_eq!(e.code, "INVALID_ARGUMENTS");
    for part in
        ["headers/host", "headers/idempotency-key", "headers/proxy-authorization", "headers/b d", "headers/c", "url", "body"]
    {
        assert!(e.message.contains(part), "{part} in {}", e.message);
    }
    for arguments in [json!(null), json!("text"), json!([])] {
        assert_eq!(tools.call("now", &context().await, arguments).await.unwrap_err().code, "INVALID_ARGUMENTS");
    }
    let e = tools.call("rm", &context().await, json!({})).await.unwrap_err();
    assert_eq!(e.code, "UNKNOWN_TOOL");
    assert!(e.message.contains("calculator"));
}
