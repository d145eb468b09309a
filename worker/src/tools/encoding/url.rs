//! `url_encode` and `url_decode`: percent encoding.
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::MAX_TEXT;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

/// All but what RFC 3986 calls unreserved.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What has a meaning in a URL stays.
const WHOLE: &AsciiSet = &COMPONENT
    .remove(b':')
    .remove(b'/')
    .remove(b'?')
    .remove(b'#')
    .remove(b'[')
    .remove(b']')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b'%');

#[derive(Deserialize)]
struct Encode {
    text: String,
    #[serde(default)]
    whole: bool,
}

#[derive(Deserialize)]
struct Decode {
    text: String,
    #[serde(default)]
    form: bool,
}

pub fn encode_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "url_encode",
        category: "encoding",
        description: "Percent-encodes a text so that it can stand in a URL as one path segment or query value; or (whole: true) only what \
                      cannot stand in a URL at all.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "what to encode"),
                "whole": {"type": "boolean", "description": "the text is a whole URL; false when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"result": {"type": "string"}}), &["result"]),
    };
    function(spec, |arguments: Encode| {
        let set = if arguments.whole { WHOLE } else { COMPONENT };
        Ok(json!({"result": utf8_percent_encode(&arguments.text, set).to_string()}))
    })
}

pub fn decode_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "url_decode",
        category: "encoding",
        description: "Decodes percent-encoded text.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "percent-encoded"),
                "form": {"type": "boolean", "description": "+ means a space, as in HTML forms; false when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"result": {"type": "string"}}), &["result"]),
    };
    function(spec, |arguments: Decode| {
        let text = if arguments.form { arguments.text.replace('+', " ") } else { arguments.text };
        let decoded = percent_decode_str(&text).decode_utf8();
        let decoded = decoded.map_err(|_| ToolError::new("NOT_TEXT", "the decoded bytes are no UTF-8 text"))?;
        Ok(json!({"result": decoded}))
    })
}
