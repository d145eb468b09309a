//! What the worker and its child say to each other: lengths as eight bytes, little endian, before the request, the file and the reply.
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize)]
pub struct Request {
    pub timeout_ms: u64,
    pub memory_bytes: u64,
    pub max_output_bytes: usize,
    pub work: Work,
}

#[derive(Serialize, Deserialize)]
pub enum Work {
    Code { code: String, input: Value },
    Pdf { first_page: u32, max_bytes: usize },
    Docx { offset: usize, max_bytes: usize },
    Sheet { is_csv: bool, sheet: Option<String>, offset: usize, limit: usize, max_bytes: usize },
}

#[derive(Serialize, Deserialize)]
pub enum Reply {
    Ok(Value),
    Error { code: String, message: String },
}

/// A failure as the worker's tools say it.
#[derive(Debug)]
pub struct Problem {
    pub code: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn unreadable(message: impl std::fmt::Display) -> Self {
        Self::new("UNREADABLE_FILE", format!("the file cannot be read: {message}"))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeOutput {
    pub result: Value,
    /// What `console.log` and the like were given, bounded.
    pub logs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PdfText {
    pub pages: Vec<PdfPage>,
    pub page_count: u32,
    /// Where to go on; none: this was all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PdfPage {
    pub page: u32,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocxText {
    pub text: String,
    /// Characters of the whole document.
    pub total_chars: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SheetRows {
    pub sheets: Vec<String>,
    pub sheet: String,
    /// Texts, numbers, booleans and nulls.
    pub rows: Vec<Vec<Value>>,
    pub total_rows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
}
