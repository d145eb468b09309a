use std::collections::BTreeMap;

use poem::http::HeaderMap;
use serde_json::Value;

/// One recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    pub body: Value,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn new(headers: &HeaderMap, body: Value) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Self { body, headers: headers.collect() }
    }

    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    pub fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The text of the last message of that role, or nothing.
    pub fn last(&self, role: &str) -> String {
        self.messages().iter().rfind(|message| message["role"] == role).map(text).unwrap_or_default()
    }

    /// What the user said last.
    pub fn user(&self) -> String {
        self.last("user")
    }

    /// The results after the last message of the user, in order: none while their calls are still to be made.
    pub fn tool_results(&self) -> Vec<String> {
        let since = self.messages().iter().rposition(|message| message["role"] == "user").map_or(0, |at| at + 1);
        self.messages()[since..].iter().filter(|message| message["role"] == "tool").map(text).collect()
    }

    pub(super) fn streams(&self) -> bool {
        self.body["stream"] == true
    }

    pub(super) fn wants_usage(&self) -> bool {
        !self.streams() || self.body["stream_options"]["include_usage"] == true
    }
}

/// Content is a string, or a list of parts.
fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}
