//! The Agent API, `/api/v1/agent`: camelCase, errors as `{"detail"}`, event streams in two encodings.
pub mod agui;
mod agui_run;
mod attachments;
mod blobs;
mod events;
mod history;
mod input;
mod runs;
pub mod sse;
mod stream;
mod transcribe;

use poem::{Endpoint, EndpointExt, Route};
use poem_openapi::{Object, OpenApiService};
use runmill_shared::App;

use crate::http::{
    document::Nullable,
    error::{Dialect, Envelope, Failed, Refusal},
};

pub struct Agent;

#[derive(Object)]
pub struct ErrorBody {
    /// for people; every bad field, when fields are what is wrong
    pub detail: String,
}

impl Dialect for Agent {
    type Body = ErrorBody;

    fn body(refusal: Refusal) -> ErrorBody {
        ErrorBody { detail: refusal.message.into_owned() }
    }
}

/// What every handler of this dialect answers.
pub type Reply<T> = Result<T, Failed<Agent>>;

type Apis = (
    runs::RunsApi,
    events::EventsApi,
    agui_run::AguiApi,
    history::HistoryApi,
    attachments::AttachmentsApi,
    transcribe::TranscribeApi,
);

fn service() -> OpenApiService<Nullable<Apis>, ()> {
    let apis = (
        runs::RunsApi,
        events::EventsApi,
        agui_run::AguiApi,
        history::HistoryApi,
        attachments::AttachmentsApi,
        transcribe::TranscribeApi,
    );
    OpenApiService::new(Nullable(apis), "Runmill Agent API", env!("CARGO_PKG_VERSION")).server("/api/v1/agent")
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn document() -> String {
    service().spec()
}

/// Everything of this dialect, `/docs` and `/openapi.json` too; for a nest at `/api/v1/agent`.
pub fn routes(app: &App) -> impl Endpoint + 'static {
    let service = service();
    let (ui, spec) = (service.swagger_ui(), service.spec_endpoint());
    Route::new()
        .nest("/docs", ui)
        .at("/openapi.json", spec)
        .nest("/", service)
        .with(Envelope::<Agent>::new(app.config.http.request_timeout))
}

/// The files of a disk store, by signed URL; for a nest at `/blobs`.
pub fn blobs(app: &App) -> impl Endpoint + 'static {
    blobs::routes().with(Envelope::<Agent>::new(app.config.http.request_timeout))
}
