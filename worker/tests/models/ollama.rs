//! What is Ollama's own, and DeepSeek's.
use runmill_shared::domain::{
    chat::{ChatMessage, FinishReason, Usage},
    model::Provider,
};
use runmill_testkit::{
    http_server::Response,
    model_server::{ModelServer, Reply},
    wires::ollama,
};
use runmill_worker::models::ModelErrorKind as K;
use serde_json::json;

use crate::{
    DEADLINE, KEY, config, model_of, run, target,
    wires::{bad_day, good_day, long_conversation, talk},
};

#[tokio::test]
async fn the_native_wire_has_its_options() {
    let response = ollama::stream(&ollama::text("fine"));
    let (server, (_, end)) = talk(Provider::Ollama, response, &long_conversation(), DEADLINE).await;
    assert_eq!(end.unwrap().usage, Usage { input_tokens: 28, output_tokens: 1, ..Usage::default() });
    let request = &server.requests()[0];
    assert_eq!((request.path.as_str(), request.header("authorization")), ("/api/chat", Some(format!("Bearer {KEY}").as_str())));
    let sent: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent["options"], json!({"temperature": 0.5, "num_predict": 99}));
    assert_eq!(
        (&sent["messages"][0]["role"], &sent["messages"][1]["images"]),
        (&json!("system"), &json!(["iVBORw0KGgo="])),
        "{sent}"
    );
    assert_eq!(sent["messages"][2]["thinking"], "it wants the time", "{sent}");
}

#[tokio::test]
async fn a_limit_that_was_reached_is_told() {
    let mut records = ollama::text("one two");
    records.last_mut().unwrap()["done_reason"] = json!("length");
    let (_, _, answer) = good_day(Provider::Ollama, ollama::stream(&records), &crate::ask("hi")).await;
    assert_eq!(answer.finish, FinishReason::Length);
}

#[tokio::test]
async fn a_page_is_no_stream() {
    let page = Response::new(200, "<html>sign in</html>\n").with("content-type", "text/html");
    let (_, error) = bad_day(Provider::Ollama, page).await;
    assert_eq!(error.kind, K::Malformed);
}

#[tokio::test]
async fn deepseek_reads_its_reasoning_back_and_counts_its_cache() {
    let server = ModelServer::start().await.unwrap();
    server.script(Reply::text("four").reasoning("two and two"));
    let model = model_of(&config(DEADLINE), &target(Provider::Deepseek, &server.base_url()));
    let mut request = crate::ask("2+2?");
    let answer = run(&*model, &request).await.1.unwrap();
    assert_eq!((answer.reasoning.as_str(), answer.message_text.as_str()), ("two and two", "four"));
    request.messages.extend([answer.message(), ChatMessage::user("sure?")]);
    run(&*model, &request).await.1.unwrap();
    let sent = &server.requests()[1];
    assert_eq!(sent.messages()[1]["reasoning_content"], "two and two", "{}", sent.body);
    server.script(Reply::text("half").finish("insufficient_system_resource"));
    let error = run(&*model, &crate::ask("hi")).await.1.unwrap_err();
    assert_eq!((error.kind, error.retryable()), (K::Overloaded, true));
}
