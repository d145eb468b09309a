//! `file_read`: a part of a file, as text or as base64.
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use runmill_shared::services::files;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Tool, ToolContext, ToolError, output, parse},
    failed, name_schema, place,
};

/// What a result has beside the content.
const FRAME: usize = 1024;

pub struct FileRead;

#[derive(Deserialize)]
struct Arguments {
    name: String,
    encoding: Option<Encoding>,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Text,
    Base64,
}

#[async_trait]
impl Tool for FileRead {
    fn name(&self) -> &str {
        "file_read"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "Reads a file of the conversation, from a byte on. `next_offset` says where to go on when there is more. Other tools read PDF, \
         Word and spreadsheet files."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": name_schema(),
                "encoding": {"type": "string", "enum": ["text", "base64"], "description": "of the answer; text when left out"},
                "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "in bytes"},
                "limit": {"type": "integer", "minimum": 1, "description": "in bytes; as many as fit when left out"},
            },
            "required": ["name"],
            "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["name", "mime_type", "size", "encoding", "content"],
            "properties": {
                "name": {"type": "string"}, "mime_type": {"type": "string"}, "size": {"type": "integer"},
                "encoding": {"enum": ["text", "base64"]}, "content": {"type": "string"}, "next_offset": {"type": "integer"},
            },
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { name, encoding, offset, limit } = parse(arguments)?;
        let (file, content) =
            files::read(&cx.app, place(cx), &name, cx.app.config.attachments.max_bytes).await.map_err(failed)?;
        let encoding = encoding.unwrap_or(Encoding::Text);
        let room = cx.max_output_bytes.saturating_sub(FRAME);
        let (from, limit) = (offset.min(content.len()), limit.unwrap_or(usize::MAX));
        let (text, taken) = match encoding {
            Encoding::Text => text_of(&content, from, limit, room)?,
            Encoding::Base64 => {
                let part = &content[from..][..limit.min(room / 4 * 3).min(content.len() - from)];
                (STANDARD.encode(part), from..from + part.len())
            }
        };
        let encoding = if encoding == Encoding::Text { "text" } else { "base64" };
        let mut answer =
            json!({"name": file.name, "mime_type": file.mime_type, "size": file.size, "encoding": encoding, "content": text});
        if taken.end < content.len() {
            answer["next_offset"] = json!(taken.end);
        }
        Ok(answer)
    }
}

/// Whole characters, at least one when there is one.
fn text_of(content: &[u8], from: usize, limit: usize, room: usize) -> Result<(String, std::ops::Range<usize>), ToolError> {
    let all = std::str::from_utf8(content).map_err(|_| {
        ToolError::new("NOT_TEXT", "the file is no UTF-8 text; read it as base64, or with the tool that fits its type")
    })?;
    let from = all.ceil_char_boundary(from);
    let rest = &all[from..];
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let part = output::fit(output::prefix(rest, limit.max(first)), room.max(6));
    Ok((part.to_owned(), from..from + part.len()))
}
