//! One connection a plugin and worker process, shared by its calls: made when it is first needed, closed when nobody has used it
//! for a while, made again when it breaks. The tasks that serve it belong to the runtime, so that it ends with the worker.
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use rmcp::{
    RoleClient,
    model::{ClientConfig, Implementation},
    service::{ClientInitializeError, Peer, RunningService, ServiceError, serve_client},
    transport::{
        DynamicTransportError, StreamableHttpClientTransport,
        streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError},
    },
};
use runmill_shared::{
    App,
    domain::plugin::{Server, Source},
    services::plugins::Access,
    tasks,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::stdio::Child;
use crate::{
    plugins::http::{failed, guard, refused},
    tools::ToolError,
};

type Service = RunningService<RoleClient, ClientConfig>;
type Cell = Arc<OnceCell<Arc<Connection>>>;

pub struct Connection {
    plugin: Uuid,
    service: Service,
    used: Mutex<Instant>,
}

struct Slot {
    /// Of the plugin: a change of its source or headers makes another connection.
    version: i64,
    cell: Cell,
}

static SLOTS: LazyLock<Mutex<HashMap<Uuid, Slot>>> = LazyLock::new(Mutex::default);

fn slots() -> MutexGuard<'static, HashMap<Uuid, Slot>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plugin's connection, made when there is none that lives. Those who ask at once wait for one.
pub async fn get(app: &App, access: &Access) -> Result<Arc<Connection>, ToolError> {
    let cell = cell(access);
    let made = cell.get_or_try_init(|| connect(app, access)).await;
    match made {
        Ok(connection) => {
            *connection.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            Ok(connection.clone())
        }
        Err(e) => {
            forget(access.id, &cell);
            Err(e)
        }
    }
}

fn cell(access: &Access) -> Cell {
    let mut slots = slots();
    let lives = |slot: &&Slot| slot.version == access.version && slot.cell.get().is_none_or(|c| !c.peer().is_transport_closed());
    if let Some(slot) = slots.get(&access.id).filter(lives) {
        return slot.cell.clone();
    }
    let cell = Cell::default();
    slots.insert(access.id, Slot { version: access.version, cell: cell.clone() });
    cell
}

/// Unless another one has taken its place.
fn forget(plugin: Uuid, cell: &Cell) {
    let mut slots = slots();
    if slots.get(&plugin).is_some_and(|slot| Arc::ptr_eq(&slot.cell, cell)) {
        slots.remove(&plugin);
    }
}

async fn connect(app: &App, access: &Access) -> Result<Arc<Connection>, ToolError> {
    let limits = &app.config.plugins;
    let connecting = async {
        match &access.source {
            Source::Mcp(Server::Http { url, .. }) => over_http(app, access, url).await,
            Source::Mcp(Server::Stdio { command }) => over_pipes(app, command).await,
            Source::Openapi(_) => Err(ToolError::new("PLUGIN_CHANGED", "the plugin is no MCP server any more")),
        }
    };
    let service = tokio::time::timeout(limits.timeout, connecting).await;
    let service = service.map_err(|_| ToolError::new("TIMEOUT", format!("no answer within {:?}", limits.timeout)))??;
    let connection = Arc::new(Connection { plugin: access.id, service, used: Mutex::new(Instant::now()) });
    close_when_idle(Arc::downgrade(&connection), limits.idle_timeout);
    Ok(connection)
}

fn close_when_idle(connection: Weak<Connection>, idle: Duration) {
    let mut left = idle;
    tasks::spawn("close an idle MCP connection", async move {
        loop {
            tokio::time::sleep(left).await;
            let Some(connection) = connection.upgrade() else { return };
            let mut slots = slots();
            let is_ours = |slot: &Slot| slot.cell.get().is_some_and(|c| Arc::ptr_eq(c, &connection));
            if !slots.get(&connection.plugin).is_some_and(is_ours) {
                return;
            }
            // One is the slot's, one is ours; any other is a call's.
            left = idle.saturating_sub(connection.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed());
            if Arc::strong_count(&connection) > 2 {
                left = idle;
            } else if left.is_zero() {
                slots.remove(&connection.plugin);
                return;
            }
        }
    });
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.client_info = Implementation::new("runmill", env!("CARGO_PKG_VERSION"));
    config
}

async fn over_http(app: &App, access: &Access, url: &str) -> Result<Service, ToolError> {
    let url = Url::parse(url).map_err(|e| ToolError::new("INVALID_URL", e.to_string()))?;
    let guard = guard(&app.config.security)?;
    let client_of_url = guard.client(&url).map_err(|e| refused(&e))?.clone();
    let mut headers = HashMap::new();
    for (name, value) in &access.headers {
        let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value.expose())) else { continue };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .custom_headers(headers)
        .max_sse_event_size(app.config.plugins.max_response_bytes);
    serve_client(client(), StreamableHttpClientTransport::with_client(client_of_url, config)).await.map_err(|e| not_begun(&e))
}

async fn over_pipes(app: &App, name: &str) -> Result<Service, ToolError> {
    let server = app.config.mcp.get(name);
    let server =
        server.ok_or_else(|| ToolError::new("UNKNOWN_SERVER", "the settings have no MCP server of this name any more"))?;
    let child = Child::start(server, app.config.plugins.max_response_bytes).map_err(|e| {
        tracing::warn!(server = name, error = %e, "an MCP server cannot be started");
        ToolError::new("REQUEST_FAILED", "the MCP server cannot be started")
    })?;
    serve_client(client(), child).await.map_err(|e| not_begun(&e))
}

impl Connection {
    pub fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// What a tool answers. A connection that is broken is not used again.
    pub fn failed(&self, error: ServiceError) -> ToolError {
        let told = match &error {
            ServiceError::McpError(e) => return ToolError::new("MCP_ERROR", format!("{} ({})", e.message, e.code.0)),
            ServiceError::TransportSend(e) => transport(e),
            ServiceError::TransportClosed => ToolError::new("CONNECTION_LOST", "the MCP server ended the connection"),
            other => ToolError::new("MCP_ERROR", other.to_string()),
        };
        let mut slots = slots();
        if slots.get(&self.plugin).and_then(|slot| slot.cell.get()).is_some_and(|c| std::ptr::eq(&**c, self)) {
            slots.remove(&self.plugin);
        }
        told
    }
}

fn not_begun(error: &ClientInitializeError) -> ToolError {
    match error {
        ClientInitializeError::TransportError { error, .. } => transport(error),
        ClientInitializeError::JsonRpcError(e) => ToolError::new("MCP_ERROR", format!("{} ({})", e.message, e.code.0)),
        ClientInitializeError::ConnectionClosed(_) => ToolError::new("CONNECTION_LOST", "the MCP server ended the connection"),
        _ => ToolError::new("MCP_ERROR", "the server does not speak MCP as it should"),
    }
}

fn transport(error: &DynamicTransportError) -> ToolError {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(e)) => failed(e),
        Some(StreamableHttpError::AuthRequired(_)) => ToolError::new("HTTP_ERROR", "the server answered 401"),
        Some(StreamableHttpError::InsufficientScope(_)) => ToolError::new("HTTP_ERROR", "the server answered 403"),
        Some(StreamableHttpError::HttpStatus(e)) => ToolError::new("HTTP_ERROR", format!("the server answered {}", e.status)),
        Some(StreamableHttpError::UnexpectedServerResponse(said)) => ToolError::new("HTTP_ERROR", said.to_string()),
        Some(other) => ToolError::new("MCP_ERROR", other.to_string()),
        None => ToolError::new("REQUEST_FAILED", error.error.to_string()),
    }
}
