//! `runmill worker`: executes runs. Start as many as the work needs.
use runmill_api::{
    Health,
    http::{ops, server},
};
use runmill_shared::{App, Result, telemetry};
use tokio_util::sync::CancellationToken;

use crate::{dev, process, settings::Settings};

pub async fn run(settings: &Settings) -> Result<u8> {
    let config = settings.load()?;
    let _telemetry = telemetry::init(&config)?;
    process::require_distributed(&config, "worker")?;
    let listener = server::bind(config.listen.ops).await?;
    let shutdown = process::shutdown()?;
    let app = App::open(config).await?;
    dev::describe_metrics()?;
    tracing::info!(ops = %listener.local_addr()?, "a worker is starting");
    // The ops listener stays until the drain is over, so that it can be watched.
    let drained = CancellationToken::new();
    let operators = ops::serve(listener, Health::of(&app), &app.config, drained.clone());
    let work = async {
        let outcome = runmill_worker::run(app.clone(), shutdown).await;
        drained.cancel();
        outcome
    };
    tokio::try_join!(work, operators)?;
    app.db.close().await;
    Ok(0)
}
