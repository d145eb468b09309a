//! `file_list` and `file_delete`.
use async_trait::async_trait;
use runmill_shared::services::files;
use serde_json::{Value, json};

use super::{
    super::{Tool, ToolContext, ToolError, parse},
    Named, failed, name_schema, place,
};

pub struct FileList;

#[async_trait]
impl Tool for FileList {
    fn name(&self) -> &str {
        "file_list"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "Lists the files of the conversation: those that the user attached and those that tools wrote."
    }

    fn parameters(&self) -> Value {
        json!({"type": "object", "properties": {}, "additionalProperties": false})
    }

    fn output(&self) -> Value {
        let file = json!({
            "type": "object", "required": ["name", "mime_type", "size"],
            "properties": {
                "name": {"type": "string"}, "mime_type": {"type": "string"}, "size": {"type": "integer", "description": "in bytes"},
            },
        });
        json!({"type": "object", "required": ["files"], "properties": {"files": {"type": "array", "items": file}}})
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, _arguments: Value) -> Result<Value, ToolError> {
        let files = files::list(&cx.app, place(cx)).await.map_err(failed)?;
        let files: Vec<_> =
            files.into_iter().map(|f| json!({"name": f.name, "mime_type": f.mime_type, "size": f.size})).collect();
        Ok(json!({"files": files}))
    }
}

pub struct FileDelete;

#[async_trait]
impl Tool for FileDelete {
    fn name(&self) -> &str {
        "file_delete"
    }

    fn category(&self) -> &str {
        "files"
    }

    fn description(&self) -> &str {
        "Deletes a file of the conversation for good. `existed` is false when there was none of that name."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "properties": {"name": name_schema()}, "required": ["name"], "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["name", "existed"],
            "properties": {"name": {"type": "string"}, "existed": {"type": "boolean"}},
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Named { name } = parse(arguments)?;
        let existed = files::delete(&cx.app, place(cx), &name).await.map_err(failed)?;
        Ok(json!({"name": name, "existed": existed}))
    }
}
