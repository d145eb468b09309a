//! `base64_encode` and `base64_decode`.
use std::sync::Arc;

use ::base64::{Engine, engine::general_purpose};
use serde::Deserialize;
use serde_json::json;

use super::{Form, MAX_TEXT, from_base64};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

#[derive(Deserialize)]
struct Encode {
    text: String,
    #[serde(default)]
    url_safe: bool,
}

#[derive(Deserialize)]
struct Decode {
    text: String,
    #[serde(default = "as_text")]
    r#as: Form,
}

fn as_text() -> Form {
    Form::Text
}

pub fn encode_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "base64_encode",
        category: "encoding",
        description: "Encodes a text (its UTF-8 bytes) in base64.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "what to encode"),
                "url_safe": {"type": "boolean", "description": "with - and _ and no padding, for URLs; false when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"result": {"type": "string"}}), &["result"]),
    };
    function(spec, |arguments: Encode| {
        let engine = if arguments.url_safe { general_purpose::URL_SAFE_NO_PAD } else { general_purpose::STANDARD };
        Ok(json!({"result": engine.encode(arguments.text)}))
    })
}

pub fn decode_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "base64_decode",
        category: "encoding",
        description: "Decodes base64 of either alphabet, with or without padding and line breaks, to a text or to hexadecimal digits.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "base64"),
                "as": {"type": "string", "enum": ["text", "hex"], "description": "hex for bytes that are no text; text when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"result": {"type": "string"}, "bytes": {"type": "integer"}}), &["result", "bytes"]),
    };
    function(spec, |arguments: Decode| {
        let bytes = from_base64(&arguments.text).map_err(|e| ToolError::new("INVALID_BASE64", e.to_string()))?;
        Ok(json!({"bytes": bytes.len(), "result": arguments.r#as.write(bytes)?}))
    })
}
