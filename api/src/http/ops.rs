//! The ops listener, for operators and orchestrators: metrics, and whether this process works. Not for the open internet.
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route, endpoint::make, get, http::StatusCode, web::Json};
use runmill_shared::{App, Error, Result, config::Config, tasks};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::server;

/// A check that has not answered by then has failed.
const CHECK: Duration = Duration::from_secs(2);
/// How often recorded values are folded into their histograms; between scrapes they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);
/// Seconds; from a claim in memory to a slow model.
const BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

type Live = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What `/livez` and `/readyz` ask.
#[derive(Clone)]
pub struct Health {
    live: Live,
    ready: Vec<(&'static str, Ready)>,
}

impl Health {
    /// Ready when the database answers; live for as long as it can say so.
    pub fn of(app: &App) -> Self {
        let db = app.db.clone();
        let pulse = app.pulse.clone();
        let progress = move || match pulse.stuck().as_slice() {
            [] => Ok(()),
            stuck => Err(format!("stuck: {}", stuck.join(", "))),
        };
        Self { live: Arc::new(progress), ready: Vec::new() }.needs("database", move || {
            let db = db.clone();
            async move { db.ping().await }
        })
    }

    /// Live means progress, not only a pulse: `progress` says what has stopped moving. An orchestrator restarts a process that is not live.
    #[must_use]
    pub fn live_when(mut self, progress: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.live = Arc::new(progress);
        self
    }

    /// One more thing without which no traffic should come here; `name` is what `/readyz` calls it.
    #[must_use]
    pub fn needs<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.ready.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// The names of what is missing.
    async fn missing(&self) -> Vec<&'static str> {
        let asked = self.ready.iter().map(|(name, check)| async move {
            match timeout(CHECK, check()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    tracing::warn!(check = name, %error, "not ready");
                    Some(*name)
                }
                Err(_) => {
                    tracing::warn!(check = name, "not ready: no answer");
                    Some(*name)
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// The recorder of this process, made by whoever asks first: several servers in one process, as in tests, share it.
pub fn recorder() -> Result<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let made = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS).ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        Some(handle)
    });
    made.as_ref().ok_or_else(|| Error::internal("another metrics recorder is installed already"))
}

/// `/metrics`, `/livez`, `/readyz`.
pub fn routes(health: Health) -> Result<impl Endpoint> {
    let metrics = recorder()?;
    let live = health.live.clone();
    Ok(Route::new()
        .at("/metrics", get(make(move |_| async move { metrics.render() })))
        .at(
            "/livez",
            get(make(move |_| {
                let verdict = live();
                async move { livez(verdict) }
            })),
        )
        .at(
            "/readyz",
            get(make(move |_| {
                let health = health.clone();
                async move { readyz(&health).await }
            })),
        )
        .map_to_response())
}

fn livez(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => Json(json!({ "status": "ok" })).into_response(),
        Err(stuck) => {
            tracing::error!(%stuck, "not live");
            Json(json!({ "status": "stuck", "reason": stuck })).with_status(StatusCode::SERVICE_UNAVAILABLE).into_response()
        }
    }
}

async fn readyz(health: &Health) -> Response {
    let missing = health.missing().await;
    let checks: BTreeMap<_, _> =
        health.ready.iter().map(|(name, _)| (*name, if missing.contains(name) { "missing" } else { "ok" })).collect();
    let (status, word) = if missing.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    Json(json!({ "status": word, "missing": missing, "checks": checks })).with_status(status).into_response()
}

/// Serves until `shutdown`. For every process that has an ops listener, the worker's too.
pub async fn serve(listener: TcpListener, health: Health, config: &Config, shutdown: CancellationToken) -> Result<()> {
    let handle = recorder()?;
    let stop = shutdown.clone();
    tasks::spawn("fold metrics", async move {
        let mut tick = tokio::time::interval(UPKEEP);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            handle.run_upkeep();
        }
    });
    server::serve("ops", listener, routes(health)?, config, shutdown).await
}
