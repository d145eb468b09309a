//! Tools on the files of the thread: what they write a client can fetch, and what a client uploaded they can read.
mod documents;
mod list;
mod read;
mod write;

use std::sync::Arc;

use runmill_shared::{Error, ErrorKind, services::files::Place};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError};
use crate::sandbox::Sandbox;

pub fn tools(sandbox: &Sandbox) -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(list::FileList),
        Arc::new(list::FileDelete),
        Arc::new(read::FileRead),
        Arc::new(write::FileWrite),
        Arc::new(documents::PdfExtract::new(sandbox)),
        Arc::new(documents::DocxExtract::new(sandbox)),
        Arc::new(documents::SpreadsheetRead::new(sandbox)),
    ]
}

#[derive(Deserialize)]
pub struct Named {
    pub name: String,
}

pub fn name_schema() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "description": "of a file, as file_list has it"})
}

pub fn place(cx: &ToolContext) -> Place<'_> {
    Place { owner: &cx.scope.owner, thread_id: cx.scope.thread_id, thread: &cx.scope.thread }
}

/// What went wrong, as the model is told.
pub fn failed(error: Error) -> ToolError {
    if matches!(error.kind, ErrorKind::Internal | ErrorKind::Unavailable) {
        tracing::warn!(%error, "a tool on files failed");
    }
    ToolError::new(error.code, error.message.into_owned())
}
