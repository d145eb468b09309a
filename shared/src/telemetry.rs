//! Logs, traces and the list of metrics. One trace runs from the request to the last step, through every process: a run's row
//! carries the W3C traceparent of the request (`current_traceparent`), and whoever executes the run goes on from it
//! (`continue_from`). Trace ids exist, and are in the logs, without any collector too.
mod metrics;

use std::{collections::HashMap, io, time::Duration};

use opentelemetry::{
    Context, KeyValue, global,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    runtime,
    trace::{SdkTracerProvider, span_processor_with_async_runtime::BatchSpanProcessor},
};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::metrics::{METRICS, Metric, MetricKind, describe_metrics};
use crate::{
    config::{Config, LogFormat, Telemetry},
    domain::new_id,
    error::{Error, Result},
};

/// How long one export of spans may take.
const EXPORT: Duration = Duration::from_secs(5);
const TRACEPARENT: &str = "traceparent";

/// Sends what is still buffered when it is dropped: keep it until the process ends, and drop it while the runtime still turns,
/// on a thread that may block.
pub struct Guard(SdkTracerProvider);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// Starts logging to standard error, and the export of spans when `telemetry.otlp_endpoint` is set. Once a process, within a
/// tokio runtime.
///
/// # Errors
/// `Invalid` when the filter or the endpoint cannot be read; `Internal` when logging has been started before.
pub fn init(config: &Config) -> Result<Guard> {
    let (subscriber, guard) = subscriber(&config.telemetry, io::stderr)?;
    subscriber.try_init().map_err(Error::internal)?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(guard)
}

fn subscriber<W>(config: &Telemetry, writer: W) -> Result<(impl Subscriber + Send + Sync + use<W>, Guard)>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.log).map_err(|e| Error::invalid("telemetry.log", format!("no log filter: {e}")))?;
    let provider = provider(&config.otlp_endpoint)?;
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("runmill")).with_location(false).with_threads(false);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(spans).with(lines), Guard(provider)))
}

/// Without an endpoint spans get their ids and go nowhere.
fn provider(endpoint: &str) -> Result<SdkTracerProvider> {
    let about =
        [KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), KeyValue::new("service.instance.id", new_id().to_string())];
    let resource = Resource::builder().with_service_name("runmill").with_attributes(about).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    if endpoint.is_empty() {
        return Ok(builder.build());
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT)
        .build()
        .map_err(|e| Error::invalid("telemetry.otlp_endpoint", e.to_string()))?;
    // Exports on tasks of the runtime: the processor's default thread has no reactor for an async client.
    let processor = BatchSpanProcessor::builder(exporter, runtime::Tokio).build();
    Ok(builder.with_span_processor(processor).build())
}

/// The W3C traceparent of the current span, for a row or a request that carries it on; none outside of any span.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let current = span.span_context();
    current.is_valid().then(|| format!("00-{}-{}-{:02x}", current.trace_id(), current.span_id(), current.trace_flags().to_u8()))
}

/// Makes `span` the child of `traceparent` (one that cannot be read counts as none), and records the trace's id in its field
/// `trace_id`, if it has declared one: `info_span!("run", trace_id = Empty)`. Call it before the span is entered.
pub fn continue_from(traceparent: Option<&str>, span: &Span) {
    if let Some(parent) = traceparent {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), parent.to_owned())]);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        if parent.span().span_context().is_valid() {
            // Fails only where nothing listens to spans.
            span.set_parent(parent).ok();
        }
    }
    let context = span.context();
    let trace = context.span().span_context().trace_id();
    if trace != opentelemetry::TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{field::Empty, info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Runs `work` under a subscriber without a collector and gives back its log.
    fn logged(format: LogFormat, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = Telemetry { log: "info".into(), format, otlp_endpoint: String::new() };
        let (subscriber, _guard) = subscriber(&config, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        lines.text()
    }

    #[test]
    fn a_trace_goes_on_in_another_span_and_its_id_is_in_both_logs_without_a_collector() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let mut carried = None;
            let log = logged(format, || {
                let request = info_span!("request", trace_id = Empty);
                continue_from(None, &request);
                carried = request.in_scope(|| {
                    info!("accepted");
                    current_traceparent()
                });
                let run = info_span!("run", trace_id = Empty);
                continue_from(carried.as_deref(), &run);
                run.in_scope(|| info!("started"));
            });
            let carried = carried.unwrap();
            let [version, trace, parent, flags] = carried.split('-').collect::<Vec<_>>()[..] else { panic!("{carried}") };
            assert_eq!((version, trace.len(), parent.len(), flags), ("00", 32, 16, "01"));
            let with_id: Vec<_> = log.lines().filter(|line| line.contains(trace)).collect();
            assert_eq!(with_id.len(), 2, "{log}");
            assert!(with_id[0].contains("accepted") && with_id[1].contains("started"), "{log}");
        }
    }

    #[test]
    fn a_request_from_outside_keeps_its_trace_and_nonsense_starts_a_new_one() {
        logged(LogFormat::Text, || {
            let ours = |given: &str| {
                let span = info_span!("request");
                continue_from(Some(given), &span);
                span.in_scope(current_traceparent).unwrap()
            };
            let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            assert!(ours(given).starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
            assert!(!ours(given).contains("b7ad6b7169203331"));
            assert_ne!(&ours("nonsense")[3..35], "00000000000000000000000000000000");
        });
    }

    #[test]
    fn there_is_no_traceparent_outside_of_spans() {
        assert_eq!(current_traceparent(), None);
        logged(LogFormat::Text, || assert_eq!(current_traceparent(), None));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let config = Telemetry { log: "info,=x=".into(), format: LogFormat::Text, otlp_endpoint: String::new() };
        let Err(error) = subscriber(&config, io::sink) else { panic!("it was taken") };
        assert_eq!(error.fields[0].field, "telemetry.log");
    }
}
