//! Tools that users define and plugins bring: rows become tools here, each kind in its file.
mod code;
mod http;
mod plugin;

use std::sync::Arc;

use runmill_shared::{
    App, Result,
    domain::{
        agent::Agent,
        tool::{CustomTool, ToolType},
    },
    services::tools,
};

pub use self::{code::code_tool, plugin::plugin_tool};
use super::{Tool, Tools, web::Web};
use crate::sandbox::Sandbox;

/// What the tools of users work with: one a worker. A clone is cheap.
#[derive(Clone)]
pub struct Means {
    pub web: Web,
    pub sandbox: Sandbox,
}

/// Those of `names` that are the agent's owner's, or of plugins that they have enabled.
///
/// # Errors
/// Those of the database, and of `open`.
pub async fn load(app: &App, agent: &Agent, means: &Means, names: &[&str]) -> Result<Vec<Arc<dyn Tool>>> {
    let mut all = Vec::new();
    for tool in tools::of_agent(app, agent, names).await? {
        all.push(open(app, means, tool).await?);
    }
    Ok(all)
}

/// A tool that can be called.
///
/// # Errors
/// For a stored configuration that this release does not take.
pub async fn open(app: &App, means: &Means, tool: CustomTool) -> Result<Arc<dyn Tool>> {
    match tool.kind {
        ToolType::Http => Ok(Arc::new(http::Http::new(&means.web, tool)?)),
        ToolType::Code => code_tool(&means.sandbox, tool),
        ToolType::Mcp | ToolType::Openapi => plugin_tool(app, tool).await,
    }
}

/// The built-in tools and those of the agent's owner that it may call. A built-in tool's name is nobody else's.
///
/// # Errors
/// Those of `load`.
pub async fn for_agent(app: &App, tools: &Tools, agent: &Agent) -> Result<Tools> {
    let names: Vec<_> = agent.definition.include_tools.iter().map(String::as_str).filter(|n| tools.get(n).is_none()).collect();
    if agent.owner.is_none() || names.is_empty() {
        return Ok(tools.clone());
    }
    tools.with(load(app, agent, &tools.means(app)?, &names).await?)
}
