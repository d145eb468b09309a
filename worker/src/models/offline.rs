//! The offline model: no network, no key, the same words every time. It is there so that everything around a model can be seen at
//! work, and it says what it is. Lines of the last user message direct it:
//!
//! | line | effect |
//! |---|---|
//! | `/tool NAME {json}` | calls the tool; several lines, several calls at once |
//! | `call the tool NAME with {json}` | the same, in words, anywhere in a line |
//! | `/say N words` | answers with N numbered words (at most 100,000), to watch a stream, or a resume without a hole |
//! | `/slow N ms` | waits that long before each word (at most 60,000) |
//!
//! Once the results of its calls are there, it answers with them. It calls only tools that it was offered. Asked for the plan of a goal,
//! it answers with the same few tasks for any.
use std::time::Duration;

use async_trait::async_trait;
use runmill_shared::domain::chat::{ChatMessage, FinishReason, ModelResponse, Role, ToolCall, Usage};
use serde_json::{Value, json};

use super::{ChatModel, ChatRequest, EventStream, ModelError, ModelEvent, chat::new_call_id};

pub(super) const NAME: &str = "scripted-demo";

const MAX_WORDS: usize = 100_000;
const MAX_DELAY_MS: u64 = 60_000;

const INTRODUCTION: &str = "I am Runmill's offline demo model: no language model is behind this answer. Set OPENAI_API_KEY (and \
OPENAI_BASE_URL for any other OpenAI-compatible server) and start again to talk to a real one. You said: ";

pub(super) struct Offline;

#[async_trait]
impl ChatModel for Offline {
    fn name(&self) -> &str {
        "offline:scripted-demo"
    }

    async fn stream(&self, request: &ChatRequest) -> Result<EventStream, ModelError> {
        let input = request.messages.iter().map(|message| words(&message.text()).count()).sum::<usize>();
        let Answer { text, tool_calls, delay } = answer(request);
        Ok(Box::pin(async_stream::stream! {
            for word in text.split_inclusive(' ') {
                pause(delay).await;
                yield Ok(ModelEvent::TextDelta(word.to_owned()));
            }
            for call in &tool_calls {
                pause(delay).await;
                yield Ok(ModelEvent::ToolCallStarted { id: call.id.clone(), name: call.name.clone() });
                yield Ok(ModelEvent::ToolCallDelta { id: call.id.clone(), delta: call.arguments.to_string() });
            }
            let output = words(&text).count() + tool_calls.len();
            yield Ok(ModelEvent::Done(ModelResponse {
                finish: if tool_calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls },
                message_text: text,
                tool_calls,
                usage: Usage { input_tokens: count(input), output_tokens: count(output), ..Usage::default() },
                model: NAME.to_owned(),
                ..ModelResponse::default()
            }));
        }))
    }
}

async fn pause(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => tokio::task::yield_now().await,
    }
}

/// Its tokens are words.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn count(words: usize) -> u64 {
    u64::try_from(words).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Answer {
    text: String,
    tool_calls: Vec<ToolCall>,
    delay: Option<Duration>,
}

fn answer(request: &ChatRequest) -> Answer {
    if request.output.as_ref().is_some_and(|schema| schema["title"] == "goal_plan") {
        return Answer { text: plan(request).to_string(), ..Answer::default() };
    }
    let asked = request.messages.iter().rposition(|message| message.role == Role::User);
    let said = asked.map(|at| request.messages[at].text()).unwrap_or_default();
    let delay = said.lines().find_map(|line| number(line, "/slow")).map(|ms| Duration::from_millis(ms.min(MAX_DELAY_MS)));
    let since = &request.messages[asked.map_or(0, |at| at + 1)..];
    let results: Vec<_> = since.iter().filter(|message| message.role == Role::Tool).collect();
    if !results.is_empty() {
        return Answer { text: quote(&results, since), delay, ..Answer::default() };
    }
    if let Some(n) = said.lines().find_map(|line| number(line, "/say")) {
        let n = usize::try_from(n).unwrap_or(MAX_WORDS).min(MAX_WORDS);
        let text = (1..=n).map(|i| format!("word-{i}")).collect::<Vec<_>>().join(" ");
        return Answer { text, delay, ..Answer::default() };
    }
    let (offered, unknown): (Vec<_>, Vec<_>) =
        said.lines().filter_map(call).partition(|call| request.tools.iter().any(|tool| tool.name == call.name));
    let text = match (offered.is_empty(), unknown.first()) {
        (false, _) => String::new(),
        (true, Some(call)) => {
            let names: Vec<_> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
            format!("I was not offered a tool named {}; there are: {}.", call.name, names.join(", "))
        }
        (true, None) => format!("{INTRODUCTION}\"{said}\""),
    };
    Answer { text, tool_calls: offered, delay }
}

/// Some tasks that fit any goal: two that run side by side between a first and a last one.
fn plan(request: &ChatRequest) -> Value {
    let first = request.messages.iter().find(|message| message.role == Role::User).map(ChatMessage::text).unwrap_or_default();
    let goal: String = first.lines().next().unwrap_or_default().trim_start_matches("Goal: ").chars().take(120).collect();
    let task = |key: &str, title: String, depends_on: &[&str]| {
        let description = format!("{title}. Be brief.");
        json!({ "key": key, "title": title, "description": description, "depends_on": depends_on })
    };
    json!({ "tasks": [
        task("understand", format!("Say what is wanted: {goal}"), &[]),
        task("means", format!("Collect what is needed for: {goal}"), &["understand"]),
        task("risks", format!("Look for what could go wrong with: {goal}"), &["understand"]),
        task("result", format!("Put together the result: {goal}"), &["means", "risks"]),
    ] })
}

fn quote(results: &[&ChatMessage], since: &[ChatMessage]) -> String {
    let name = |id: Option<&str>| {
        let call = since.iter().flat_map(|message| &message.tool_calls).find(|call| Some(call.id.as_str()) == id);
        call.map_or("the tool", |call| call.name.as_str())
    };
    let lines = results.iter().map(|result| format!("{} answered: {}", name(result.tool_call_id.as_deref()), result.text()));
    lines.collect::<Vec<_>>().join("\n")
}

/// `/say 40 words`: the number after the directive.
fn number(line: &str, directive: &str) -> Option<u64> {
    let mut words = words(line);
    (words.next()? == directive).then(|| words.next()?.parse().ok())?
}

fn call(line: &str) -> Option<ToolCall> {
    let (name, arguments) = match line.trim().strip_prefix("/tool ") {
        Some(rest) => rest.trim().split_once(' ').unwrap_or((rest.trim(), "")),
        None => {
            const WORDS: &str = "call the tool ";
            let at = line.to_ascii_lowercase().find(WORDS)?;
            line[at + WORDS.len()..].split_once(" with ")?
        }
    };
    let arguments = object(arguments.trim());
    (!name.is_empty()).then(|| ToolCall { id: new_call_id(), name: name.trim().to_owned(), arguments })
}

/// The object that the text begins with; what is none is passed on as a model would: as the text itself.
fn object(text: &str) -> Value {
    if text.is_empty() {
        return json!({});
    }
    match serde_json::Deserializer::from_str(text).into_iter::<Value>().next() {
        Some(Ok(Value::Object(object))) => Value::Object(object),
        _ => Value::String(text.to_owned()),
    }
}
