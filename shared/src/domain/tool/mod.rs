//! Tools as people and models see them.
pub mod code;
pub mod definition;
pub mod http;
pub mod schema;
pub mod template;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A tool's name, what it is for, and the JSON Schemas of what it takes and gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolDescriptor {
    pub name: String,
    pub category: String,
    pub description: String,
    pub input_schema: Value,
    pub output_schema: Value,
}

/// Where the calls of a tool that is not built in go. The `tools` table keeps `type` and `config` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolType {
    Http,
    Code,
    Mcp,
    Openapi,
}

impl ToolType {
    pub const ALL: [Self; 4] = [Self::Http, Self::Code, Self::Mcp, Self::Openapi];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Code => "code",
            Self::Mcp => "mcp",
            Self::Openapi => "openapi",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }
}

/// A tool that somebody defined, or that a plugin brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomTool {
    /// `None`: a definition that is only tried out.
    pub id: Option<Uuid>,
    /// Whose secrets it uses.
    pub owner: String,
    pub plugin_id: Option<Uuid>,
    pub name: String,
    pub description: String,
    #[serde(rename = "type")]
    pub kind: ToolType,
    pub category: String,
    pub input_schema: Value,
    pub output_schema: Option<Value>,
    /// As its `kind` reads it.
    pub config: Value,
}
