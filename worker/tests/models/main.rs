//! The models against scripted servers: what a good day gives on each wire, which error each bad day is, which model answers when
//! the first does not, and how many are asked at once.
#![expect(clippy::unwrap_used, reason = "a test; its helpers stand outside #[test] functions")]
mod anthropic;
mod fallbacks;
mod gemini;
mod guarded;
mod offline;
mod ollama;
mod openai;
mod parallel;
mod wires;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use runmill_shared::{
    config::{Config, Secret},
    domain::{
        chat::{ChatMessage, ModelResponse, ToolSpec},
        model::{Provider, Target},
    },
};
use runmill_worker::models::{self, ChatModel, ChatRequest, EventStream, ModelError, ModelEvent};
use serde_json::json;

const KEY: &str = "sk-test-0123456789";
const DEADLINE: Duration = Duration::from_secs(60);

fn config(idle: Duration) -> Config {
    let mut config = Config::defaults().unwrap();
    config.runs.model_idle_timeout = idle;
    config
}

fn target(provider: Provider, base_url: &str) -> Target {
    Target {
        provider,
        name: "scripted".into(),
        base_url: Some(base_url.into()),
        key: Secret::new(KEY),
        guarded: false,
        temperature: None,
        max_tokens: None,
        prices: None,
    }
}

fn model_of(config: &Config, target: &Target) -> Arc<dyn ChatModel> {
    models::model(config, target).unwrap()
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::user(text)], ..ChatRequest::default() }
}

fn tool(name: &str) -> ToolSpec {
    ToolSpec { name: name.into(), description: "a tool".into(), parameters: json!({"type": "object"}) }
}

type Outcome = (Vec<ModelEvent>, Result<ModelResponse, ModelError>);

/// Every event before the end, and the end, of which there is one.
async fn drain(mut stream: EventStream) -> Outcome {
    let all = async {
        let mut events = Vec::new();
        let mut end = None;
        while let Some(item) = stream.next().await {
            assert!(end.is_none(), "an item after the end: {item:?}");
            match item {
                Ok(ModelEvent::Done(response)) => end = Some(Ok(response)),
                Ok(event) => events.push(event),
                Err(error) => end = Some(Err(error)),
            }
        }
        (events, end.unwrap())
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap()
}

async fn run(model: &dyn ChatModel, request: &ChatRequest) -> Outcome {
    drain(model.stream(request).await.unwrap()).await
}

fn texts(events: &[ModelEvent]) -> Vec<&str> {
    events.iter().filter_map(|event| if let ModelEvent::TextDelta(text) = event { Some(text.as_str()) } else { None }).collect()
}

/// What the deltas of one call add up to.
fn arguments(events: &[ModelEvent], call: &str) -> String {
    let deltas = events.iter().filter_map(|event| match event {
        ModelEvent::ToolCallDelta { id, delta } if id == call => Some(delta.as_str()),
        _ => None,
    });
    deltas.collect()
}

/// The error, which says neither the key nor the address.
fn shown_safely(error: ModelError) -> ModelError {
    for shown in [format!("{error:?}"), error.to_string(), runmill_shared::Error::from(error.clone()).to_string()] {
        assert!(!shown.contains(KEY) && !shown.contains("127.0.0.1"), "{shown}");
    }
    error
}
