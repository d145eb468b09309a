//! `/plugins`: tools from MCP servers and OpenAPI documents.
use std::time::Duration;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{Enum, Object, OpenApi, param::Path, payload::Json};
use runmill_shared::{
    App,
    domain::run::RunState,
    services::plugins::{self, Change, Detail, Plugin, PluginTool, Shelf, Sync},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::Body,
    patience::Patience,
    reply::{Created, NoContent},
    trace::Trace,
};

/// What storing and queueing may take, beside the waiting.
const SLACK: Duration = Duration::from_secs(15);

#[derive(Object)]
struct NewPlugin {
    /// the names of its tools begin with it
    name: String,
    description: Option<String>,
    /// where its tools come from. `{"type": "mcp", "transport": "http", "url", "headers"?}`;
    /// `{"type": "mcp", "transport": "stdio", "command"}`, a name from the operator's settings;
    /// `{"type": "openapi", "document" | "url", "base_url"?, "include"?: [operationId], "auth"?: {"type": "bearer" | "header" | "basic",
    /// "secret": the name of one of your secrets, "header"?}}`. Headers are never shown again
    source: Value,
    /// whether others may install it; its tools run with your credentials
    is_public: Option<bool>,
}

/// What is left out stays. With `source` or another `name` the tools are read again.
#[derive(Object)]
struct PluginChange {
    name: Option<String>,
    description: Option<String>,
    /// as when it was made; `headers` that are left out stay
    source: Option<Value>,
    is_public: Option<bool>,
    /// the version that you changed; an older one than the present is refused
    version: Option<i64>,
}

#[derive(Object)]
struct PluginToolBody {
    id: Uuid,
    /// as agents name it in `include_tools`
    name: String,
    description: String,
    input_schema: Value,
    output_schema: Option<Value>,
}

impl From<PluginTool> for PluginToolBody {
    fn from(t: PluginTool) -> Self {
        let PluginTool { id, name, description, input_schema, output_schema } = t;
        Self { id, name, description, input_schema, output_schema }
    }
}

#[derive(Object)]
struct PluginBody {
    id: Uuid,
    owner: String,
    name: String,
    description: String,
    /// `mcp` or `openapi`
    r#type: String,
    /// for its owner; the names of headers are in it, their values are not
    source: Option<Value>,
    is_public: bool,
    installed: bool,
    /// whether your agents may use its tools
    enabled: bool,
    tool_count: i64,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Plugin> for PluginBody {
    fn from(p: Plugin) -> Self {
        Self {
            id: p.id,
            owner: p.owner,
            name: p.name,
            description: p.description,
            r#type: p.kind.to_owned(),
            source: p.source.and_then(|source| serde_json::to_value(source).ok()),
            is_public: p.is_public,
            installed: p.enabled.is_some(),
            enabled: p.enabled == Some(true),
            tool_count: p.tools,
            version: p.version,
            created_at: p.created_at.utc(),
            updated_at: p.updated_at.utc(),
        }
    }
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum SyncStatus {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Object)]
struct SyncError {
    code: String,
    message: String,
}

/// How the tools were read last.
#[derive(Object)]
struct SyncBody {
    status: SyncStatus,
    error: Option<SyncError>,
    at: DateTime<Utc>,
}

impl From<Sync> for SyncBody {
    fn from(s: Sync) -> Self {
        let status = match s.state {
            RunState::Queued => SyncStatus::Queued,
            RunState::Running | RunState::Waiting => SyncStatus::Running,
            RunState::Succeeded => SyncStatus::Completed,
            RunState::Failed => SyncStatus::Failed,
            RunState::Cancelled => SyncStatus::Cancelled,
        };
        Self { status, error: s.error.map(|e| SyncError { code: e.code, message: e.message }), at: s.at.utc() }
    }
}

#[derive(Object)]
struct PluginDetail {
    #[oai(flatten)]
    plugin: PluginBody,
    tools: Vec<PluginToolBody>,
    /// for its owner, as long as it is remembered
    sync: Option<SyncBody>,
}

impl From<Detail> for PluginDetail {
    fn from(d: Detail) -> Self {
        let tools = d.tools.into_iter().map(Into::into).collect();
        Self { plugin: d.plugin.into(), tools, sync: d.sync.map(Into::into) }
    }
}

pub struct PluginsApi;

#[OpenApi(prefix_path = "/api/v1/plugins")]
impl PluginsApi {
    /// Your plugins, and those of others that you installed. `status`: enabled or disabled; `sort`: name, created_at, updated_at.
    #[oai(path = "/", method = "get", operation_id = "listPlugins")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<PluginBody>>> {
        Ok(Json(paging.of(plugins::list(&app, &caller.0, Shelf::Mine, &paging.0).await?)))
    }

    /// Makes a plugin, installs it for you, and reads its tools. A source that cannot be read is told in `sync`.
    #[oai(path = "/", method = "post", operation_id = "createPlugin")]
    async fn create(
        &self,
        app: Data<&App>,
        caller: Auth,
        patience: Patience,
        trace: Trace,
        body: Body<NewPlugin>,
    ) -> Reply<Created<PluginDetail>> {
        patience.allow(app.config.plugins.sync_wait + SLACK);
        let NewPlugin { name, description, source, is_public } = body.0;
        let new = Change { name: Some(name), description, source: Some(source), is_public, trace: trace.0, ..Change::default() };
        Ok(Created::New(Json(plugins::create(&app, &caller.0, new).await?.into())))
    }

    /// The public plugins of others; `installed` tells which you have.
    #[oai(path = "/market", method = "get", operation_id = "listPluginMarket")]
    async fn market(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<PluginBody>>> {
        Ok(Json(paging.of(plugins::list(&app, &caller.0, Shelf::Market, &paging.0).await?)))
    }

    /// A plugin with its tools.
    #[oai(path = "/:id", method = "get", operation_id = "getPlugin")]
    async fn get(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<PluginDetail>> {
        Ok(Json(plugins::get(&app, &caller.0, id.0).await?.into()))
    }

    /// Changes a plugin of yours.
    #[oai(path = "/:id", method = "put", operation_id = "updatePlugin")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        patience: Patience,
        trace: Trace,
        id: Path<Uuid>,
        body: Body<PluginChange>,
    ) -> Reply<Json<PluginDetail>> {
        patience.allow(app.config.plugins.sync_wait + SLACK);
        let PluginChange { name, description, source, is_public, version } = body.0;
        let change = Change { name, description, source, is_public, version, trace: trace.0 };
        Ok(Json(plugins::update(&app, &caller.0, id.0, change).await?.into()))
    }

    /// Deletes a plugin and its tools, for everybody who installed it.
    #[oai(path = "/:id", method = "delete", operation_id = "deletePlugin")]
    async fn delete(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        plugins::delete(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }

    /// Your agents may use its tools from now on.
    #[oai(path = "/:id/install", method = "post", operation_id = "installPlugin")]
    async fn install(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<PluginDetail>> {
        Ok(Json(plugins::install(&app, &caller.0, id.0).await?.into()))
    }

    /// Your agents do not see its tools any more.
    #[oai(path = "/:id/install", method = "delete", operation_id = "uninstallPlugin")]
    async fn uninstall(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        plugins::uninstall(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }

    /// Shows the tools of an installed plugin to your agents again.
    #[oai(path = "/:id/enable", method = "post", operation_id = "enablePlugin")]
    async fn enable(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<PluginDetail>> {
        Ok(Json(plugins::enable(&app, &caller.0, id.0, true).await?.into()))
    }

    /// Hides the tools of an installed plugin from your agents; it stays installed.
    #[oai(path = "/:id/disable", method = "post", operation_id = "disablePlugin")]
    async fn disable(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<PluginDetail>> {
        Ok(Json(plugins::enable(&app, &caller.0, id.0, false).await?.into()))
    }
}
