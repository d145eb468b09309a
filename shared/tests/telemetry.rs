//! Spans reach a collector over OTLP, and a run that is executed elsewhere belongs to the trace of its request.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
use runmill_shared::{
    config::Config,
    telemetry::{METRICS, continue_from, current_traceparent, init},
};
use runmill_testkit::http_server::{HttpServer, Response};
use tracing::{field::Empty, info_span};

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_from_the_request_to_the_worker_reaches_the_collector() {
    let collector = HttpServer::start(|_| Response::new(200, ""));
    let mut config = Config::defaults().unwrap();
    config.telemetry.otlp_endpoint = format!("{}/", collector.url);
    let guard = init(&config).unwrap();
    assert!(init(&config).is_err(), "logging is started once a process");

    let request = info_span!("post_runs", trace_id = Empty);
    continue_from(None, &request);
    let carried = request.in_scope(current_traceparent).unwrap();
    drop(request);
    let run = info_span!("execute_run", trace_id = Empty);
    continue_from(Some(&carried), &run);
    let step = run.in_scope(|| info_span!("model_call"));
    drop((step, run));
    // It waits for the export.
    tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();

    let requests = collector.requests();
    assert!(!requests.is_empty(), "nothing was exported");
    let body: Vec<u8> = requests.iter().flat_map(|r| r.body.clone()).collect();
    for sent in &requests {
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/v1/traces"));
        assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
    }
    let [_, trace, parent, _] = carried.split('-').collect::<Vec<_>>()[..] else { panic!("{carried}") };
    assert_eq!(count(&body, &hex::decode(trace).unwrap()), 3, "three spans, one trace");
    assert_eq!(count(&body, &hex::decode(parent).unwrap()), 2, "the request's own id, and the run's parent");
    for name in
        ["post_runs", "execute_run", "model_call", "service.name", "runmill", "service.instance.id", env!("CARGO_PKG_VERSION")]
    {
        assert!(count(&body, name.as_bytes()) > 0, "{name} is missing");
    }
}

/// The names in `counter!("…")`, `gauge!("…")` and `histogram!("…")` of a source file.
fn recorded(source: &str) -> Vec<String> {
    let macros = ["counter!(", "gauge!(", "histogram!("];
    let after = macros.iter().flat_map(|name| source.split(name).skip(1));
    after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)).collect()
}

fn sources(dir: &std::path::Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
}

#[test]
fn every_metric_that_is_recorded_is_in_the_list() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for member in ["api", "worker", "shared", "cli"] {
        sources(&root.join(member).join("src"), &mut files);
    }
    let names: Vec<_> = files.iter().flat_map(|file| recorded(&std::fs::read_to_string(file).unwrap())).collect();
    assert!(names.len() > 5, "the search finds nothing: {names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| METRICS.iter().all(|metric| metric.name != **name)).collect();
    assert!(unknown.is_empty(), "not in telemetry/metrics.rs: {unknown:?}");
    for metric in METRICS {
        let once = METRICS.iter().filter(|other| other.name == metric.name).count();
        assert_eq!(once, 1, "{} is listed twice", metric.name);
        assert!(metric.name.starts_with("runmill_") || metric.name.starts_with("http_"), "{}", metric.name);
    }
}
