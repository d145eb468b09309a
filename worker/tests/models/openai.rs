//! OpenAI's chat completions, and what other servers make of them.
use std::time::{Duration, Instant};

use futures::StreamExt;
use runmill_shared::{
    config::Secret,
    domain::{
        chat::{ChatMessage, FinishReason, Part, Source, ToolCall, Usage},
        model::{Provider, Target},
    },
};
use runmill_testkit::model_server::{Gate, ModelServer, Reply};
use runmill_worker::models::{ChatModel, ChatRequest, ModelError, ModelErrorKind as K, ModelEvent, ToolChoice};
use serde_json::{Value, json};

use crate::{DEADLINE, KEY, arguments, ask, config, drain, model_of, run, shown_safely, target, texts, tool};

fn model(server: &ModelServer) -> std::sync::Arc<dyn ChatModel> {
    within(&server.base_url(), DEADLINE)
}

fn within(base_url: &str, idle: Duration) -> std::sync::Arc<dyn ChatModel> {
    model_of(&config(idle), &target(Provider::Openai, base_url))
}

async fn bad_day(reply: Reply) -> (Vec<ModelEvent>, ModelError) {
    let server = ModelServer::start().await.unwrap();
    server.script(reply);
    let (events, end) = run(&*model(&server), &ask("hi")).await;
    (events, shown_safely(end.unwrap_err()))
}

#[tokio::test]
async fn an_answer_streams_and_adds_up() {
    let server = ModelServer::start().await.unwrap();
    server.script(Reply::text("one two three, and ünïcode").reasoning("let me think").usage(11, 22));
    let (events, end) = run(&*model(&server), &ask("count")).await;
    let answer = end.unwrap();
    assert_eq!(texts(&events), ["one ", "two ", "three, ", "and ", "ünïcode"]);
    assert_eq!(answer.message_text, "one two three, and ünïcode");
    let thought = |event: &ModelEvent| if let ModelEvent::ReasoningDelta(text) = event { Some(text.clone()) } else { None };
    assert_eq!(events.iter().filter_map(thought).collect::<String>(), "let me think");
    assert_eq!(answer.reasoning, "let me think");
    assert_eq!(answer.usage, Usage { input_tokens: 11, output_tokens: 22, ..Usage::default() });
    assert_eq!((answer.finish, answer.model.as_str()), (FinishReason::Stop, "scripted"));
    let request = &server.requests()[0];
    assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!((request.model(), request.user().as_str()), ("scripted", "count"));
    assert_eq!(request.body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn a_local_server_needs_no_key() {
    let server = ModelServer::start().await.unwrap();
    let target = Target { key: Secret::default(), ..target(Provider::Openai, &server.base_url()) };
    let (_, end) = run(&*model_of(&config(DEADLINE), &target), &ask("hi")).await;
    assert_eq!(end.unwrap().message_text, "ok");
    assert!(!server.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn parallel_calls_are_put_together_with_and_without_an_index() {
    let long = json!({"expression": "2+2", "note": "a \"quoted\" and longer argument"});
    let script = [("calculator", long.clone()), ("now", json!({})), ("calculator", json!({"expression": "3*3"}))];
    for reply in [Reply::tool_calls(script.clone()), Reply::missing_index(script.clone())] {
        let server = ModelServer::start().await.unwrap();
        server.script(reply);
        let request = ChatRequest { tools: vec![tool("calculator"), tool("now")], ..ask("go") };
        let (events, end) = run(&*model(&server), &request).await;
        let answer = end.unwrap();
        assert_eq!(answer.finish, FinishReason::ToolCalls);
        let calls: Vec<_> = answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.clone())).collect();
        assert_eq!(calls, script);
        for call in &answer.tool_calls {
            let started = ModelEvent::ToolCallStarted { id: call.id.clone(), name: call.name.clone() };
            assert_eq!(events.iter().filter(|event| **event == started).count(), 1);
            assert_eq!(serde_json::from_str::<Value>(&arguments(&events, &call.id)).unwrap(), call.arguments);
        }
    }
}

#[tokio::test]
async fn half_json_arguments_stay_what_the_model_sent() {
    let server = ModelServer::start().await.unwrap();
    server.script(Reply::half_json_tool_arguments());
    let (events, end) = run(&*model(&server), &ChatRequest { tools: vec![tool("calculator")], ..ask("go") }).await;
    let answer = end.unwrap();
    assert_eq!(answer.tool_calls[0].arguments, json!("{\"expression\": \"2+"));
    assert_eq!(arguments(&events, &answer.tool_calls[0].id), "{\"expression\": \"2+");
}

#[tokio::test]
async fn each_bad_day_has_its_kind() {
    let cases = [
        (Reply::status(401), K::Auth, false),
        (Reply::status(500), K::Overloaded, true),
        (Reply::status(404), K::InvalidRequest, false),
        (Reply::status(302), K::InvalidRequest, false),
        (Reply::context_overflow(), K::ContextOverflow, false),
        (Reply::refusal(json!({"error": {"code": "content_filter", "message": "no"}})), K::ContentFilter, false),
        (Reply::reset(), K::Truncated, true),
        (Reply::text("upstream fell over").finish("error"), K::Overloaded, true),
        (Reply::tool_calls([]), K::Malformed, true),
    ];
    for (reply, kind, retryable) in cases {
        let shown = format!("{reply:?}");
        let (_, error) = bad_day(reply).await;
        assert_eq!((error.kind, error.retryable()), (kind, retryable), "{shown} gave {error:?}");
    }
}

#[tokio::test]
async fn a_half_finished_stream_is_never_an_answer() {
    let days = [
        (Reply::truncated_after(2, "one two three"), K::Truncated),
        (Reply::unfinished_after(2, "one two three"), K::Truncated),
        (Reply::no_done("one two"), K::Truncated),
        (Reply::mid_stream_error(), K::Overloaded),
    ];
    for (reply, kind) in days {
        let shown = format!("{reply:?}");
        let (events, error) = bad_day(reply).await;
        assert_eq!(error.kind, kind, "{shown} gave {error:?}");
        assert!(error.retryable());
        assert!(texts(&events).len() >= 2, "what came before is seen: {events:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let (_, error) = bad_day(Reply::status(429).retry_after(2)).await;
    assert_eq!((error.kind, error.retry_after), (K::RateLimited, Some(Duration::from_secs(2))));
    assert_eq!(runmill_shared::Error::from(error).retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn the_key_is_in_no_error_even_when_the_provider_echoes_it() {
    let (_, error) = bad_day(Reply::refusal(json!({"error": {"message": format!("unknown header Bearer {KEY}")}}))).await;
    assert!(error.message.contains("Bearer [key]"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_a_network_error() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let model = within(&format!("http://{gone}/v1"), DEADLINE);
    let error = run(&*model, &ask("hi")).await.1.unwrap_err();
    assert_eq!(error.kind, K::Network);
    assert!(!error.to_string().contains("127.0.0.1"));
}

#[tokio::test]
async fn what_is_no_event_stream_is_refused() {
    let (_, error) = bad_day(Reply::status(200)).await;
    assert_eq!(error.kind, K::InvalidRequest);
    assert!(error.message.contains("base URL"), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_idle_timeout_before_the_head_and_in_the_middle() {
    let never = Gate::new();
    for reply in [Reply::silence(Duration::from_secs(600)), Reply::text("one two three").hold_after(2, &never)] {
        let server = ModelServer::start().await.unwrap();
        server.script(reply);
        let model = within(&server.base_url(), Duration::from_millis(150));
        let error = run(&*model, &ask("hi")).await.1.unwrap_err();
        assert_eq!((error.kind, error.retryable()), (K::IdleTimeout, true));
    }
}

#[tokio::test]
async fn the_idle_timeout_counts_silence_and_not_the_whole_answer() {
    let server = ModelServer::start().await.unwrap();
    server.script(Reply::text("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15").delay_per_token(Duration::from_millis(60)));
    let model = within(&server.base_url(), Duration::from_millis(700));
    let began = Instant::now();
    let answer = run(&*model, &ask("hi")).await.1.unwrap();
    assert!(answer.message_text.ends_with("14 15") && began.elapsed() > Duration::from_millis(700));
}

/// hyper's HTTP/1 client looks at whether its body is still wanted when the next bytes come, so they must.
#[tokio::test]
async fn dropping_the_stream_in_the_middle_ends_the_request_at_the_next_token() {
    let server = ModelServer::start().await.unwrap();
    let gate = Gate::new();
    let long = Reply::text(&"word ".repeat(2000)).delay_per_token(Duration::from_millis(1));
    server.script(long.hold_after(1, &gate));
    let mut stream = model(&server).stream(&ask("hi")).await.unwrap();
    let first = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap();
    assert_eq!(first, Some(Ok(ModelEvent::TextDelta("word ".into()))));
    assert_eq!(server.counts().open, 1);
    drop(stream);
    gate.open();
    let counts = server.until(|counts| counts.open == 0).await.unwrap();
    assert_eq!((counts.received, counts.finished, counts.left), (1, 0, 1));
}

#[tokio::test]
async fn a_gate_lets_the_test_decide_when_it_goes_on() {
    let server = ModelServer::start().await.unwrap();
    let gate = Gate::new();
    server.script(Reply::text("one two").hold_until(&gate));
    let mut stream = model(&server).stream(&ask("hi")).await.unwrap();
    tokio::select! {
        early = stream.next() => panic!("it did not wait: {early:?}"),
        counts = server.until(|counts| counts.open == 1) => { counts.unwrap(); }
    }
    gate.open();
    let (events, end) = drain(stream).await;
    assert_eq!((texts(&events), end.unwrap().message_text.as_str()), (vec!["one ", "two"], "one two"));
}

#[tokio::test]
async fn media_arrive_as_parts_of_the_wire() {
    let server = ModelServer::start().await.unwrap();
    let data = |mime_type: &str| Source::Data { mime_type: mime_type.into(), base64: "iVBORw0KGgo=".into() };
    let mut message = ChatMessage::user("look");
    message.content.extend([
        Part::Image { source: Source::Url("https://example.test/cat.png".into()) },
        Part::Image { source: data("image/png") },
        Part::Audio { source: data("audio/mpeg") },
        Part::Document { source: data("application/pdf") },
        Part::Image { source: data("image/bmp") },
    ]);
    let (_, end) = run(&*model(&server), &ChatRequest { messages: vec![message], ..ChatRequest::default() }).await;
    end.unwrap();
    let parts = server.requests()[0].messages()[0]["content"].clone();
    assert_eq!(parts[0], json!({"type": "text", "text": "look"}));
    assert_eq!(parts[1]["image_url"]["url"], "https://example.test/cat.png");
    assert_eq!(parts[2]["type"], "image_url");
    assert_eq!(parts[2]["image_url"]["url"], "data:image/png;base64,iVBORw0KGgo=");
    assert_eq!(parts[3]["input_audio"], json!({"data": "iVBORw0KGgo=", "format": "mp3"}));
    assert_eq!(parts[4]["file"]["file_data"], "data:application/pdf;base64,iVBORw0KGgo=");
    assert!(parts[5]["text"].as_str().unwrap().contains("image/bmp"), "{parts}");
}

#[tokio::test]
async fn a_conversation_with_calls_goes_back_as_it_was() {
    let server = ModelServer::start().await.unwrap();
    let mut asking = ChatMessage::assistant("let me see");
    asking.reasoning = Some("it wants the time".into());
    for (id, name) in [("call_a", "now"), ("call_b", "calculator")] {
        asking.tool_calls.push(ToolCall { id: id.into(), name: name.into(), arguments: json!({"x": 1}) });
    }
    let results = [ChatMessage::tool("call_a", "noon"), ChatMessage::tool("call_b", "4")];
    let mut messages = vec![ChatMessage::system("be brief"), ChatMessage::user("what time is it?"), asking];
    messages.extend(results);
    let tools = vec![tool("now"), tool("calculator")];
    let tool_choice = ToolChoice::Required;
    let request =
        ChatRequest { messages, tools, tool_choice, temperature: Some(0.5), max_tokens: Some(99), ..ChatRequest::default() };
    run(&*model(&server), &request).await.1.unwrap();
    let sent = &server.requests()[0];
    assert_eq!(sent.last("system"), "be brief");
    assert_eq!(sent.tool_results(), ["noon", "4"]);
    let assistant = &sent.messages()[2];
    assert_eq!((&assistant["content"], &assistant["tool_calls"][1]["id"]), (&json!("let me see"), &json!("call_b")));
    assert_eq!(assistant["tool_calls"][0]["function"], json!({"name": "now", "arguments": "{\"x\":1}"}));
    assert_eq!(sent.messages()[3]["tool_call_id"], "call_a");
    let body = &sent.body;
    assert_eq!((&body["tool_choice"], &body["temperature"], &body["max_tokens"]), (&json!("required"), &json!(0.5), &json!(99)));
    assert_eq!(body["tools"][1]["function"]["name"], "calculator");
}

#[tokio::test]
async fn many_conversations_share_a_server() {
    let server = ModelServer::with(|request| match request.tool_results().as_slice() {
        [] => Reply::tool_calls([("echo", json!({"text": request.user()}))]),
        [result, ..] => Reply::text(&format!("done: {result}")),
    });
    let server = server.await.unwrap();
    let model = model(&server);
    let one = |i: usize| {
        let model = model.clone();
        async move {
            let mut request = ChatRequest { tools: vec![tool("echo")], ..ask(&format!("say {i}")) };
            let first = run(&*model, &request).await.1.unwrap();
            let call = &first.tool_calls[0];
            let result = ChatMessage::tool(&call.id, call.arguments["text"].as_str().unwrap());
            request.messages.extend([first.message(), result]);
            assert_eq!(run(&*model, &request).await.1.unwrap().message_text, format!("done: say {i}"));
        }
    };
    futures::future::join_all((0..20).map(one)).await;
    let counts = server.until(|counts| counts.open == 0).await.unwrap();
    assert_eq!((counts.received, counts.finished), (40, 40));
}
