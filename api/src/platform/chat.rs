//! What chats, orchestrations and swarms answer: the whole answer once it is there, or its stream.
use poem::{Body, IntoResponse, Response, http::StatusCode};
use poem_openapi::{
    ApiResponse, Object,
    param::Header,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};
use runmill_shared::{
    App, Error, Result,
    domain::{
        caller::Caller,
        dialogue::Call,
        run::{Run, RunUsage},
    },
    services::{
        chat::{self, Answer},
        runs::{accept::Accepted, control},
        stream::{From as Since, follow},
    },
};
use serde_json::Value;
use uuid::Uuid;

use super::{Platform, chat_events::ChatEncoder, executions::Status};
use crate::{
    Stopping,
    http::{
        error::{Dialect, Refusal, status},
        live::{Live, event_stream},
        patience::Patience,
    },
};

/// How much longer than its wait a request may take.
const SLACK: std::time::Duration = std::time::Duration::from_secs(15);

#[derive(Object)]
pub struct TokenUsage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    /// among the input tokens
    cached_input_tokens: u64,
    /// millionths of a US dollar, as far as prices are known
    cost_micros: u64,
}

impl From<RunUsage> for TokenUsage {
    fn from(u: RunUsage) -> Self {
        Self {
            input_tokens: u.input_tokens,
            output_tokens: u.output_tokens,
            total_tokens: u.input_tokens + u.output_tokens,
            cached_input_tokens: u.cached_input_tokens,
            cost_micros: u.cost_micros,
        }
    }
}

#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ToolCallBody {
    id: String,
    name: String,
    arguments: Value,
    result: Option<Value>,
    /// code and message
    error: Option<Value>,
}

impl From<Call> for ToolCallBody {
    fn from(call: Call) -> Self {
        let (result, error) = match call.outcome {
            Some(Ok(result)) => (Some(result), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        Self { id: call.id, name: call.name, arguments: call.arguments, result, error }
    }
}

#[derive(Object)]
pub struct Participant {
    pub agent_id: String,
    pub execution_id: Option<Uuid>,
    /// null of one that failed and was done without
    pub content: Option<String>,
    #[oai(skip_serializing_if_is_none)]
    pub error: Option<String>,
}

/// Those of a team's result; none of an agent's.
pub fn participants(result: &Value) -> Option<Vec<Participant>> {
    let text = |p: &Value, name: &str| p[name].as_str().map(str::to_owned);
    let participant = |p: &Value| Participant {
        agent_id: text(p, "agent_id").unwrap_or_default(),
        execution_id: p["execution_id"].as_str().and_then(|id| id.parse().ok()),
        content: text(p, "content"),
        error: text(p, "error"),
    };
    Some(result["participants"].as_array()?.iter().map(participant).collect())
}

/// An answer that is text, or JSON where the agent's schema wants an object.
pub fn content(result: &Value) -> String {
    match &result["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[derive(Object)]
pub struct ChatBody {
    session_id: String,
    execution_id: Uuid,
    content: String,
    /// of the whole run; empty when streamlined
    tool_calls: Vec<ToolCallBody>,
    token_usage: TokenUsage,
    /// of several agents
    #[oai(skip_serializing_if_is_none)]
    participants: Option<Vec<Participant>>,
}

/// Not answered yet: the run goes on, and `GET /executions/{id}` tells what came of it.
#[derive(Object)]
pub struct PendingBody {
    session_id: String,
    execution_id: Uuid,
    status: Status,
}

#[derive(Object)]
pub struct FailedBody {
    /// why the run failed, for programs
    error: String,
    message: String,
    session_id: String,
    execution_id: Uuid,
}

pub enum ChatReply {
    Done(ChatBody),
    Pending(PendingBody),
    Failed(StatusCode, FailedBody),
}

const JSON: &str = "application/json; charset=utf-8";

impl ChatReply {
    /// Waits for the run, for as long as a chat waits. A server that stops does not: the answer will be where 202 says.
    pub async fn wait(cx: &Waiting<'_>, accepted: &Accepted, is_streamlined: bool) -> Result<Self> {
        let wait = cx.app.config.chat.wait;
        cx.patience.allow(cx.app.config.http.request_timeout + wait + SLACK);
        let answer = match cx.stopping.0.run_until_cancelled(chat::answer(cx.app, cx.caller, accepted, wait)).await {
            Some(answer) => answer?,
            None => Answer { run: control::get(cx.app, cx.caller, accepted.id).await?, calls: Vec::new() },
        };
        Ok(Self::new(answer, is_streamlined))
    }

    fn new(Answer { run, calls }: Answer, is_streamlined: bool) -> Self {
        if let Some((kind, error)) = chat::failure(&run) {
            let (session_id, execution_id) = (run.thread, run.id);
            return Self::Failed(
                status(kind),
                FailedBody { error: error.code, message: error.message, session_id, execution_id },
            );
        }
        let Run { thread: session_id, id: execution_id, result: Some(result), usage, .. } = run else {
            return Self::Pending(PendingBody { session_id: run.thread, execution_id: run.id, status: run.state.into() });
        };
        let calls = if is_streamlined { Vec::new() } else { calls };
        Self::Done(ChatBody {
            session_id,
            execution_id,
            content: content(&result),
            tool_calls: calls.into_iter().map(ToolCallBody::from).collect(),
            token_usage: usage.unwrap_or_default().into(),
            participants: participants(&result),
        })
    }
}

/// What a request needs that waits for a run.
pub struct Waiting<'a> {
    pub app: &'a App,
    pub caller: &'a Caller,
    pub patience: Patience,
    pub stopping: Stopping,
}

impl IntoResponse for ChatReply {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Done(body) => (StatusCode::OK, body.to_json_string()),
            Self::Pending(body) => (StatusCode::ACCEPTED, body.to_json_string()),
            Self::Failed(status, body) => (status, body.to_json_string()),
        };
        Response::builder().status(status).content_type(JSON).body(body)
    }
}

fn meta(
    status: u16,
    description: &'static str,
    content_type: &'static str,
    schema: Option<poem_openapi::registry::MetaSchemaRef>,
) -> MetaResponse {
    let content = schema.map(|schema| MetaMediaType { content_type, schema }).into_iter().collect();
    MetaResponse { description, status: Some(status), status_range: None, content, headers: vec![] }
}

impl ApiResponse for ChatReply {
    fn meta() -> MetaResponses {
        let done = meta(200, "the answer", JSON, Some(ChatBody::schema_ref()));
        let pending = meta(202, "not answered yet; the run goes on", JSON, Some(PendingBody::schema_ref()));
        MetaResponses { responses: vec![done, pending] }
    }

    fn register(registry: &mut Registry) {
        ChatBody::register(registry);
        PendingBody::register(registry);
        FailedBody::register(registry);
    }
}

/// The frames of a run; with `Last-Event-ID`, those of the run that it names, after the one that it names.
pub struct ChatStream(Option<Body>);

impl ChatStream {
    /// Streams a run from its first event.
    pub async fn start(cx: &Streaming<'_>, accepted: &Accepted, is_streamlined: bool) -> Result<Self> {
        let encoder = ChatEncoder::new(accepted.id, accepted.thread.clone(), is_streamlined);
        let follow = follow(cx.app, cx.caller, &accepted.thread, Since::Run(accepted.id)).await?;
        Ok(Self::live(cx, follow, encoder, accepted.id))
    }

    /// Goes on after a frame that its client has seen.
    ///
    /// # Errors
    /// `Malformed` for an id that is none, `RUN_NOT_FOUND` when its run is unknown or another's.
    pub async fn resume(cx: &Streaming<'_>, last_event_id: &str, is_streamlined: bool) -> Result<Self> {
        let seen = Seen::parse(last_event_id)?;
        let run = control::get(cx.app, cx.caller, seen.run_id).await?;
        let mut encoder = ChatEncoder::new(run.id, run.thread.clone(), is_streamlined);
        let follow = follow(cx.app, cx.caller, &run.thread, Since::After(seen.after())).await?;
        if run.state.is_ended() && follow.is_over() {
            return Ok(Self(None));
        }
        follow.before_cursor(|page| encoder.seen(page)).await?;
        encoder.skip(seen.frames);
        Ok(Self::live(cx, follow, encoder, run.id))
    }

    fn live(cx: &Streaming<'_>, follow: runmill_shared::services::stream::Follow, encoder: ChatEncoder, run: Uuid) -> Self {
        let (app, idle, stopping) = (cx.app.clone(), cx.app.config.chat.idle, cx.stopping.0.clone());
        Self(Some(Live { app, follow, encoder, idle, until: Some(run), stopping }.into_body()))
    }
}

/// What a request needs that streams a run.
pub struct Streaming<'a> {
    pub app: &'a App,
    pub caller: &'a Caller,
    pub stopping: Stopping,
}

/// The header by which a client says what it has seen.
pub type LastEventId = Header<Option<String>>;

/// `{run}:{seq}` is a whole event; `{run}:{seq}.{n}` the n-th frame of one that has more.
struct Seen {
    run_id: Uuid,
    seq: i64,
    /// Of the event `seq`: how many were seen; 0: all.
    frames: usize,
}

impl Seen {
    fn parse(id: &str) -> Result<Self> {
        let parse = || {
            let (run, place) = id.split_once(':')?;
            let (seq, frames) = place.split_once('.').map_or((place, Some(0)), |(seq, n)| (seq, n.parse().ok()));
            let seq = seq.parse().ok().filter(|seq| *seq >= 1)?;
            Some(Self { run_id: run.parse().ok()?, seq, frames: frames? })
        };
        parse().ok_or_else(|| Error::malformed("Last-Event-ID: must be the id of a frame of this stream"))
    }

    fn after(&self) -> i64 {
        if self.frames == 0 { self.seq } else { self.seq - 1 }
    }
}

impl IntoResponse for ChatStream {
    fn into_response(self) -> Response {
        self.0.map_or_else(|| StatusCode::NO_CONTENT.into_response(), event_stream)
    }
}

impl ApiResponse for ChatStream {
    fn meta() -> MetaResponses {
        let stream = meta(
            200,
            "frames token, tool_call, tool_result, discard, done and error",
            "text/event-stream",
            Some(String::schema_ref()),
        );
        MetaResponses { responses: vec![stream, meta(204, "the run has ended, and its end was seen", JSON, None)] }
    }

    fn register(_: &mut Registry) {}
}

/// What a stream says of a failure, as the dialect says it elsewhere.
pub fn error_frame(code: String, message: String) -> Value {
    let refusal = Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: code.into(),
        message: message.into(),
        fields: Vec::new(),
        retry_after: None,
    };
    Platform::body(refusal).to_json().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_was_seen() {
        let run = "01900000-0000-7000-8000-000000000001";
        let seen = |text: &str| Seen::parse(text).ok().map(|s| (s.after(), s.frames));
        assert_eq!(seen(&format!("{run}:7")), Some((7, 0)));
        assert_eq!(seen(&format!("{run}:7.2")), Some((6, 2)));
        for bad in ["", "7", run, "x:7", &format!("{run}:0"), &format!("{run}:-1"), &format!("{run}:7.x"), &format!("{run}:")] {
            assert_eq!(seen(bad), None, "{bad}");
        }
    }
}
