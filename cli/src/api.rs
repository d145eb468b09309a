//! `runmill api`: accepts runs and streams their events.
use runmill_api::{Health, Listeners, Setup, serve};
use runmill_shared::{App, Result, telemetry};

use crate::{dev, process, settings::Settings};

pub async fn run(settings: &Settings) -> Result<u8> {
    let config = settings.load()?;
    let _telemetry = telemetry::init(&config)?;
    process::require_distributed(&config, "api")?;
    let listeners = Listeners::bind(&config).await?;
    let shutdown = process::shutdown()?;
    let app = App::open(config).await?;
    tracing::info!(platform = %listeners.platform_addr()?, ops = %listeners.ops_addr()?, "the API is starting");
    let setup = Setup { builtin_tools: runmill_worker::builtin_tools(&app.config)?, health: Health::of(&app) };
    dev::describe_metrics()?;
    serve(app.clone(), setup, listeners, shutdown).await?;
    app.db.close().await;
    Ok(0)
}
