//! What holds on every wire.
use std::time::Duration;

use runmill_shared::domain::{
    chat::{ChatMessage, FinishReason, ModelResponse, Part, Source, ToolCall},
    model::Provider,
};
use runmill_testkit::{
    http_server::{HttpServer, Response},
    wires::{self, anthropic, gemini, ollama},
};
use runmill_worker::models::{ChatRequest, ModelError, ModelErrorKind as K, ModelEvent};
use serde_json::{Value, json};

use crate::{DEADLINE, KEY, Outcome, arguments, ask, config, model_of, run, shown_safely, target, texts, tool};

/// A provider and how its server says things.
pub struct Wire {
    pub provider: Provider,
    pub stream: fn(&[Value]) -> Response,
    text: fn(&str) -> Vec<Value>,
    calls: fn(&[(&str, Value)]) -> Vec<Value>,
    /// In the middle of a stream.
    error: fn() -> Value,
}

pub const WIRES: [Wire; 3] = [
    Wire {
        provider: Provider::Anthropic,
        stream: anthropic::stream,
        text: anthropic::text,
        calls: anthropic::tool_calls,
        error: || anthropic::error("overloaded_error", "Overloaded"),
    },
    Wire {
        provider: Provider::Gemini,
        stream: gemini::stream,
        text: gemini::text,
        calls: gemini::tool_calls,
        error: || gemini::error(503, "UNAVAILABLE", "The model is overloaded."),
    },
    Wire {
        provider: Provider::Ollama,
        stream: ollama::stream,
        text: ollama::text,
        calls: ollama::tool_calls,
        error: || json!({"error": "an error was encountered while running the model"}),
    },
];

/// One conversation with a server that always answers this.
pub async fn talk(provider: Provider, response: Response, request: &ChatRequest, idle: Duration) -> (HttpServer, Outcome) {
    let server = HttpServer::start(move |_| response.clone());
    let model = model_of(&config(idle), &target(provider, &server.url));
    let outcome = run(&*model, request).await;
    (server, outcome)
}

pub async fn good_day(provider: Provider, response: Response, request: &ChatRequest) -> (Value, Vec<ModelEvent>, ModelResponse) {
    let (server, (events, end)) = talk(provider, response, request, DEADLINE).await;
    (serde_json::from_slice(&server.requests()[0].body).unwrap(), events, end.unwrap())
}

pub async fn bad_day(provider: Provider, response: Response) -> (Vec<ModelEvent>, ModelError) {
    let (_, (events, end)) = talk(provider, response, &ask("hi"), DEADLINE).await;
    (events, shown_safely(end.unwrap_err()))
}

#[tokio::test]
async fn an_answer_streams_and_adds_up() {
    for wire in WIRES {
        let name = wire.provider.as_str();
        let response = (wire.stream)(&(wire.text)("one two three, and ünïcode"));
        let (server, (events, end)) = talk(wire.provider, response, &ask("count"), DEADLINE).await;
        let answer = end.unwrap();
        assert_eq!(texts(&events), ["one ", "two ", "three, ", "and ", "ünïcode"], "{name}");
        assert_eq!(answer.message_text, "one two three, and ünïcode", "{name}");
        assert_eq!(answer.finish, FinishReason::Stop, "{name}");
        assert!(answer.model.ends_with("-scripted"), "{name}: {}", answer.model);
        assert_eq!(answer.usage.input_tokens, 28, "{name}: with what the cache had and took");
        assert!(answer.usage.output_tokens >= 5, "{name}");
        let request = &server.requests()[0];
        assert!(!request.path.contains(KEY), "{name}: the key is in no URL");
        assert!(request.headers.iter().any(|(_, value)| value.contains(KEY)), "{name}: {:?}", request.headers);
    }
}

#[tokio::test]
async fn parallel_calls_get_ids_of_ours() {
    let script =
        [("calculator", json!({"expression": "2+2", "note": "\"quoted\""})), ("now", json!({})), ("now", json!({"tz": "UTC"}))];
    for wire in WIRES {
        let name = wire.provider.as_str();
        let request = ChatRequest { tools: vec![tool("calculator"), tool("now")], ..ask("go") };
        let (sent, events, answer) = good_day(wire.provider, (wire.stream)(&(wire.calls)(&script)), &request).await;
        assert!(sent["tools"].to_string().contains("calculator"), "{name}: {sent}");
        assert_eq!(answer.finish, FinishReason::ToolCalls, "{name}");
        let calls: Vec<_> = answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.clone())).collect();
        assert_eq!(calls, script, "{name}");
        for call in &answer.tool_calls {
            assert!(call.id.starts_with("call_") && call.id.len() == 37, "{name}: {}", call.id);
            let started = ModelEvent::ToolCallStarted { id: call.id.clone(), name: call.name.clone() };
            assert_eq!(events.iter().filter(|event| **event == started).count(), 1, "{name}");
            assert_eq!(serde_json::from_str::<Value>(&arguments(&events, &call.id)).unwrap(), call.arguments, "{name}");
        }
    }
}

#[tokio::test]
async fn a_half_finished_stream_is_never_an_answer() {
    for wire in WIRES {
        let name = wire.provider.as_str();
        let whole = (wire.text)("one two three");
        for upto in 1..whole.len() {
            let half = (wire.stream)(&whole[..upto]);
            for response in [half.clone(), wires::cut(half)] {
                let (_, error) = bad_day(wire.provider, response).await;
                assert_eq!((error.kind, error.retryable()), (K::Truncated, true), "{name} after {upto}: {error:?}");
            }
        }
        let (_, error) = bad_day(wire.provider, wires::cut((wire.stream)(&[]))).await;
        assert_eq!(error.kind, K::Truncated, "{name}, nothing: {error:?}");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_the_providers() {
    for wire in WIRES {
        let mut half = (wire.text)("one two three");
        half.truncate(half.len() - 3);
        half.push((wire.error)());
        let (_, error) = bad_day(wire.provider, (wire.stream)(&half)).await;
        assert_eq!((error.kind, error.retryable()), (K::Overloaded, true), "{}: {error:?}", wire.provider.as_str());
    }
}

#[tokio::test]
async fn silence_ends_at_the_idle_timeout() {
    for wire in WIRES {
        let whole = (wire.text)("one two three");
        let silent = wires::silent((wire.stream)(&whole[..2]));
        let (_, (_, end)) = talk(wire.provider, silent, &ask("hi"), Duration::from_millis(200)).await;
        let error = end.unwrap_err();
        assert_eq!((error.kind, error.retryable()), (K::IdleTimeout, true), "{}", wire.provider.as_str());
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_broken_off() {
    for wire in WIRES {
        let whole = (wire.stream)(&(wire.text)(&"word ".repeat(2000)));
        let server = HttpServer::start(move |_| whole.clone());
        let mut config = config(DEADLINE);
        config.models.max_response_bytes = 10_000;
        let (_, end) = run(&*model_of(&config, &target(wire.provider, &server.url)), &ask("hi")).await;
        let error = end.unwrap_err();
        assert!(error.kind == K::Malformed && error.message.contains("does not end"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_has_its_kind_and_says_when_to_come_back() {
    let json = |status: u16, body: Value| Response::json(status, &body);
    let cases = [
        (Provider::Anthropic, json(401, anthropic::error("authentication_error", "invalid x-api-key")), K::Auth),
        (Provider::Anthropic, json(529, anthropic::error("overloaded_error", "Overloaded")), K::Overloaded),
        (Provider::Anthropic, json(429, anthropic::error("rate_limit_error", "slow")).with("retry-after", "7"), K::RateLimited),
        (
            Provider::Anthropic,
            json(400, anthropic::error("invalid_request_error", "prompt is too long: 2 > 1")),
            K::ContextOverflow,
        ),
        (Provider::Anthropic, json(404, anthropic::error("not_found_error", "model: x")), K::InvalidRequest),
        (Provider::Gemini, json(403, gemini::error(403, "PERMISSION_DENIED", "no")), K::Auth),
        (Provider::Gemini, json(503, gemini::error(503, "UNAVAILABLE", "overloaded")), K::Overloaded),
        (Provider::Gemini, json(429, gemini::error(429, "RESOURCE_EXHAUSTED", "quota")).with("retry-after", "7"), K::RateLimited),
        (
            Provider::Gemini,
            json(400, gemini::error(400, "INVALID_ARGUMENT", "The input token count (9) exceeds")),
            K::ContextOverflow,
        ),
        (Provider::Gemini, json(404, gemini::error(404, "NOT_FOUND", "models/x is not found")), K::InvalidRequest),
        (Provider::Ollama, json(404, json!({"error": "model \"x\" not found, try pulling it first"})), K::InvalidRequest),
        (Provider::Ollama, json(500, json!({"error": "the input length exceeds the context length"})), K::ContextOverflow),
        (Provider::Ollama, json(503, json!({"error": "server busy, please try again"})), K::Overloaded),
        (Provider::Ollama, json(302, json!({})).with("location", "http://example.test/"), K::InvalidRequest),
        (Provider::Deepseek, json(402, json!({"error": {"message": "Insufficient Balance"}})), K::Auth),
        (Provider::Deepseek, json(429, json!({"error": {"message": "slow"}})).with("retry-after", "7"), K::RateLimited),
    ];
    for (provider, response, kind) in cases {
        let shown = format!("{} {}", provider.as_str(), response.status);
        let (_, error) = bad_day(provider, response).await;
        assert_eq!(error.kind, kind, "{shown}: {error:?}");
        let wait = (kind == K::RateLimited).then(|| Duration::from_secs(7));
        assert_eq!(error.retry_after, wait, "{shown}");
    }
}

#[tokio::test]
async fn the_key_is_in_no_error_even_when_the_provider_echoes_it() {
    for wire in WIRES {
        let body = json!({"error": {"type": "invalid_request_error", "message": format!("bad key {KEY}")}});
        let (_, error) = bad_day(wire.provider, Response::json(400, &body)).await;
        assert!(error.message.contains("bad key [key]"), "{error}");
    }
}

/// A conversation with everything in it that a thread can have.
pub fn long_conversation() -> ChatRequest {
    let data = |mime_type: &str| Source::Data { mime_type: mime_type.into(), base64: "iVBORw0KGgo=".into() };
    let mut user = ChatMessage::user("look");
    user.content.extend([
        Part::Image { source: data("image/png") },
        Part::Image { source: Source::Url("https://example.test/cat.png".into()) },
        Part::Image { source: data("image/bmp") },
        Part::Audio { source: data("audio/mpeg") },
        Part::Video { source: data("video/mp4") },
        Part::Document { source: data("application/pdf") },
        Part::Document { source: data("text/plain") },
        Part::Unknown,
    ]);
    let mut asking = ChatMessage::assistant("let me see");
    asking.reasoning = Some("it wants the time".into());
    for (id, name) in [("call_a", "now"), ("call_b", "calculator")] {
        asking.tool_calls.push(ToolCall { id: id.into(), name: name.into(), arguments: json!({"x": 1}) });
    }
    let results = [ChatMessage::tool("call_a", "noon"), ChatMessage::tool("call_b", "4")];
    let mut messages = vec![ChatMessage::system("be brief"), user, asking];
    messages.extend(results);
    messages.push(ChatMessage::user("and now?"));
    let tools = vec![tool("now"), tool("calculator")];
    ChatRequest { messages, tools, temperature: Some(0.5), max_tokens: Some(99), ..ChatRequest::default() }
}

#[tokio::test]
async fn a_conversation_with_media_calls_and_results_fits_every_wire() {
    for wire in WIRES {
        let name = wire.provider.as_str();
        let response = (wire.stream)(&(wire.text)("fine"));
        let (sent, _, answer) = good_day(wire.provider, response, &long_conversation()).await;
        assert_eq!(answer.message_text, "fine", "{name}");
        let text = sent.to_string();
        for part in ["be brief", "look", "iVBORw0KGgo=", "image/bmp", "let me see", "noon", "and now?", "calculator", "0.5", "99"]
        {
            assert!(text.contains(part), "{name} lost {part}: {text}");
        }
        assert!(text.find("noon") < text.find("and now?"), "{name}: in order");
    }
}
