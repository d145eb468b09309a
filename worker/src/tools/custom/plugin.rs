//! A tool that a plugin brought. It runs with the credentials of the plugin's owner, whoever's agent calls it.
use std::sync::Arc;

use async_trait::async_trait;
use runmill_shared::{
    App, Error, Result,
    domain::tool::{CustomTool, ToolType},
    services::plugins::{self, Access},
};
use serde_json::{Map, Value, json};

use crate::{
    plugins::{
        mcp::{self, McpTool},
        openapi::{self, Operation},
    },
    tools::{Tool, ToolContext, ToolError},
};

/// Where its calls go.
enum Way {
    Mcp(McpTool),
    Openapi(Box<Operation>),
}

struct PluginTool {
    tool: CustomTool,
    plugin_id: uuid::Uuid,
    way: Way,
}

/// The tool of a plugin, ready to be called. What it needs of its plugin is read with each call: a plugin that has gone meanwhile
/// is not called any more, and headers that were replaced are not sent.
///
/// # Errors
/// `Internal` when it is of another type, or its row cannot be read.
pub async fn plugin_tool(_app: &App, custom: CustomTool) -> Result<Arc<dyn Tool>> {
    let way = match custom.kind {
        ToolType::Mcp => Way::Mcp(serde_json::from_value(custom.config.clone())?),
        ToolType::Openapi => Way::Openapi(serde_json::from_value(custom.config.clone())?),
        ToolType::Http | ToolType::Code => return Err(Error::internal("this tool is not a plugin's")),
    };
    let plugin_id = custom.plugin_id.ok_or_else(|| Error::internal("a plugin's tool without a plugin"))?;
    Ok(Arc::new(PluginTool { tool: custom, plugin_id, way }))
}

impl PluginTool {
    async fn access(&self, app: &App, secret: Option<&str>) -> Result<Access, ToolError> {
        plugins::access(app, self.plugin_id, secret).await.map_err(|e| ToolError::new(e.code, e.message.into_owned()))
    }
}

#[async_trait]
impl Tool for PluginTool {
    fn name(&self) -> &str {
        &self.tool.name
    }

    fn category(&self) -> &str {
        &self.tool.category
    }

    fn description(&self) -> &str {
        &self.tool.description
    }

    fn parameters(&self) -> Value {
        self.tool.input_schema.clone()
    }

    fn output(&self) -> Value {
        self.tool.output_schema.clone().unwrap_or_else(|| json!({}))
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        match &self.way {
            Way::Mcp(tool) => tool.idempotent,
            Way::Openapi(operation) => matches!(operation.method.as_str(), "GET" | "HEAD"),
        }
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: Map<String, Value> = super::super::parse(arguments)?;
        match &self.way {
            Way::Mcp(tool) => mcp::call(&cx.app, &self.access(&cx.app, None).await?, tool, arguments).await,
            Way::Openapi(operation) => {
                let named = operation.auth.as_ref().map(|a| a.secret.as_str());
                let access = self.access(&cx.app, named).await?;
                openapi::call(&cx.app, operation, access.secret.as_ref(), &arguments, &cx.step_key).await
            }
        }
    }
}
