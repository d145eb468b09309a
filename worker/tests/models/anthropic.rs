//! What is Anthropic's own.
use runmill_shared::domain::{chat::Usage, model::Provider};
use runmill_testkit::wires::anthropic;
use runmill_worker::models::ModelErrorKind as K;
use serde_json::json;

use crate::{
    KEY, ask,
    wires::{bad_day, good_day, long_conversation, talk},
};

#[tokio::test]
async fn the_prefix_is_cached_and_what_came_from_the_cache_is_counted() {
    let response = anthropic::stream(&anthropic::text("fine"));
    let (sent, _, answer) = good_day(Provider::Anthropic, response, &long_conversation()).await;
    let ephemeral = json!({"type": "ephemeral"});
    assert_eq!(sent["tools"][1]["cache_control"], ephemeral, "{sent}");
    assert_eq!(sent["system"][0]["cache_control"], ephemeral, "{sent}");
    assert_eq!(sent["tools"][0].get("cache_control"), None);
    assert_eq!((&sent["max_tokens"], &sent["stream"]), (&json!(99), &json!(true)));
    let result = &sent["messages"][2]["content"][0];
    assert_eq!((&result["type"], &result["tool_use_id"]), (&json!("tool_result"), &json!("call_a")), "{sent}");
    assert!(!sent.to_string().contains("it wants the time"), "reasoning without its signature is not sent");
    assert_eq!(answer.usage, Usage { input_tokens: 28, cached_input_tokens: 20, output_tokens: 1, cost_micros: 0 });
}

#[tokio::test]
async fn the_headers_are_the_protocols() {
    let (server, _) = talk(Provider::Anthropic, anthropic::stream(&anthropic::text("ok")), &ask("hi"), crate::DEADLINE).await;
    let sent = &server.requests()[0];
    let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(body["max_tokens"], 4096, "the protocol cannot do without");
    assert_eq!((sent.path.as_str(), sent.header("x-api-key")), ("/v1/messages", Some(KEY)));
    assert!(sent.header("anthropic-version").is_some());
}

#[tokio::test]
async fn a_stop_reason_without_the_end_of_the_message_is_no_answer() {
    let mut events = anthropic::text("one two");
    assert_eq!(events.pop().unwrap()["type"], "message_stop");
    let (_, error) = bad_day(Provider::Anthropic, anthropic::stream(&events)).await;
    assert_eq!(error.kind, K::Truncated);
    events.push(anthropic::error("api_error", "Internal server error"));
    let (_, error) = bad_day(Provider::Anthropic, anthropic::stream(&events)).await;
    assert_eq!(error.kind, K::Overloaded);
}

#[tokio::test]
async fn a_block_of_an_absurd_number_costs_no_memory() {
    for index in [json!(4096), json!(40_000_000_000_u64), json!(1e30), json!(-1)] {
        let mut events = anthropic::text("fine");
        let block = json!({ "type": "text", "text": "" });
        let delta = json!({ "type": "text_delta", "text": "far" });
        events.insert(1, json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        events.insert(1, json!({ "type": "content_block_start", "index": index, "content_block": block }));
        let (_, _, answer) = good_day(Provider::Anthropic, anthropic::stream(&events), &ask("hi")).await;
        assert_eq!(answer.message_text, "fine", "{index}");
    }
}
