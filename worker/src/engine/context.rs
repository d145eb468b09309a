//! What the model sees: the agent's instructions, the state and context that came with the run, and the thread's conversation.
use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use runmill_shared::{
    App,
    domain::{
        caller::Owner,
        chat::{ChatMessage, Part, Role, Source, ToolCall},
        message::{Message, MessageBody, MessagePart, MessageRole, PartKind, Source as Stored},
        run::Claimed,
    },
    jobs::AgentRun,
    services::{attachments, runs::execution},
};
use serde_json::Value;

use super::Failure;

/// The conversation up to this run's own input. `own` are the ids of what this run has said itself: that comes from its journal.
pub async fn assemble(
    app: &App,
    run: &Claimed,
    instructions: &str,
    input: &AgentRun,
    own: &HashSet<String>,
) -> Result<Vec<ChatMessage>, Failure> {
    let stored = execution::context(app, run).await?;
    let mut messages = vec![ChatMessage::system(system(instructions, input))];
    for message in stored.iter().filter(|m| !own.contains(&m.id)) {
        messages.extend(convert(app, run, message).await?);
    }
    answer_open_calls(&mut messages);
    Ok(messages)
}

/// What changes least comes first, so that providers can cache it.
fn system(instructions: &str, input: &AgentRun) -> String {
    let mut text = instructions.to_owned();
    for item in &input.context {
        text.push_str(&format!("\n\n{}:\n{}", item.description, item.value));
    }
    if let Some(state) = input.state.as_ref().filter(|s| !is_empty(s)) {
        text.push_str(&format!("\n\nThe application's state, as JSON:\n{state}"));
    }
    text
}

fn is_empty(state: &Value) -> bool {
    state.is_null() || state.as_object().is_some_and(serde_json::Map::is_empty)
}

async fn convert(app: &App, run: &Claimed, message: &Message) -> Result<Option<ChatMessage>, Failure> {
    let role = match message.role {
        MessageRole::User => Role::User,
        MessageRole::Assistant => Role::Assistant,
        MessageRole::System | MessageRole::Developer => Role::System,
        MessageRole::Tool => return Ok(Some(tool_result(&message.body))),
        // What an agent thought, and what a client showed, is not part of the conversation.
        MessageRole::Reasoning | MessageRole::Activity => return Ok(None),
    };
    let mut content = Vec::with_capacity(message.body.parts.len());
    for part in &message.body.parts {
        content.push(convert_part(app, run, part).await?);
    }
    let mut chat = ChatMessage::new(role, content);
    chat.tool_calls = message.body.tool_calls.iter().map(call).collect();
    Ok(Some(chat))
}

fn call(stored: &runmill_shared::domain::message::MessageToolCall) -> ToolCall {
    let arguments = serde_json::from_str(&stored.arguments).unwrap_or_else(|_| Value::String(stored.arguments.clone()));
    ToolCall { id: stored.id.clone(), name: stored.name.clone(), arguments }
}

fn tool_result(body: &MessageBody) -> ChatMessage {
    let text = match &body.error {
        Some(error) => format!("error: {error}\n{}", body.plain()),
        None => body.plain(),
    };
    ChatMessage::tool(body.tool_call_id.clone().unwrap_or_default(), text)
}

async fn convert_part(app: &App, run: &Claimed, part: &MessagePart) -> Result<Part, Failure> {
    let MessagePart::Media { kind, mime_type, source } = part else {
        let MessagePart::Text { text } = part else { return Ok(Part::Unknown) };
        return Ok(Part::text(text));
    };
    let (source, mime_type) = match source {
        Stored::Url { url } => (Source::Url(url.clone()), mime_type.clone()),
        Stored::Data { base64 } => {
            let mime_type = mime_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned());
            (Source::Data { mime_type: mime_type.clone(), base64: base64.clone() }, Some(mime_type))
        }
        Stored::Attachment { bucket, path } => {
            let owner = Owner::of_row(&run.owner);
            let row = attachments::owned(app, &owner, bucket, path).await?;
            let bytes = app.blobs.get_bytes(path, app.config.attachments.max_bytes).await?;
            (Source::Data { mime_type: row.mime_type.clone(), base64: BASE64_STANDARD.encode(&bytes) }, Some(row.mime_type))
        }
    };
    Ok(of_type(*kind, mime_type.as_deref().unwrap_or_default(), source))
}

fn of_type(kind: PartKind, mime_type: &str, source: Source) -> Part {
    match (kind, mime_type.split('/').next().unwrap_or_default()) {
        (PartKind::Image, _) | (PartKind::Binary, "image") => Part::Image { source },
        (PartKind::Audio, _) | (PartKind::Binary, "audio") => Part::Audio { source },
        (PartKind::Video, _) | (PartKind::Binary, "video") => Part::Video { source },
        (PartKind::Document | PartKind::Binary, _) => Part::Document { source },
    }
}

/// Providers refuse a conversation in which a call has no result. One that never got any (its run was cancelled, or failed) says so.
fn answer_open_calls(messages: &mut Vec<ChatMessage>) {
    let answered: HashSet<String> = messages.iter().filter_map(|m| m.tool_call_id.clone()).collect();
    let mut at = 0;
    while at < messages.len() {
        let open: Vec<_> = messages[at].tool_calls.iter().map(|c| c.id.clone()).filter(|id| !answered.contains(id)).collect();
        at += 1;
        for id in open {
            messages.insert(at, ChatMessage::tool(id, "this call was not executed"));
            at += 1;
        }
    }
    // A result whose call is gone answers nothing.
    let called: HashSet<String> = messages.iter().flat_map(|m| &m.tool_calls).map(|c| c.id.clone()).collect();
    messages.retain(|m| m.tool_call_id.as_ref().is_none_or(|id| called.contains(id)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_call_has_a_result_and_every_result_a_call() {
        let mut asks = ChatMessage::assistant("");
        asks.tool_calls = ["a", "b"].map(|id| ToolCall { id: id.into(), name: "now".into(), arguments: json!({}) }).into();
        let mut messages = vec![ChatMessage::user("x"), asks, ChatMessage::tool("a", "1"), ChatMessage::tool("z", "2")];
        answer_open_calls(&mut messages);
        let ids: Vec<_> = messages.iter().map(|m| m.tool_call_id.as_deref().unwrap_or("-")).collect();
        assert_eq!(ids, ["-", "-", "b", "a"]);
    }
}
