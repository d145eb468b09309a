//! `file_write`: a file for the user, or for later calls.
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use runmill_shared::services::files;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Tool, ToolContext, ToolError, parse},
    failed, place,
};

pub struct FileWrite;

#[derive(Deserialize)]
struct Arguments {
    name: String,
    content: String,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Text,
    Base64,
}

#[async_trait]
impl Tool for FileWrite {
    fn name(&self) -> &str {
        "file_write"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "Writes a file of the conversation, which the user can download. A file of the same name is replaced."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100, "description": "without a folder, as report.md"},
                "content": {"type": "string", "minLength": 1},
                "encoding": {"type": "string", "enum": ["text", "base64"], "default": "text", "description": "of content"},
            },
            "required": ["name", "content"],
            "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["name", "mime_type", "size"],
            "properties": {"name": {"type": "string"}, "mime_type": {"type": "string"}, "size": {"type": "integer"}},
        })
    }

    /// The same step key writes once.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { name, content, encoding } = parse(arguments)?;
        let content = match encoding {
            Encoding::Text => Bytes::from(content),
            Encoding::Base64 => {
                let decoded = STANDARD.decode(content.as_bytes());
                Bytes::from(decoded.map_err(|e| ToolError::invalid(format!("content: it is no base64: {e}")))?)
            }
        };
        let file = files::write(&cx.app, place(cx), &name, content, &cx.step_key).await.map_err(failed)?;
        Ok(json!({"name": file.name, "mime_type": file.mime_type, "size": file.size}))
    }
}
