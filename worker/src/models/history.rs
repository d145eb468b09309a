//! A conversation as rig's messages. Media of a kind that rig cannot carry becomes a sentence that says so: a model that is told
//! of an attachment it cannot see answers better than one that is not told. rig does the same for what a model cannot read.
use std::collections::HashMap;

use rig_core::message::{
    AssistantContent, AssistantMessage, Audio, AudioMediaType, CallId, Document, DocumentMediaType, DocumentSourceKind, Image,
    ImageMediaType, Message, MimeType, Origin, ToolCall, ToolFunction, ToolName, ToolResult, ToolResultContent, UserContent,
    Video, VideoMediaType,
};
use runmill_shared::domain::chat::{ChatMessage, Part, Role, Source};

use super::{ModelError, ModelErrorKind};

/// # Errors
/// `InvalidRequest` for an empty name.
pub(super) fn tool_name(name: &str) -> Result<ToolName, ModelError> {
    ToolName::new(name).map_err(|_| ModelError::detailed(ModelErrorKind::InvalidRequest, "a tool has no name"))
}

/// The results of one turn's calls go into one message, as rig wants them. `thinker`: the model that is asked, when what it thought
/// goes back to it; rig puts the thoughts of any other model into its mouth.
pub(super) fn messages(history: &[ChatMessage], thinker: Option<&Origin>) -> Vec<Message> {
    let mut out = Vec::with_capacity(history.len());
    let mut names: HashMap<&str, &str> = HashMap::new();
    for message in history {
        match message.role {
            Role::System => out.push(Message::system(message.text())),
            Role::User => out.push(Message::User { content: user_parts(&message.content) }),
            Role::Assistant => {
                names.extend(message.tool_calls.iter().map(|call| (call.id.as_str(), call.name.as_str())));
                out.extend(assistant(message, thinker));
            }
            Role::Tool => push_result(&mut out, message, &names),
        }
    }
    out
}

fn assistant(message: &ChatMessage, thinker: Option<&Origin>) -> Option<Message> {
    let thinker = thinker.filter(|_| message.reasoning.as_ref().is_some_and(|text| !text.is_empty()));
    let reasoning = message.reasoning.as_deref().filter(|_| thinker.is_some()).map(AssistantContent::reasoning);
    let text = Some(message.text()).filter(|text| !text.is_empty()).map(AssistantContent::text);
    let calls = message.tool_calls.iter().filter_map(|call| {
        let function = ToolFunction::new(ToolName::new(call.name.as_str()).ok()?, call.arguments.clone());
        Some(AssistantContent::ToolCall(ToolCall::from_wire(call.id.as_str(), function)))
    });
    let content: Vec<_> = reasoning.into_iter().chain(text).chain(calls).collect();
    let mut turn = AssistantMessage::new(content);
    turn.origin = thinker.cloned();
    (!turn.content.is_empty()).then_some(Message::Assistant(turn))
}

fn push_result(out: &mut Vec<Message>, message: &ChatMessage, names: &HashMap<&str, &str>) {
    let id = message.tool_call_id.as_deref().unwrap_or_default();
    // A result whose call is out of the context any more has no name; rig wants one.
    let Ok(name) = ToolName::new(names.get(id).copied().unwrap_or("tool")) else { return };
    let content = vec![ToolResultContent::text(message.text())];
    let result = UserContent::ToolResult(ToolResult { call: CallId::from_wire(id), name, content, is_error: false });
    match out.last_mut() {
        Some(Message::User { content }) if content.iter().all(|part| matches!(part, UserContent::ToolResult(_))) => {
            content.push(result);
        }
        _ => out.push(Message::User { content: vec![result] }),
    }
}

fn user_parts(parts: &[Part]) -> Vec<UserContent> {
    let content: Vec<_> = parts.iter().filter_map(user_part).collect();
    if content.is_empty() { vec![UserContent::text("")] } else { content }
}

fn user_part(part: &Part) -> Option<UserContent> {
    Some(match part {
        Part::Text { text } => UserContent::text(text),
        Part::Image { source } => {
            let (data, mime) = data(source);
            match (media_type(mime, ImageMediaType::from_mime_type), &data) {
                (None, DocumentSourceKind::Base64(_)) => unsendable("image", mime),
                (media_type, _) => UserContent::Image(Image { data, media_type, ..Image::default() }),
            }
        }
        Part::Audio { source } => {
            let (data, mime) = data(source);
            match media_type(mime, audio_type) {
                None => unsendable("audio", mime),
                media_type => UserContent::Audio(Audio { data, media_type }),
            }
        }
        Part::Video { source } => {
            let (data, mime) = data(source);
            match (media_type(mime, VideoMediaType::from_mime_type), &data) {
                (None, DocumentSourceKind::Base64(_)) => unsendable("video", mime),
                (media_type, _) => UserContent::Video(Video { data, media_type, additional_params: None }),
            }
        }
        Part::Document { source } => {
            let (data, mime) = data(source);
            match media_type(mime, document_type) {
                None => unsendable("document", mime),
                media_type => UserContent::Document(Document { data, media_type, additional_params: None }),
            }
        }
        Part::Unknown => return None,
    })
}

fn unsendable(what: &str, mime: Option<&str>) -> UserContent {
    UserContent::text(format!("({what} omitted: the model cannot receive it as {})", mime.unwrap_or("a link")))
}

fn data(source: &Source) -> (DocumentSourceKind, Option<&str>) {
    match source {
        Source::Url(url) => (DocumentSourceKind::url(url), None),
        Source::Data { mime_type, base64 } => (DocumentSourceKind::base64(base64), Some(mime_type)),
    }
}

/// Without parameters: `audio/webm;codecs=opus` is `audio/webm`.
fn media_type<T>(mime: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(mime?.split(';').next()?.trim())
}

/// rig knows neither of the registered names of MP3 and M4A, nor the other names of WAV.
fn audio_type(mime: &str) -> Option<AudioMediaType> {
    match mime {
        "audio/mpeg" => Some(AudioMediaType::MP3),
        "audio/mp4" => Some(AudioMediaType::M4A),
        "audio/x-wav" | "audio/wave" => Some(AudioMediaType::WAV),
        other => AudioMediaType::from_mime_type(other),
    }
}

fn document_type(mime: &str) -> Option<DocumentMediaType> {
    DocumentMediaType::from_mime_type(mime)
        .or_else(|| (mime.starts_with("text/") || mime == "application/json").then_some(DocumentMediaType::TXT))
}
