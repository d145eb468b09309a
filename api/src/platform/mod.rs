//! The platform's dialect, `/api/v1`: snake_case, bare resources, errors as `{"error", "message", "details"}`.
mod agent_chat;
mod agents;
mod approval;
mod auth;
mod branches;
mod chat;
mod chat_events;
mod executions;
mod executions_live;
mod feedback;
mod goals;
mod health;
mod model_configs;
mod notification_channels;
mod notifications;
mod page;
mod plugins;
mod schedules;
mod secrets;
mod swarm;
mod tasks;
mod tools;
mod usage;

use std::sync::Arc;

use poem::{Endpoint, EndpointExt, Route};
use poem_openapi::{Object, OpenApi, OpenApiService};
use runmill_shared::{App, FieldError, domain::tool::ToolDescriptor};

use crate::http::{
    document::Nullable,
    error::{Dialect, Envelope, Failed, Refusal},
};

pub struct Platform;

/// One bad field of a request.
#[derive(Object)]
pub struct Detail {
    /// a dotted path: `model_config.temperature`
    pub field: String,
    pub message: String,
}

#[derive(Object)]
pub struct ErrorBody {
    /// stable, for programs: `VALIDATION_ERROR`
    pub error: String,
    /// for people
    pub message: String,
    /// every bad field, when fields are what is wrong
    #[oai(default, skip_serializing_if_is_empty)]
    pub details: Vec<Detail>,
}

impl Dialect for Platform {
    type Body = ErrorBody;

    fn body(refusal: Refusal) -> ErrorBody {
        let detail = |f: FieldError| Detail { field: f.field, message: f.message };
        ErrorBody {
            error: refusal.code.into_owned(),
            message: refusal.message.into_owned(),
            details: refusal.fields.into_iter().map(detail).collect(),
        }
    }
}

/// What every handler of this dialect answers.
pub type Reply<T> = Result<T, Failed<Platform>>;

/// One line a resource. Tuples stop at 16, hence the groups.
fn apis(builtin: &[ToolDescriptor]) -> impl OpenApi + 'static + use<> {
    let builtin: Arc<[ToolDescriptor]> = builtin.into();
    (
        (auth::AuthApi, health::HealthApi { builtin_tools: builtin.len() }),
        (
            agents::AgentsApi { builtin: builtin.clone() },
            approval::ApprovalApi,
            branches::BranchesApi,
            feedback::FeedbackApi,
            goals::GoalsApi,
            model_configs::ModelConfigsApi,
            usage::UsageApi,
            plugins::PluginsApi,
        ),
        (schedules::SchedulesApi, secrets::SecretsApi, tools::ToolsApi { builtin: builtin.clone() }),
        (notification_channels::NotificationChannelsApi, notifications::NotificationsApi),
        (agent_chat::AgentChatApi, executions::ExecutionsApi, swarm::SwarmApi),
        tasks::TasksApi,
    )
}

fn service(builtin: &[ToolDescriptor]) -> OpenApiService<impl OpenApi + 'static + use<>, ()> {
    OpenApiService::new(Nullable(apis(builtin)), "Runmill Platform API", env!("CARGO_PKG_VERSION"))
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn document() -> String {
    service(&[]).spec()
}

/// Everything of this dialect, `/health`, `/docs` and `/openapi.json` too.
pub fn routes(app: &App, builtin_tools: &[ToolDescriptor]) -> impl Endpoint + 'static {
    let service = service(builtin_tools);
    let (ui, spec) = (service.swagger_ui(), service.spec_endpoint());
    Route::new()
        .nest("/docs", ui)
        .at("/openapi.json", spec)
        .at("/api/v1/ws/executions/:id", executions_live::endpoint())
        .nest("/", service)
        .with(Envelope::<Platform>::new(app.config.http.request_timeout))
}
