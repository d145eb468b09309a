//! The HTTP side: one folder a dialect over the services, `http` for what they share.
pub mod agent;
pub mod http;
pub mod platform;

use poem::{Endpoint, EndpointExt, Route};
use runmill_shared::{App, Result, domain::tool::ToolDescriptor, services::stream};
use tokio_util::sync::CancellationToken;

use crate::http::{
    auth::Authenticator,
    ops,
    server::{self, Sockets},
};
pub use crate::http::{
    ops::Health,
    server::{Listeners, Stopping},
};

/// What only the process that starts the server knows.
pub struct Setup {
    /// the tools that every worker has
    pub builtin_tools: Vec<ToolDescriptor>,
    /// what `/livez` and `/readyz` ask
    pub health: Health,
}

/// All dialects. Each is one nest with its own error envelope; a longer prefix goes before a shorter one.
pub fn routes(app: &App, setup: &Setup, stopping: CancellationToken) -> impl Endpoint + 'static {
    Route::new()
        .nest("/api/v1/agent", agent::routes(app))
        .nest("/blobs", agent::blobs(app))
        .nest("/", platform::routes(app, &setup.builtin_tools))
        .data(Authenticator::new(app.clone()))
        .data(Stopping(stopping))
        .data(app.clone())
}

/// The dialects that have an OpenAPI document.
pub const DIALECTS: [&str; 2] = ["agent", "platform"];

/// The OpenAPI document of a dialect, `agent` or `platform`: JSON with a line end. `None` for any other name.
pub fn openapi(dialect: &str) -> Option<String> {
    let document = match dialect {
        "agent" => agent::document(),
        "platform" => platform::document(),
        _ => return None,
    };
    Some(format!("{}\n", document.trim_end()))
}

/// Serves the API and the ops listener until `shutdown`. Errors: an open start on an address that others can reach.
pub async fn serve(app: App, setup: Setup, listeners: Listeners, shutdown: CancellationToken) -> Result<()> {
    let (platform, operators) = listeners.checked(&app.config)?;
    let (sockets, mut gone) = Sockets::new();
    let endpoint = routes(&app, &setup, shutdown.clone()).data(sockets);
    stream::watch(&app);
    // The ops listener stays until the last request has ended, so that a drain can be watched.
    let drained = CancellationToken::new();
    let api = async {
        let outcome = server::serve("platform", platform, endpoint, &app.config, shutdown).await;
        tokio::time::timeout(app.config.http.shutdown_grace, gone.recv()).await.ok();
        drained.cancel();
        outcome
    };
    let operators = ops::serve(operators, setup.health, &app.config, drained.clone());
    tokio::try_join!(api, operators).map(|_| ())
}
