//! One way from an error to a refusal: ours, and what poem refuses by itself. A dialect gives only the envelope.
use std::{any::Any, borrow::Cow, fmt, marker::PhantomData, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use poem::{
    Endpoint, IntoResponse, Middleware, PathPattern, Request, Response,
    error::{NotFoundError, ParsePathError, ResponseError},
    http::{StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    error::{ParseMultipartError, ParseParamError, ParsePathError as OpenApiPathError, ParseRequestPayloadError},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};
use runmill_shared::{Error, ErrorKind, FieldError};

use super::patience::Patience;

/// A family of endpoints with an error envelope of its own.
pub trait Dialect: Send + Sync + 'static {
    /// What the body of an error looks like.
    type Body: Type + ToJSON;

    fn body(refusal: Refusal) -> Self::Body;
}

/// An error as a client may see it: nothing in it tells what is inside the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub fields: Vec<FieldError>,
    pub retry_after: Option<Duration>,
}

/// The only place where a kind becomes a status.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Refusal {
    /// Logs the cause, under the request's span, and leaves it out.
    fn from(e: Error) -> Self {
        match e.kind {
            ErrorKind::Internal => tracing::error!(error = %e, "internal error"),
            ErrorKind::Unavailable => tracing::warn!(error = %e, "unavailable"),
            _ => tracing::debug!(error = %e, "refused"),
        }
        Self { status: status(e.kind), code: e.code.into(), message: e.message, fields: e.fields, retry_after: e.retry_after }
    }
}

impl From<poem::Error> for Refusal {
    fn from(e: poem::Error) -> Self {
        let e = match e.downcast::<Refused>() {
            Ok(refused) => return refused.0.into(),
            Err(other) => other,
        };
        if let Some(e) = e.downcast_ref::<ParseParamError>() {
            return Error::malformed(format!("{}: {}", e.name, plain(&e.reason))).into();
        }
        if let Some(e) = e.downcast_ref::<ParseRequestPayloadError>() {
            return Error::malformed(plain(&e.reason).to_owned()).into();
        }
        if let Some(e) = e.downcast_ref::<ParseMultipartError>() {
            return Error::malformed(e.reason.clone()).into();
        }
        // An id that is none names nothing.
        if e.is::<OpenApiPathError>() || e.is::<ParsePathError>() || e.is::<NotFoundError>() {
            return Error::not_found("NOT_FOUND", "nothing is at this address").into();
        }
        let status = e.status();
        if status.is_server_error() {
            return Error::internal(e.to_string()).into();
        }
        by_status(status)
    }
}

/// `failed to parse "integer(uint64)": no number (occurred while parsing …)` without the names of our types.
fn plain(reason: &str) -> &str {
    if reason.ends_with("expects an input value.") {
        return "is required";
    }
    let reason = reason.strip_prefix("failed to parse ").and_then(|r| r.split_once(": ")).map_or(reason, |(_, r)| r);
    reason.split_once(" (occurred while").map_or(reason, |(r, _)| r)
}

/// What poem refuses with a bare status: its standard name in both forms.
fn by_status(status: StatusCode) -> Refusal {
    let name = status.canonical_reason().unwrap_or("Refused");
    let error = match status {
        StatusCode::UNAUTHORIZED => Error::unauthenticated("sign in first"),
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large("the body is too large"),
        StatusCode::BAD_REQUEST => Error::malformed("the request could not be read"),
        _ => {
            let code = name.to_uppercase().replace([' ', '-'], "_").replace('\'', "");
            return Refusal {
                status,
                code: code.into(),
                message: name.to_lowercase().into(),
                fields: Vec::new(),
                retry_after: None,
            };
        }
    };
    error.into()
}

impl Refusal {
    pub fn respond<D: Dialect>(self) -> Response {
        let mut response = Response::builder().status(self.status).content_type("application/json; charset=utf-8");
        if let Some(wait) = self.retry_after {
            response = response.header(header::RETRY_AFTER, wait.as_millis().div_ceil(1000).max(1).to_string());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response = response.header(header::WWW_AUTHENTICATE, "Bearer");
        }
        response.body(D::body(self).to_json_string())
    }
}

/// Our error on its way through poem.
#[derive(Debug)]
struct Refused(Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {}

impl ResponseError for Refused {
    fn status(&self) -> StatusCode {
        status(self.0.kind)
    }
}

/// What an extractor or a middleware answers with; the dialect's wrapper gives it the envelope.
pub fn refuse(error: Error) -> poem::Error {
    Refused(error).into()
}

/// The error of a handler: `Result<T, Failed<MyDialect>>`, made by `?`. It documents the envelope.
pub struct Failed<D>(Error, PhantomData<fn() -> D>);

impl<D> From<Error> for Failed<D> {
    fn from(e: Error) -> Self {
        Self(e, PhantomData)
    }
}

impl<D> From<Failed<D>> for poem::Error {
    fn from(e: Failed<D>) -> Self {
        refuse(e.0)
    }
}

/// What each status that an endpoint may refuse with means.
const REFUSALS: [(u16, &str); 10] = [
    (400, "the request could not be read: malformed JSON, a bad query value, a file of another type"),
    (401, "not signed in"),
    (403, "not allowed"),
    (404, "no such thing, or somebody else's"),
    (409, "the state of the thing forbids it"),
    (413, "the body is too large"),
    (422, "the body was read and breaks a rule; every bad field is named"),
    (429, "too many requests; Retry-After says when to come back"),
    (500, "a fault of the server"),
    (503, "something that this needs is not configured or does not answer"),
];

impl<D: Dialect> ApiResponse for Failed<D> {
    fn meta() -> MetaResponses {
        let refusal = |(status, description)| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType { content_type: "application/json; charset=utf-8", schema: D::Body::schema_ref() }],
            headers: vec![],
        };
        MetaResponses { responses: REFUSALS.into_iter().map(refusal).collect() }
    }

    fn register(registry: &mut Registry) {
        D::Body::register(registry);
    }
}

/// The outermost layer of a dialect: whatever goes wrong inside, a panic and a timeout too, leaves in its envelope.
pub struct Envelope<D> {
    timeout: Duration,
    dialect: PhantomData<fn() -> D>,
}

impl<D> Envelope<D> {
    /// `timeout` bounds the time until the answer begins; a handler that waits on purpose asks for `Patience`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, dialect: PhantomData }
    }
}

impl<D: Dialect, E: Endpoint> Middleware<E> for Envelope<D> {
    type Output = Enveloped<D, E>;

    fn transform(&self, inner: E) -> Self::Output {
        Enveloped { inner, timeout: self.timeout, dialect: PhantomData }
    }
}

pub struct Enveloped<D, E> {
    inner: E,
    timeout: Duration,
    dialect: PhantomData<fn() -> D>,
}

impl<D: Dialect, E: Endpoint> Endpoint for Enveloped<D, E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let patience = Patience::new(self.timeout);
        request.extensions_mut().insert(patience.clone());
        let error = match AssertUnwindSafe(patience.bound(self.inner.call(request))).catch_unwind().await {
            Ok(Some(Ok(response))) => return Ok(response.into_response()),
            Ok(Some(Err(error))) => error,
            Ok(None) => refuse(Error::unavailable("REQUEST_TIMEOUT", "the request took too long")),
            Err(panic) => refuse(Error::internal(format!("a handler panicked: {}", said(&*panic)))),
        };
        let pattern = error.data::<PathPattern>().cloned();
        let mut response = Refusal::from(error).respond::<D>();
        if let Some(pattern) = pattern {
            response.set_data(pattern);
        }
        Ok(response)
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
