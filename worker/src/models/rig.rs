//! Drives any completion wire of rig: our request in, our events out.
//!
//! What rig 0.44 gives as it is: deltas of text, reasoning and arguments; calls put together, with and without an index; usage; the
//! body and headers of a refusal; an error inside a stream; `Truncated` when no finish reason came. What is added here: the idle
//! limit (`http.rs`), call ids from the first delta on (rig tells the provider's only at a call's end), and the end frame.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future};
use rig_core::{
    Model,
    completion::{self, CompletionRequest, CompletionResponse, GenerationOptions, OnUnsupported},
    driver::{Exchange, Opening, Transport},
    error::ProviderError,
    message::{self, AssistantContent, Origin},
    operation::Completion,
    streaming::{CompletionStream, Item, Part, PartKind, StreamEvent},
    wire::{Encoded, Wire, WireFrame},
};
use runmill_shared::{
    config::Secret,
    domain::chat::{FinishReason, ModelResponse, ToolCall, Usage},
};
use serde_json::Value;

use super::{
    ChatModel, ChatRequest, EventStream, ModelError, ModelErrorKind, ModelEvent, ToolChoice, chat::new_call_id, history,
    http::Http,
};

/// A model behind one of rig's wires.
pub(super) struct RigModel<W> {
    /// `provider:name`.
    pub name: String,
    pub wire: W,
    pub http: Http,
    /// To be cut out of error messages.
    pub key: Secret,
    /// The frame that ends a stream on this wire, when it has one.
    pub end_frame: Option<&'static str>,
    /// What the wire's frames need before rig reads them, or which are kept from it; one for each answer.
    pub repair: fn() -> Repair,
    /// What the request needs before it is sent.
    pub prepare: Prepare,
    /// Whether what the model thought goes back to it with the conversation.
    pub takes_reasoning: bool,
}

pub(super) type Repair = Box<dyn FnMut(WireFrame) -> Option<WireFrame> + Send>;
pub(super) type Prepare = fn(&mut Encoded, &Secret);

pub(super) fn as_it_is(_: &mut Encoded, _: &Secret) {}

#[async_trait]
impl<W> ChatModel for RigModel<W>
where
    W: Wire<Op = Completion, Payload = Encoded, Frame = WireFrame> + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn stream(&self, request: &ChatRequest) -> Result<EventStream, ModelError> {
        let transport = Watched {
            http: self.http.clone(),
            end_frame: self.end_frame,
            repair: self.repair,
            prepare: self.prepare,
            key: self.key.clone(),
            ended: Arc::default(),
        };
        let ended = self.end_frame.map(|_| transport.ended.clone());
        let reply = Model::new(self.wire.clone(), transport)
            .stream(completion_request(request, self.thinker().as_ref())?)
            .map_err(|error| ModelError::from_rig(&error, &self.key))?;
        Ok(events(reply, ended, self.name.clone(), self.key.clone()))
    }
}

impl<W: Wire> RigModel<W> {
    fn thinker(&self) -> Option<Origin> {
        let described = self.wire.describe();
        let target = described.replay.filter(|_| self.takes_reasoning)?;
        Some(Origin::new(target.api(), target.provider(), target.model()))
    }
}

/// A transport that notes whether the end frame came by: rig takes a finish reason for the end, and does not tell.
#[derive(Clone)]
struct Watched {
    http: Http,
    end_frame: Option<&'static str>,
    repair: fn() -> Repair,
    prepare: Prepare,
    key: Secret,
    ended: Arc<AtomicBool>,
}

impl<W: Wire<Payload = Encoded, Frame = WireFrame>> Transport<W> for Watched {
    fn send(&self, mut payload: Encoded, exchange: Exchange) -> Opening<WireFrame> {
        (self.prepare)(&mut payload, &self.key);
        let opening = Transport::<W>::send(&self.http, payload, exchange);
        let (end, ended, mut repair) = (self.end_frame, self.ended.clone(), (self.repair)());
        Opening::new(async move {
            let pass = move |frame: WireFrame| {
                if end.is_some_and(|end| frame.as_str() == end) {
                    ended.store(true, Ordering::Relaxed);
                }
                future::ready(Ok(repair(frame)))
            };
            Ok(opening.await?.map_frames(|frames| frames.try_filter_map(pass)))
        })
    }
}

fn completion_request(request: &ChatRequest, thinker: Option<&Origin>) -> Result<CompletionRequest, ModelError> {
    let mut completion = CompletionRequest::from(history::messages(&request.messages, thinker));
    for tool in &request.tools {
        let name = history::tool_name(&tool.name)?;
        completion.tools.push(completion::ToolDefinition::new(name, &tool.description, tool.parameters.clone()));
    }
    completion.tool_choice = match &request.tool_choice {
        _ if request.tools.is_empty() => None,
        ToolChoice::Auto => None,
        ToolChoice::Never => Some(message::ToolChoice::None),
        ToolChoice::Required => Some(message::ToolChoice::Required),
        ToolChoice::Named(name) => Some(message::ToolChoice::Specific { function_names: vec![history::tool_name(name)?] }),
    };
    completion.temperature = request.temperature;
    completion.max_tokens = request.max_tokens.into_iter().chain(request.most_tokens).min();
    // A schema that rig cannot carry is left to the system prompt.
    completion.output_schema = request.output.clone().and_then(|schema| rig_core::schemars::Schema::try_from(schema).ok());
    // A reasoning model that refuses a temperature gets none, instead of failing the run.
    completion.options = GenerationOptions::default().on_unsupported(OnUnsupported::Ignore);
    Ok(completion)
}

fn events(mut reply: CompletionStream, ended: Option<Arc<AtomicBool>>, name: String, key: Secret) -> EventStream {
    let failed = move |error: &ProviderError, key: &Secret| {
        let seen = ModelError::from_rig(error, key);
        tracing::warn!(model = name, code = seen.kind.code(), cause = root_cause(error), "{}", seen.message);
        seen
    };
    Box::pin(async_stream::stream! {
        let mut calls = Calls::default();
        while let Some(item) = reply.next().await {
            match item {
                Ok(Item::Event(event)) => if let Some(event) = calls.absorb(event) {
                    yield Ok(event);
                },
                Ok(Item::Unknown(_)) => {}
                Err(error) => {
                    yield Err(failed(&error, &key));
                    return;
                }
            }
        }
        yield match reply.finish().await {
            Ok(response) => done(&response, calls, ended.is_none_or(|ended| ended.load(Ordering::Relaxed))),
            Err(error) => Err(failed(&error, &key)),
        };
    })
}

/// The answer, when it is whole. Some servers close without their end frame: then the usage, which comes after all content, must
/// have arrived.
fn done(response: &CompletionResponse, calls: Calls, ended: bool) -> Result<ModelEvent, ModelError> {
    use completion::FinishReason as F;
    if !ended && response.usage.output_tokens.is_none() {
        return Err(ModelError::new(ModelErrorKind::Truncated));
    }
    let finish = match response.finish_reason() {
        Some(F::Stop) => FinishReason::Stop,
        Some(F::Length) => FinishReason::Length,
        Some(F::ToolCalls) if calls.finished.is_empty() => return Err(ModelError::new(ModelErrorKind::Malformed)),
        Some(F::ToolCalls) => FinishReason::ToolCalls,
        Some(F::ContentFilter) => FinishReason::ContentFilter,
        Some(F::Other(reason)) if let Some(kind) = failure(&reason) => return Err(ModelError::new(kind)),
        Some(_) | None => FinishReason::Other,
    };
    let usage = Usage {
        input_tokens: response.usage.input_tokens.unwrap_or(0),
        output_tokens: response.usage.output_tokens.unwrap_or(0),
        cached_input_tokens: response.usage.cached_input_tokens.unwrap_or(0),
        cost_micros: 0,
    };
    Ok(ModelEvent::Done(ModelResponse {
        message_text: response.text(),
        reasoning: response.reasoning(),
        tool_calls: calls.finished.into_values().collect(),
        usage,
        finish,
        model: response.model().unwrap_or(&response.origin.model).to_owned(),
        ..ModelResponse::default()
    }))
}

/// Finish reasons that say that the answer is not whole.
fn failure(reason: &str) -> Option<ModelErrorKind> {
    Some(match reason {
        // How gateways end a stream whose upstream failed, and DeepSeek one that it cannot go on with.
        "error" | "insufficient_system_resource" => ModelErrorKind::Overloaded,
        // Gemini: what the model wrote as a call is none; and any reason that has no name.
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" | "MALFORMED_RESPONSE" | "OTHER" => {
            ModelErrorKind::Malformed
        }
        "RECITATION" | "LANGUAGE" => ModelErrorKind::ContentFilter,
        _ => return None,
    })
}

/// The calls of one answer, in the order in which they began.
#[derive(Default)]
struct Calls {
    ids: BTreeMap<Part, String>,
    finished: BTreeMap<Part, ToolCall>,
}

impl Calls {
    fn id(&mut self, part: Part) -> String {
        self.ids.entry(part).or_insert_with(new_call_id).clone()
    }

    fn absorb(&mut self, event: StreamEvent) -> Option<ModelEvent> {
        match event {
            StreamEvent::Text { text, .. } => Some(ModelEvent::TextDelta(text)),
            StreamEvent::Reasoning { text, .. } => Some(ModelEvent::ReasoningDelta(text)),
            StreamEvent::Start { part, kind: PartKind::ToolCall, name: Some(name) } => {
                Some(ModelEvent::ToolCallStarted { id: self.id(part), name: name.into() })
            }
            StreamEvent::Arguments { part, json } => Some(ModelEvent::ToolCallDelta { id: self.id(part), delta: json }),
            StreamEvent::End { part, content: AssistantContent::ToolCall(call) } => {
                let arguments = call.function.invalid_arguments.map_or(Value::Object(call.function.arguments), Value::String);
                let call = ToolCall { id: self.id(part), name: call.function.name.into(), arguments };
                self.finished.insert(part, call);
                None
            }
            StreamEvent::Start { .. } | StreamEvent::End { .. } => None,
        }
    }
}

/// For the log; the innermost cause names no address and no header.
fn root_cause(error: &ProviderError) -> String {
    let ProviderError::Http(http) = error else {
        return error.kind().code().to_owned();
    };
    let mut cause: &dyn std::error::Error = match http.as_ref() {
        rig_core::http_client::Error::Instance(cause) => cause.as_ref(),
        other => other,
    };
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
