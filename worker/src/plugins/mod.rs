//! Tools of others: what an MCP server or an OpenAPI document offers, and how it is called. What a source says is hostile: it is
//! bounded, its addresses are checked as those of every tool (`tools::ssrf`), and its failures are data.
mod http;
pub mod mcp;
pub mod openapi;

use jsonschema::Validator;
use runmill_shared::{
    App,
    domain::{
        plugin::{FoundTool, Source},
        tool::schema,
    },
    services::plugins::Access,
};
use serde_json::Value;

use crate::tools::{ToolError, prefix};

/// Descriptions are cut here: they are read by a model in every turn.
const MAX_DESCRIPTION: usize = 1024;
/// Of a tool's schema as JSON text.
const MAX_SCHEMA_BYTES: usize = 65_536;

/// The tools that a plugin's source has now.
pub async fn find_tools(app: &App, access: &Access) -> Result<Vec<FoundTool>, ToolError> {
    let limits = &app.config.plugins;
    let reading = async {
        match &access.source {
            Source::Mcp(_) => mcp::tools(app, access).await,
            Source::Openapi(source) => openapi::tools(app, source).await,
        }
    };
    let found = tokio::time::timeout(limits.timeout, reading).await;
    let found = found.map_err(|_| ToolError::new("TIMEOUT", format!("no answer within {:?}", limits.timeout)))??;
    if found.len() > limits.max_tools {
        return Err(too_many(found.len(), limits.max_tools));
    }
    Ok(found)
}

fn too_many(found: usize, max: usize) -> ToolError {
    ToolError::new("TOO_MANY_TOOLS", format!("{found} tools are too many; a plugin has at most {max}"))
}

fn described(text: &str) -> String {
    prefix(text.trim(), MAX_DESCRIPTION).to_owned()
}

/// Whether arguments can be checked against it.
fn is_schema(schema: &Value) -> bool {
    compiled(schema).is_some() && schema.to_string().len() <= MAX_SCHEMA_BYTES
}

fn compiled(schema: &Value) -> Option<Validator> {
    schema::compile(schema).ok()
}
