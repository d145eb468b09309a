use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::Gate;

/// What happens in an answer, in order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A `delta` of the one choice.
    Delta(Value),
    Finish(&'static str),
    /// Sent when the request asks for it.
    Usage,
    Done,
    /// Any other frame.
    Frame(Value),
    Hold(Gate),
    /// The connection is cut.
    Cut,
}

/// Who is told that an answer was given.
#[derive(Clone)]
pub(super) struct Told(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// A scripted answer. It streams word by word; a request without `stream` gets the same answer whole.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    /// The body of a refusal; else the steps are the answer.
    pub(super) refusal: Option<Value>,
    /// Before the head of the response.
    pub(super) silence: Option<Duration>,
    pub(super) delay: Option<Duration>,
    pub(super) usage: (u64, u64),
    pub(super) steps: Vec<Step>,
    pub(super) told: Option<Told>,
}

fn words(text: &str) -> Vec<Step> {
    text.split_inclusive(' ').map(|word| Step::Delta(json!({"content": word}))).collect()
}

impl Reply {
    fn new(steps: Vec<Step>) -> Self {
        let tokens = u64::try_from(steps.len()).unwrap_or(u64::MAX);
        Self { status: 200, retry_after: None, refusal: None, silence: None, delay: None, usage: (7, tokens), steps, told: None }
    }

    fn ending(mut steps: Vec<Step>, finish: &'static str) -> Self {
        let tokens = u64::try_from(steps.len()).unwrap_or(u64::MAX);
        steps.extend([Step::Finish(finish), Step::Usage, Step::Done]);
        Self { usage: (7, tokens), ..Self::new(steps) }
    }

    pub fn text(text: &str) -> Self {
        Self::ending(words(text), "stop")
    }

    /// `(name, arguments)`; the ids are `call_0`, `call_1` … as they come. The fragments of parallel calls are interleaved.
    pub fn tool_calls<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let calls: Vec<_> = calls.into_iter().collect();
        let fragment = |call: Value| Step::Delta(json!({"tool_calls": [call]}));
        let mut steps = Vec::new();
        let mut rest = Vec::new();
        for (i, (name, arguments)) in calls.iter().enumerate() {
            let function = json!({"name": name, "arguments": ""});
            steps.push(fragment(json!({"index": i, "id": format!("call_{i}"), "type": "function", "function": function})));
            rest.push(pieces(&arguments.to_string()).into_iter());
        }
        loop {
            let round: Vec<_> = rest.iter_mut().enumerate().filter_map(|(i, pieces)| Some((i, pieces.next()?))).collect();
            if round.is_empty() {
                break;
            }
            steps.extend(round.into_iter().map(|(i, piece)| fragment(json!({"index": i, "function": {"arguments": piece}}))));
        }
        Self::ending(steps, "tool_calls")
    }

    /// Calls as some servers send them: no `index`, and an `id` in the first fragment of each only.
    pub fn missing_index<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut steps = Vec::new();
        for (i, (name, arguments)) in calls.into_iter().enumerate() {
            let first = json!({"id": format!("call_{i}"), "type": "function", "function": {"name": name, "arguments": ""}});
            let pieces = pieces(&arguments.to_string());
            let rest = pieces.into_iter().map(|piece| json!({"function": {"arguments": piece}}));
            steps.extend(std::iter::once(first).chain(rest).map(|call| Step::Delta(json!({"tool_calls": [call]}))));
        }
        Self::ending(steps, "tool_calls")
    }

    /// A call of `calculator` whose arguments stop in the middle: `{"expression": "2+`.
    pub fn half_json_tool_arguments() -> Self {
        let function = json!({"name": "calculator", "arguments": "{\"expression\": \"2+"});
        let call = json!({"index": 0, "id": "call_0", "type": "function", "function": function});
        Self::ending(vec![Step::Delta(json!({"tool_calls": [call]}))], "tool_calls")
    }

    /// A refusal with that status.
    pub fn status(status: u16) -> Self {
        let kind = if status == 429 { "rate_limit_exceeded" } else { "scripted_failure" };
        Self { status, ..Self::refusal(json!({"error": {"message": "scripted failure", "type": kind, "code": kind}})) }
    }

    /// 400 with this body.
    pub fn refusal(body: Value) -> Self {
        Self { status: 400, refusal: Some(body), ..Self::new(Vec::new()) }
    }

    /// As OpenAI says it.
    pub fn context_overflow() -> Self {
        let message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.";
        Self::refusal(json!({"error": {
            "message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
        }}))
    }

    /// Text and a finish reason, and then the end: neither usage nor `[DONE]`.
    pub fn no_done(text: &str) -> Self {
        let steps = words(text).into_iter().chain([Step::Finish("stop")]);
        Self::new(steps.collect())
    }

    /// The connection is cut after `n` words.
    pub fn truncated_after(n: usize, text: &str) -> Self {
        Self::new(words(text).into_iter().take(n).chain([Step::Cut]).collect())
    }

    /// The stream ends after `n` words, properly closed, as if that were all.
    pub fn unfinished_after(n: usize, text: &str) -> Self {
        Self::new(words(text).into_iter().take(n).collect())
    }

    /// The connection stays open for so long without a byte; then the answer is `late`.
    pub fn silence(duration: Duration) -> Self {
        Self { silence: Some(duration), ..Self::text("late") }
    }

    /// Some words, then an error object where a chunk belongs.
    pub fn mid_stream_error() -> Self {
        let error = json!({"error": {"message": "the server had an error", "type": "server_error", "code": null}});
        Self::new(words("this will not").into_iter().chain([Step::Frame(error)]).collect())
    }

    /// The connection is cut after the head of the response, before any of its body.
    pub fn reset() -> Self {
        Self::new(vec![Step::Cut])
    }

    /// What a 429 or 503 asks for: seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.to_string());
        self
    }

    /// Called when the answer was given to its scripted end: not when the client has left before.
    #[must_use]
    pub fn then(mut self, told: impl Fn() + Send + Sync + 'static) -> Self {
        self.told = Some(Told(Arc::new(told)));
        self
    }

    /// Before each chunk.
    #[must_use]
    pub fn delay_per_token(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// The answer begins when the gate opens; the head of the response is sent before.
    #[must_use]
    pub fn hold_until(self, gate: &Gate) -> Self {
        self.hold_after(0, gate)
    }

    /// `n` chunks are sent, then the answer waits for the gate.
    #[must_use]
    pub fn hold_after(mut self, n: usize, gate: &Gate) -> Self {
        self.steps.insert(n.min(self.steps.len()), Step::Hold(gate.clone()));
        self
    }

    /// Reasoning in front of the answer.
    #[must_use]
    pub fn reasoning(mut self, text: &str) -> Self {
        let thoughts = text.split_inclusive(' ').map(|word| Step::Delta(json!({"reasoning_content": word})));
        self.steps.splice(0..0, thoughts);
        self
    }

    /// `finish_reason` in place of the usual one.
    #[must_use]
    pub fn finish(mut self, reason: &'static str) -> Self {
        for step in &mut self.steps {
            if let Step::Finish(finish) = step {
                *finish = reason;
            }
        }
        self
    }

    /// Tokens to report: of the input, of the output.
    #[must_use]
    pub fn usage(mut self, input: u64, output: u64) -> Self {
        self.usage = (input, output);
        self
    }
}

/// Arguments stream in fragments of a few characters.
fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    characters.chunks(5).map(|piece| piece.iter().collect()).collect()
}
