//! What the model sees: the agent's instructions, the state and context that came with the run, what is known of the user, the goal
//! that it is about, and the thread's conversation, from its latest summary on.
use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use runmill_shared::{
    App, ErrorKind,
    domain::{
        agent::Agent,
        caller::Owner,
        chat::{ChatMessage, Part, Role, Source, ToolCall},
        memory::Memory,
        message::{Message, MessageBody, MessagePart, MessageRole, PartKind, Source as Stored},
        run::Claimed,
        step::StepKind,
    },
    jobs::AgentRun,
    services::{attachments, goals, memories, runs::execution},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Failure,
    conversation::{Conversation, Entry},
    format::Format,
    journal::Journal,
    planning,
};

/// A thread that is shorter has no summary.
const SUMMARISED: usize = 3;

/// The conversation up to this run's own input: what the run has said itself comes from its journal.
pub async fn assemble(
    app: &App,
    journal: &Journal,
    agent: &Agent,
    format: Option<&Format>,
    input: &AgentRun,
) -> Result<Conversation, Failure> {
    let run = &journal.run;
    let own = own_messages(journal);
    let mut stored = execution::context(app, run).await?;
    stored.retain(|m| !own.contains(&m.id));
    let summary = if stored.len() < SUMMARISED { None } else { latest_summary(app, journal, &mut stored).await? };
    let memories = if agent.definition.memory.recall { recall(app, run, &stored).await? } else { Vec::new() };
    let goal = match input.options.goal_id {
        Some(id) => goal(app, run, id).await?,
        None => None,
    };
    let mut entries = Vec::with_capacity(stored.len());
    for message in &stored {
        entries.extend(convert(app, run, message).await?.map(|chat| (Some(message.id.clone()), chat)));
    }
    answer_open_calls(&mut entries);
    let mut system = system(&agent.definition.system_prompt, format, input, &memories);
    goal.into_iter().for_each(|goal| system.push_str(&format!("\n\n{goal}")));
    Ok(Conversation::new(system, summary, entries))
}

/// The goal that the run is about, as it is now; nothing when it has been deleted.
async fn goal(app: &App, run: &Claimed, id: Uuid) -> Result<Option<String>, Failure> {
    match goals::board(app, &Owner::of_row(&run.owner), id).await {
        Ok(board) => Ok(Some(planning::about(&board))),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Ids of what this run has said itself.
fn own_messages(journal: &Journal) -> HashSet<String> {
    let mut own = HashSet::new();
    for step in journal.steps().filter(|s| s.kind == StepKind::Model) {
        own.extend(step.intent["messageId"].as_str().map(str::to_owned));
        let calls = step.result.as_ref().and_then(|r| r["tool_calls"].as_array().cloned()).unwrap_or_default();
        own.extend(calls.iter().filter_map(|c| c["id"].as_str().map(|id| format!("{id}-result"))));
    }
    own
}

/// The latest summary of what comes before this run, and what it stands for is left out. The run's own are in its journal, at the
/// place where it made them.
async fn latest_summary(app: &App, journal: &Journal, stored: &mut Vec<Message>) -> Result<Option<String>, Failure> {
    let own: HashSet<_> = journal.steps().filter_map(|s| s.intent["upto"].as_str()).collect();
    for summary in execution::summaries(app, &journal.run).await?.into_iter().filter(|s| !own.contains(s.upto.as_str())) {
        if let Some(at) = stored.iter().position(|m| m.id == summary.upto) {
            stored.drain(..=at);
            return Ok(Some(summary.text));
        }
    }
    Ok(None)
}

/// What is known of the user that has to do with what they said last.
async fn recall(app: &App, run: &Claimed, stored: &[Message]) -> Result<Vec<Memory>, Failure> {
    let Some(said) = stored.iter().rfind(|m| m.role == MessageRole::User) else { return Ok(Vec::new()) };
    let owner = Owner::of_row(&run.owner);
    Ok(memories::search(app, &owner, &said.body.plain(), app.config.memory.recall).await?)
}

/// What changes least comes first, so that providers can cache it.
fn system(instructions: &str, format: Option<&Format>, input: &AgentRun, memories: &[Memory]) -> String {
    let mut text = instructions.to_owned();
    if let Some(format) = format {
        text.push_str("\n\n");
        text.push_str(&format.instructions());
    }
    for item in &input.context {
        text.push_str(&format!("\n\n{}:\n{}", item.description, item.value));
    }
    if let Some(state) = input.state.as_ref().filter(|s| !is_empty(s)) {
        text.push_str(&format!("\n\nThe application's state, as JSON:\n{state}"));
    }
    if !memories.is_empty() {
        text.push_str("\n\nWhat you know of the user from before:");
        memories.iter().for_each(|m| text.push_str(&format!("\n- {}", m.text)));
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
fn answer_open_calls(entries: &mut Vec<Entry>) {
    let answered: HashSet<String> = entries.iter().filter_map(|(_, m)| m.tool_call_id.clone()).collect();
    let mut at = 0;
    while at < entries.len() {
        let open: Vec<_> = entries[at].1.tool_calls.iter().map(|c| c.id.clone()).filter(|id| !answered.contains(id)).collect();
        at += 1;
        for id in open {
            entries.insert(at, (None, ChatMessage::tool(id, "this call was not executed")));
            at += 1;
        }
    }
    // A result whose call is gone answers nothing.
    let called: HashSet<String> = entries.iter().flat_map(|(_, m)| &m.tool_calls).map(|c| c.id.clone()).collect();
    entries.retain(|(_, m)| m.tool_call_id.as_ref().is_none_or(|id| called.contains(id)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_call_has_a_result_and_every_result_a_call() {
        let mut asks = ChatMessage::assistant("");
        asks.tool_calls = ["a", "b"].map(|id| ToolCall { id: id.into(), name: "now".into(), arguments: json!({}) }).into();
        let messages = [ChatMessage::user("x"), asks, ChatMessage::tool("a", "1"), ChatMessage::tool("z", "2")];
        let mut entries: Vec<Entry> = messages.into_iter().map(|m| (Some(String::new()), m)).collect();
        answer_open_calls(&mut entries);
        let ids: Vec<_> = entries.iter().map(|(_, m)| m.tool_call_id.as_deref().unwrap_or("-")).collect();
        assert_eq!(ids, ["-", "-", "b", "a"]);
    }
}
