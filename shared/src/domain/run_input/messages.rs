//! The messages of a run's input, by role, with their parts and tool calls.
use std::collections::HashSet;

use serde_json::{Value, json};

use super::check::{Check, Object, clean, clean_json, given, join};
use crate::domain::message::{MessageBody, MessagePart, MessageRole, MessageToolCall, NewMessage, PartKind, Source};

const MAX_PARTS: usize = 100;
const MAX_TOOL_CALLS: usize = 128;
const MAX_URL: usize = 8192;

/// An id that comes twice counts once: the first.
pub fn read(check: &mut Check, body: &Object, max: usize) -> Vec<NewMessage> {
    check.required(body, "", "messages");
    let mut seen = HashSet::new();
    let mut messages = Vec::new();
    for (i, value) in check.list(body, "", "messages", max).iter().enumerate() {
        let at = format!("messages.{i}");
        let Some(object) = check.object(value, &at) else { continue };
        let id = check.id(object, &at, "id");
        let Some(role) = read_role(check, object, &at) else { continue };
        let body = read_body(check, object, &at, role);
        if !is_discarded(object) && seen.insert(id.clone()) {
            messages.push(NewMessage { id, role, body });
        }
    }
    messages
}

/// Our AG-UI stream marks what an interrupted try had said; the stock client keeps it, and sends it back with the next run.
fn is_discarded(message: &Object) -> bool {
    given(message, "metadata").is_some_and(|m| m["runmill"]["discarded"] == json!(true))
}

fn read_role(check: &mut Check, message: &Object, at: &str) -> Option<MessageRole> {
    let role = MessageRole::parse(check.required_string(message, at, "role")?);
    if role.is_none() {
        let all = MessageRole::ALL.map(MessageRole::as_str).join(", ");
        check.fail(at, "role", format!("must be one of {all}"));
    }
    role
}

fn read_body(check: &mut Check, message: &Object, at: &str, role: MessageRole) -> MessageBody {
    use MessageRole as R;
    match role {
        R::User => MessageBody { parts: read_content(check, message, at), ..MessageBody::default() },
        R::Tool => MessageBody {
            parts: read_content(check, message, at),
            tool_call_id: Some(check.id(message, at, "toolCallId")),
            error: check.string(message, at, "error").map(clean),
            ..MessageBody::default()
        },
        R::Assistant => MessageBody {
            parts: text_parts(check.string(message, at, "content").unwrap_or_default()),
            tool_calls: read_tool_calls(check, message, at),
            ..MessageBody::default()
        },
        R::System | R::Developer | R::Reasoning => MessageBody {
            parts: text_parts(check.required_string(message, at, "content").unwrap_or_default()),
            ..MessageBody::default()
        },
        R::Activity => read_activity(check, message, at),
    }
}

/// An activity is for the screen: it keeps its JSON where the messages of agents keep theirs.
fn read_activity(check: &mut Check, message: &Object, at: &str) -> MessageBody {
    check.required(message, at, "activityType");
    let kind = check.name(message, at, "activityType", 128);
    let content = check.required(message, at, "content");
    if content.is_some_and(|c| !c.is_object()) {
        check.fail(at, "content", "must be an object");
    }
    let shown = json!({ "activityType": kind, "content": content.map(clean_json) });
    MessageBody { ui_schema: Some(shown), ..MessageBody::default() }
}

fn text_parts(text: &str) -> Vec<MessagePart> {
    let text = clean(text);
    if text.is_empty() { Vec::new() } else { vec![MessagePart::Text { text }] }
}

fn read_tool_calls(check: &mut Check, message: &Object, at: &str) -> Vec<MessageToolCall> {
    let mut calls = Vec::new();
    for (i, value) in check.list(message, at, "toolCalls", MAX_TOOL_CALLS).iter().enumerate() {
        let at = format!("{at}.toolCalls.{i}");
        let Some(call) = check.object(value, &at) else { continue };
        let id = check.id(call, &at, "id");
        if !matches!(check.string(call, &at, "type"), None | Some("function")) {
            check.fail(&at, "type", "must be function");
        }
        let at_function = join(&at, "function");
        let Some(function) = check.required(call, &at, "function").and_then(|f| check.object(f, &at_function)) else { continue };
        let name = check.id(function, &at_function, "name");
        let arguments = check.required_text(function, &at_function, "arguments", usize::MAX);
        calls.push(MessageToolCall { id, name, arguments });
    }
    calls
}

fn read_content(check: &mut Check, message: &Object, at: &str) -> Vec<MessagePart> {
    match check.required(message, at, "content") {
        None => Vec::new(),
        Some(Value::String(text)) => text_parts(text),
        Some(Value::Array(_)) => {
            let parts = check.list(message, at, "content", MAX_PARTS).iter().enumerate();
            parts.filter_map(|(i, part)| read_part(check, part, &format!("{at}.content.{i}"))).collect()
        }
        Some(_) => {
            check.fail(at, "content", "must be a string or a list of parts");
            Vec::new()
        }
    }
}

fn read_part(check: &mut Check, value: &Value, at: &str) -> Option<MessagePart> {
    let part = check.object(value, at)?;
    let kind = match check.required_string(part, at, "type")? {
        "text" => return Some(MessagePart::Text { text: check.required_text(part, at, "text", usize::MAX) }),
        "binary" => return read_binary(check, part, at),
        "image" => PartKind::Image,
        "audio" => PartKind::Audio,
        "video" => PartKind::Video,
        "document" => PartKind::Document,
        _ => {
            check.fail(at, "type", "must be one of text, image, audio, video, document, binary");
            return None;
        }
    };
    let at_source = join(at, "source");
    let source = check.required(part, at, "source").and_then(|s| check.object(s, &at_source))?;
    let (mime_type, source) = read_source(check, source, &at_source)?;
    Some(MessagePart::Media { kind, mime_type, source })
}

fn read_source(check: &mut Check, source: &Object, at: &str) -> Option<(Option<String>, Source)> {
    let kind = match check.string(source, at, "type") {
        None if source.contains_key("bucket") => "attachment",
        Some(kind) => kind,
        None => "",
    };
    match kind {
        "data" => {
            check.required(source, at, "mimeType");
            let mime_type = read_mime(check, source, at);
            let data = check.required_string(source, at, "value")?;
            Some((mime_type, read_base64(check, data, at, "value")))
        }
        "url" => {
            let mime_type = read_mime(check, source, at);
            let url = check.required_string(source, at, "value")?;
            let (inline, source) = read_url(check, url, at, "value")?;
            Some((inline.or(mime_type), source))
        }
        "attachment" => {
            let mime_type = read_mime(check, source, at);
            check.required(source, at, "bucket");
            check.required(source, at, "path");
            let (bucket, path) = (check.name(source, at, "bucket", 128), check.name(source, at, "path", 1024));
            Some((mime_type, Source::Attachment { bucket: bucket?, path: path? }))
        }
        _ => {
            check.fail(at, "type", "must be data, url or attachment");
            None
        }
    }
}

/// The part that came before sources had types. What its MIME type says it is, it is.
fn read_binary(check: &mut Check, part: &Object, at: &str) -> Option<MessagePart> {
    check.required(part, at, "mimeType");
    let mime_type = read_mime(check, part, at);
    let kind = match mime_type.as_deref().and_then(|m| m.split_once('/')) {
        Some(("image", _)) => PartKind::Image,
        Some(("audio", _)) => PartKind::Audio,
        Some(("video", _)) => PartKind::Video,
        _ => PartKind::Binary,
    };
    let filled = |text: &&str| !text.is_empty();
    let data = check.string(part, at, "data").filter(filled);
    let url = check.string(part, at, "url").filter(filled);
    let (inline, source) = match (data, url) {
        (Some(data), _) => (None, read_base64(check, data, at, "data")),
        (None, Some(url)) => read_url(check, url, at, "url")?,
        (None, None) => {
            check.fail(at, "data", "is required, or url: an id alone names bytes that only its provider has");
            return None;
        }
    };
    Some(MessagePart::Media { kind, mime_type: inline.or(mime_type), source })
}

fn read_mime(check: &mut Check, object: &Object, at: &str) -> Option<String> {
    let mime = check.string(object, at, "mimeType")?;
    let printable = mime.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let halves = mime.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    if mime.len() > 127 || !printable || !halves {
        check.fail(at, "mimeType", "must be a media type, as image/png");
    }
    Some(mime.to_owned())
}

/// Checked here, decoded by whoever needs the bytes.
fn read_base64(check: &mut Check, data: &str, at: &str, key: &str) -> Source {
    let bare = data.trim_end_matches('=');
    let padding = data.len() - bare.len();
    let alphabet = bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    if data.is_empty() || !alphabet || padding > 2 || !data.len().is_multiple_of(4) {
        check.fail(at, key, "must be base64 with its padding, and not empty");
    }
    Source::Data { base64: data.to_owned() }
}

/// `data:` URLs are data, and bring their media type with them.
fn read_url(check: &mut Check, url: &str, at: &str, key: &str) -> Option<(Option<String>, Source)> {
    if let Some((mime, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        let named = json!({ "mimeType": mime });
        let mime = named.as_object().and_then(|o| read_mime(check, o, at));
        return Some((mime, read_base64(check, data, at, key)));
    }
    let web = url.starts_with("https://") || url.starts_with("http://");
    if !web || url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        check.fail(at, key, format!("must be an http, https or base64 data URL of at most {MAX_URL} bytes"));
        return None;
    }
    Some((None, Source::Url { url: url.to_owned() }))
}
