//! The platform's dialect, `/api/v1`: snake_case, bare resources, errors as `{"error", "message", "details"}`.
mod auth;
mod health;
mod page;

use poem::{Endpoint, EndpointExt, Route};
use poem_openapi::{Object, OpenApiService};
use runmill_shared::{App, FieldError};

use crate::http::error::{Dialect, Envelope, Failed, Refusal};

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
    #[oai(skip_serializing_if_is_empty)]
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

type Apis = (auth::AuthApi, health::HealthApi);

fn service(builtin_tools: usize) -> OpenApiService<Apis, ()> {
    let apis = (auth::AuthApi, health::HealthApi { builtin_tools });
    OpenApiService::new(apis, "Runmill Platform API", env!("CARGO_PKG_VERSION"))
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn document() -> String {
    service(0).spec()
}

/// Everything of this dialect, `/health`, `/docs` and `/openapi.json` too. `builtin_tools` is how many there are.
pub fn routes(app: &App, builtin_tools: usize) -> impl Endpoint + 'static {
    let service = service(builtin_tools);
    let (ui, spec) = (service.swagger_ui(), service.spec_endpoint());
    Route::new()
        .nest("/docs", ui)
        .at("/openapi.json", spec)
        .nest("/", service)
        .with(Envelope::<Platform>::new(app.config.http.request_timeout))
}
