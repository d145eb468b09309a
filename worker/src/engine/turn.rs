//! One model call: announced in the journal, streamed into the log, and its answer kept before it is used.
use std::time::Instant;

use futures::StreamExt;
use runmill_shared::domain::{
    chat::{ModelResponse, ToolCall},
    event::{NewEvent, kind},
    message::{MessageBody, MessagePart, MessageRole, MessageToolCall, NewMessage},
    new_id,
    step::{StepKind, StepWrite},
};
use serde_json::{Value, json};

use super::{
    Failure,
    journal::{Journal, model_key},
};
use crate::models::{ChatModel, ChatRequest, ModelError, ModelEvent};

/// An answer that is journaled, or about to be.
pub struct Answer {
    pub response: ModelResponse,
    pub message_id: String,
    /// What ends the step, when it has not been written yet: the last answer is written with the run's end.
    pub unwritten: Option<Closing>,
}

/// The end of a model call: the journal's row, the event and the message belong into one transaction.
pub struct Closing {
    pub step: StepWrite,
    pub event: NewEvent,
    pub message: NewMessage,
}

/// The answer of an iteration: from the journal, or from the model.
pub async fn answer(
    journal: &mut Journal,
    model: &dyn ChatModel,
    request: &ChatRequest,
    iteration: u32,
) -> Result<Answer, Failure> {
    let key = model_key(iteration);
    if let Some(result) = journal.finished(&key) {
        let response = serde_json::from_value(result.clone()).map_err(|e| unreadable(&key, &e))?;
        let intent = journal.step(&key).map_or(&Value::Null, |s| &s.intent);
        return Ok(Answer { response, message_id: intent["messageId"].as_str().unwrap_or_default().to_owned(), unwritten: None });
    }
    let message_id = format!("msg-{}", new_id());
    let start = journal.starting(&key, StepKind::Model, model.name(), json!({ "messageId": message_id }));
    let started = NewEvent::new(kind::MESSAGE_STARTED, json!({ "messageId": message_id, "role": "assistant" }));
    journal.commit(vec![started], vec![start], Vec::new()).await?;
    match stream(journal, model, request, &message_id).await {
        Ok(response) => {
            let closing = close(journal, &key, &message_id, &response)?;
            Ok(Answer { response, message_id, unwritten: Some(closing) })
        }
        Err(e) => {
            tracing::info!(model = model.name(), error = %e.message, code = e.kind.code(), "a model call failed");
            metrics::counter!("runmill_model_errors_total", "model" => model.name().to_owned(), "code" => e.kind.code())
                .increment(1);
            let abandon = journal.abandoning(&key);
            journal.commit(vec![NewEvent::discarded(&message_id)], vec![abandon], Vec::new()).await?;
            Err(e.into())
        }
    }
}

/// A question to a model whose answer is no message of the thread: journaled under `key`, and not streamed.
pub async fn ask(
    journal: &mut Journal,
    model: &dyn ChatModel,
    request: &ChatRequest,
    key: &str,
) -> Result<ModelResponse, Failure> {
    ask_about(journal, model, request, key, json!({})).await
}

/// As `ask`; `intent` is kept before the model is asked.
pub async fn ask_about(
    journal: &mut Journal,
    model: &dyn ChatModel,
    request: &ChatRequest,
    key: &str,
    intent: Value,
) -> Result<ModelResponse, Failure> {
    if let Some(result) = journal.finished(key) {
        return serde_json::from_value(result.clone()).map_err(|e| unreadable(key, &e));
    }
    let start = journal.starting(key, StepKind::Model, model.name(), intent);
    journal.commit(Vec::new(), vec![start], Vec::new()).await?;
    let asked = Instant::now();
    let mut events = model.stream(request).await?;
    while let Some(event) = events.next().await {
        if let ModelEvent::Done(response) = event? {
            count(model, &response, asked);
            let result = serde_json::to_value(&response).map_err(|e| unreadable(key, &e))?;
            let step = journal.finishing(key, result);
            journal.commit(Vec::new(), vec![step], Vec::new()).await?;
            return Ok(response);
        }
    }
    Err(ModelError::new(crate::models::ModelErrorKind::Truncated).into())
}

fn unreadable(key: &str, e: &serde_json::Error) -> Failure {
    Failure::run("JOURNAL_UNREADABLE", format!("step {key} cannot be read: {e}"), false)
}

async fn stream(
    journal: &Journal,
    model: &dyn ChatModel,
    request: &ChatRequest,
    message_id: &str,
) -> Result<ModelResponse, ModelError> {
    let asked = Instant::now();
    let mut first = true;
    let mut events = model.stream(request).await?;
    while let Some(event) = events.next().await {
        if std::mem::take(&mut first) {
            metrics::histogram!("runmill_model_first_event_seconds", "model" => model.name().to_owned()).record(asked.elapsed());
        }
        match event? {
            ModelEvent::TextDelta(delta) => say(journal, kind::TEXT_DELTA, message_id, delta),
            ModelEvent::ReasoningDelta(delta) => say(journal, kind::REASONING_DELTA, message_id, delta),
            ModelEvent::ToolCallStarted { id, name } => {
                let data = json!({ "toolCallId": id, "name": name, "messageId": message_id });
                journal.emit(NewEvent::new(kind::TOOL_STARTED, data));
            }
            ModelEvent::ToolCallDelta { id, delta } => {
                journal.emit(NewEvent::new(kind::TOOL_DELTA, json!({ "toolCallId": id, "delta": delta })));
            }
            ModelEvent::Done(response) => {
                count(model, &response, asked);
                return Ok(response);
            }
        }
    }
    Err(ModelError::new(crate::models::ModelErrorKind::Truncated))
}

fn say(journal: &Journal, kind: &'static str, message_id: &str, delta: String) {
    journal.emit(NewEvent::new(kind, json!({ "messageId": message_id, "delta": delta })));
}

fn count(model: &dyn ChatModel, response: &ModelResponse, asked: Instant) {
    let name = model.name().to_owned();
    metrics::histogram!("runmill_model_seconds", "model" => name.clone()).record(asked.elapsed());
    metrics::counter!("runmill_model_input_tokens_total", "model" => name.clone()).increment(response.usage.input_tokens);
    metrics::counter!("runmill_model_output_tokens_total", "model" => name).increment(response.usage.output_tokens);
}

fn close(journal: &mut Journal, key: &str, message_id: &str, response: &ModelResponse) -> Result<Closing, Failure> {
    let result = serde_json::to_value(response).map_err(|e| unreadable(key, &e))?;
    let data = json!({ "messageId": message_id, "role": "assistant", "content": response.message_text });
    let text = (!response.message_text.is_empty()).then(|| MessagePart::Text { text: response.message_text.clone() });
    let body = MessageBody {
        parts: text.into_iter().collect(),
        tool_calls: response.tool_calls.iter().map(stored_call).collect(),
        reasoning: (!response.reasoning.is_empty()).then(|| response.reasoning.clone()),
        ..MessageBody::default()
    };
    Ok(Closing {
        step: journal.finishing(key, result),
        event: NewEvent::new(kind::MESSAGE_FINISHED, data),
        message: NewMessage { id: message_id.to_owned(), role: MessageRole::Assistant, body },
    })
}

fn stored_call(call: &ToolCall) -> MessageToolCall {
    let arguments = match &call.arguments {
        Value::String(raw) => raw.clone(),
        arguments => arguments.to_string(),
    };
    MessageToolCall { id: call.id.clone(), name: call.name.clone(), arguments }
}
