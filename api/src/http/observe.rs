//! One span and two metrics a request, whatever its dialect.
use std::time::Instant;

use poem::{Endpoint, IntoResponse, PathPattern, Request, Response, http::header};
use runmill_shared::telemetry;
use tracing::{Instrument, Span, field::Empty, info_span};

/// What a request counts under when no route took it, so that guessed addresses make no new series.
const UNMATCHED: &str = "unmatched";

pub struct Observed<E>(pub E);

impl<E: Endpoint> Endpoint for Observed<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let began = Instant::now();
        let method = request.method().to_string();
        let span = info_span!("request", otel.kind = "server", %method, route = Empty, status = Empty, trace_id = Empty);
        telemetry::continue_from(request.header("traceparent"), &span);
        let outcome = self.0.call(request).instrument(span.clone()).await;
        let mut response = outcome.map_or_else(poem::Error::into_response, IntoResponse::into_response);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
        // A nest that found nothing inside leaves its own pattern, which is empty for the outermost.
        let pattern = response.data::<PathPattern>().filter(|pattern| !pattern.0.is_empty());
        let route = pattern.map_or_else(|| UNMATCHED.to_owned(), |pattern| pattern.0.to_string());
        record(&span, method, route, response.status().as_u16(), began);
        Ok(response)
    }
}

fn record(span: &Span, method: String, route: String, status: u16, began: Instant) {
    span.record("route", &route).record("status", status);
    let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status / 100).clamp(1, 5) - 1];
    metrics::histogram!("http_request_duration_seconds", "route" => route.clone(), "status_class" => class)
        .record(began.elapsed().as_secs_f64());
    metrics::counter!("http_requests_total", "method" => method, "route" => route, "status" => status.to_string()).increment(1);
}
