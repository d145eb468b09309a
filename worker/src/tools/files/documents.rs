//! `pdf_extract`, `docx_extract` and `spreadsheet_read`: documents of the thread, read in the sandbox.
use async_trait::async_trait;
use bytes::Bytes;
use runmill_shared::services::{attachments::Attachment, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    super::{Tool, ToolContext, ToolError, parse},
    failed, name_schema, place,
};
use crate::sandbox::{Rows, Sandbox};

/// What a result has beside what was read.
const FRAME: usize = 4096;
const ROWS: usize = 200;

async fn file(cx: &ToolContext, name: &str) -> Result<(Attachment, Bytes), ToolError> {
    files::read(&cx.app, place(cx), name, cx.app.config.attachments.max_bytes).await.map_err(failed)
}

fn room(cx: &ToolContext) -> usize {
    cx.max_output_bytes.saturating_sub(FRAME)
}

fn value(read: impl Serialize) -> Result<Value, ToolError> {
    serde_json::to_value(read).map_err(|e| failed(e.into()))
}

/// An object of `name` and what else a tool takes.
fn parameters(more: Value) -> Value {
    let mut properties = Map::from_iter([("name".to_owned(), name_schema())]);
    if let Value::Object(more) = more {
        properties.extend(more);
    }
    json!({"type": "object", "properties": properties, "required": ["name"], "additionalProperties": false})
}

pub struct PdfExtract {
    sandbox: Sandbox,
}

#[derive(Deserialize)]
struct PdfArguments {
    name: String,
    first_page: Option<u32>,
}

impl PdfExtract {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self { sandbox: sandbox.clone() }
    }
}

#[async_trait]
impl Tool for PdfExtract {
    fn name(&self) -> &str {
        "pdf_extract"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "The text of a PDF of the conversation, page by page. `next_page` says where to go on when there is more. Scanned pages have no text."
    }

    fn parameters(&self) -> Value {
        parameters(json!({"first_page": {"type": "integer", "minimum": 1, "default": 1}}))
    }

    fn output(&self) -> Value {
        let page = json!({
            "type": "object", "required": ["page", "text"], "properties": {"page": {"type": "integer"}, "text": {"type": "string"}},
        });
        json!({
            "type": "object", "required": ["pages", "page_count"],
            "properties": {
                "pages": {"type": "array", "items": page}, "page_count": {"type": "integer"}, "next_page": {"type": "integer"},
            },
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: PdfArguments = parse(arguments)?;
        let (_, content) = file(cx, &arguments.name).await?;
        value(self.sandbox.read_pdf(&content, arguments.first_page.unwrap_or(1), room(cx)).await?)
    }
}

pub struct DocxExtract {
    sandbox: Sandbox,
}

#[derive(Deserialize)]
struct DocxArguments {
    name: String,
    #[serde(default)]
    offset: usize,
}

impl DocxExtract {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self { sandbox: sandbox.clone() }
    }
}

#[async_trait]
impl Tool for DocxExtract {
    fn name(&self) -> &str {
        "docx_extract"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "The text of a Word document (.docx) of the conversation: paragraphs as lines, the cells of a table parted by tabs. `next_offset` \
         says where to go on when there is more."
    }

    fn parameters(&self) -> Value {
        parameters(json!({"offset": {"type": "integer", "minimum": 0, "default": 0, "description": "in characters"}}))
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["text", "total_chars"],
            "properties": {"text": {"type": "string"}, "total_chars": {"type": "integer"}, "next_offset": {"type": "integer"}},
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: DocxArguments = parse(arguments)?;
        let (_, content) = file(cx, &arguments.name).await?;
        value(self.sandbox.read_docx(&content, arguments.offset, room(cx)).await?)
    }
}

pub struct SpreadsheetRead {
    sandbox: Sandbox,
}

#[derive(Deserialize)]
struct SheetArguments {
    name: String,
    sheet: Option<String>,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

impl SpreadsheetRead {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self { sandbox: sandbox.clone() }
    }
}

#[async_trait]
impl Tool for SpreadsheetRead {
    fn name(&self) -> &str {
        "spreadsheet_read"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "Rows of a spreadsheet of the conversation (.xlsx, .xls, .ods or .csv) as lists of cells; dates are texts. `next_offset` says where \
         to go on when there is more."
    }

    fn parameters(&self) -> Value {
        parameters(json!({
            "sheet": {"type": "string", "description": "the first one when left out"},
            "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "rows to skip"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": ROWS, "description": "rows at most"},
        }))
    }

    fn output(&self) -> Value {
        let cell = json!({"type": ["string", "number", "boolean", "null"]});
        json!({
            "type": "object", "required": ["sheets", "sheet", "rows", "total_rows"],
            "properties": {
                "sheets": {"type": "array", "items": {"type": "string"}}, "sheet": {"type": "string"},
                "rows": {"type": "array", "items": {"type": "array", "items": cell}},
                "total_rows": {"type": "integer"}, "next_offset": {"type": "integer"},
            },
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let SheetArguments { name, sheet, offset, limit } = parse(arguments)?;
        let (file, content) = file(cx, &name).await?;
        let is_csv = file.mime_type.starts_with("text/");
        let rows = Rows { is_csv, sheet, offset, limit: limit.unwrap_or(ROWS) };
        value(self.sandbox.read_sheet(&content, rows, room(cx)).await?)
    }
}
