//! THE list of what we measure. Whoever records a value uses a name from here; a test looks for others.
use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: Unit,
    pub help: &'static str,
}

const fn metric(kind: MetricKind, name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

use MetricKind::{Counter, Gauge, Histogram};

/// Times are in seconds. Labels stand in the help, in brackets.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric(Counter, "http_requests_total", Unit::Count, "Answered HTTP requests [method, route, status]"),
    metric(Histogram, "http_request_duration_seconds", Unit::Seconds, "From a request's headers to its answer's [route, status_class]"),
    metric(Counter, "runmill_runs_accepted_total", Unit::Count, "Runs that were accepted [kind]"),
    metric(Histogram, "runmill_accept_seconds", Unit::Seconds, "Accepting a run, its commit included [kind]"),
    metric(Counter, "runmill_runs_ended_total", Unit::Count, "Runs that ended [kind, state]"),
    metric(Counter, "runmill_run_retries_total", Unit::Count, "Failed attempts that are tried again [kind]"),
    metric(Counter, "runmill_schedule_fires_total", Unit::Count, "Runs that schedules have started"),
    metric(Gauge, "runmill_queue_depth", Unit::Count, "Ready runs that wait for a worker [lane]"),
    metric(Gauge, "runmill_queue_age_seconds", Unit::Seconds, "How long the first ready run has been waiting [lane]"),
    metric(Histogram, "runmill_pickup_seconds", Unit::Seconds, "From ready to claimed [lane]"),
    metric(Counter, "runmill_leases_lost_total", Unit::Count, "Worker sessions whose lease expired"),
    metric(Counter, "runmill_worker_fenced_total", Unit::Count, "Times this worker stopped because it could not prove its lease"),
    metric(Histogram, "runmill_flush_runs", Unit::Count, "Runs whose events one transaction wrote"),
    metric(Counter, "runmill_events_appended_total", Unit::Count, "Events written to the log"),
    metric(Gauge, "runmill_stream_readers", Unit::Count, "Streams that are being read from this process"),
    metric(Counter, "runmill_live_messages_dropped_total", Unit::Count, "Live messages that could not be published; readers find them in the database"),
    metric(Histogram, "runmill_model_seconds", Unit::Seconds, "A model call, to its last byte [model]"),
    metric(Histogram, "runmill_model_first_event_seconds", Unit::Seconds, "A model call, to its first event [model]"),
    metric(Counter, "runmill_model_errors_total", Unit::Count, "Model calls that failed [model, code]"),
    metric(Counter, "runmill_model_fallbacks_total", Unit::Count, "Calls that went on to the next model [model, code]"),
    metric(Counter, "runmill_model_input_tokens_total", Unit::Count, "Tokens that models read [model]"),
    metric(Counter, "runmill_model_output_tokens_total", Unit::Count, "Tokens that models wrote [model]"),
    metric(Histogram, "runmill_tool_seconds", Unit::Seconds, "A tool call [tool]"),
];

/// Gives the installed recorder unit and help of every metric. Call it once the recorder is installed.
pub fn describe_metrics() {
    for metric in METRICS {
        match metric.kind {
            Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}
