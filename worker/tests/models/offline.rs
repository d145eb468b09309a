//! The offline model.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runmill_shared::domain::{
    chat::{ChatMessage, FinishReason},
    model::{Provider, Target},
};
use runmill_worker::models::{ChatModel, ChatRequest};
use serde_json::json;

use crate::{DEADLINE, ask, config, model_of, run, target, texts, tool};

fn offline() -> Arc<dyn ChatModel> {
    let target = Target { name: "scripted-demo".into(), ..target(Provider::Offline, "") };
    model_of(&config(DEADLINE), &target)
}

#[tokio::test]
async fn the_offline_model_says_what_it_is_and_quotes() {
    let (events, end) = run(&*offline(), &ask("hello there")).await;
    let answer = end.unwrap();
    assert!(answer.message_text.contains("offline demo model") && answer.message_text.contains("OPENAI_API_KEY"));
    assert!(answer.message_text.ends_with("\"hello there\""));
    assert_eq!(texts(&events).concat(), answer.message_text);
    assert!(events.len() > 20 && answer.usage.input_tokens == 2);
}

#[tokio::test]
async fn the_offline_model_calls_tools_when_told_and_quotes_their_results() {
    let say = "/tool now {}\nplease call the tool calculator with {\"expression\":\"2+2\"}.";
    let mut request = ChatRequest { tools: vec![tool("now"), tool("calculator")], ..ask(say) };
    let answer = run(&*offline(), &request).await.1.unwrap();
    let calls: Vec<_> = answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.clone())).collect();
    assert_eq!(calls, [("now", json!({})), ("calculator", json!({"expression": "2+2"}))]);
    assert_eq!(answer.finish, FinishReason::ToolCalls);
    request.messages.push(answer.message());
    request
        .messages
        .extend(answer.tool_calls.iter().zip(["noon", "4"]).map(|(call, result)| ChatMessage::tool(&call.id, result)));
    let quoted = run(&*offline(), &request).await.1.unwrap();
    assert_eq!(quoted.message_text, "now answered: noon\ncalculator answered: 4");
    let unknown = run(&*offline(), &ask("/tool rm {}")).await.1.unwrap();
    assert!(unknown.tool_calls.is_empty() && unknown.message_text.contains("not offered"));
}

#[tokio::test]
async fn the_offline_model_says_as_many_words_as_told_and_as_slowly() {
    let (events, end) = run(&*offline(), &ask("/say 300 words")).await;
    assert_eq!((texts(&events).len(), end.unwrap().usage.output_tokens), (300, 300));
    assert_eq!(texts(&events)[299], "word-300");
    let began = Instant::now();
    run(&*offline(), &ask("/say 10 words\n/slow 20 ms")).await.1.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
}
