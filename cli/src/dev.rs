//! `runmill` and `runmill dev`: API, worker and ops listener in one process, which migrates its own database.
use std::net::SocketAddr;

use runmill_api::{Health, Listeners, Setup, http::ops, serve};
use runmill_shared::{
    App, Result,
    config::{AuthMode, Config},
    store::migrate::migrate,
    telemetry,
};
use runmill_worker::{asr::Asr, builtin_tools};

use crate::{lock, process, settings::Settings};

pub async fn run(settings: &Settings) -> Result<u8> {
    let config = settings.load()?;
    let _telemetry = telemetry::init(&config)?;
    let _lock = lock::take(&config.data_dir)?;
    let listeners = Listeners::bind(&config).await?;
    let shutdown = process::shutdown()?;
    let app = App::open(config).await?;
    migrate(&app.db).await?;
    let setup = Setup { builtin_tools: builtin_tools(&app.config)?, health: Health::of(&app) };
    describe_metrics()?;
    let (platform, operators) = (listeners.platform_addr()?, listeners.ops_addr()?);
    println!("{}", banner(&app.config, platform, operators)?);
    // When one half fails, the other ends in good order too.
    let api = async {
        let outcome = serve(app.clone(), setup, listeners, shutdown.clone()).await;
        shutdown.cancel();
        outcome
    };
    let work = async {
        let outcome = runmill_worker::run(app.clone(), shutdown.clone()).await;
        shutdown.cancel();
        outcome
    };
    let (api, work) = tokio::join!(api, work);
    app.db.close().await;
    api.and(work).map(|()| 0)
}

/// Installs the process's recorder, if it is not there yet, and gives the metrics their units.
pub fn describe_metrics() -> Result<()> {
    ops::recorder()?;
    telemetry::describe_metrics();
    Ok(())
}

fn banner(config: &Config, platform: SocketAddr, operators: SocketAddr) -> Result<String> {
    let token = match config.auth.mode {
        AuthMode::Open => "",
        AuthMode::Required => " -H \"Authorization: Bearer $RUNMILL_TOKEN\"",
    };
    let sign_in = match config.auth.mode {
        AuthMode::Open => "open, for this machine only: everybody is the user `local`".to_owned(),
        AuthMode::Required => format!("required; register at http://{platform}/docs, and put the token into RUNMILL_TOKEN"),
    };
    let body = r#"{"threadId":"t1","runId":"r1","messages":[{"id":"m1","role":"user","content":"What can you do?"}]}"#;
    Ok(format!(
        "Runmill {version}, everything in this process; data in {data}
  API        http://{platform}  (to read and to try: /api/v1/agent/docs, accounts: /docs)
  Operators  http://{operators}/readyz, /livez and /metrics
  Sign-in    {sign_in}
  Model      {model}
  Speech     {speech}

Try it:
  runmill run \"What can you do?\"
or
  curl -s http://{platform}/api/v1/agent/runs{token} -H 'Content-Type: application/json' \\
    -d '{body}'
  curl -N http://{platform}/api/v1/agent/runs/t1/events{token}
",
        version = env!("CARGO_PKG_VERSION"),
        data = std::path::absolute(&config.data_dir)?.display(),
        model = model(config),
        speech = speech(config)?,
    ))
}

fn model(config: &Config) -> String {
    let name = config.default_model();
    if name.starts_with("offline:") {
        return format!(
            "{name}: scripted answers without a network. For a real one start with OPENAI_API_KEY=…\n             (and OPENAI_BASE_URL=… for any OpenAI-compatible server)"
        );
    }
    if name.starts_with("openai:") {
        return format!("{name} at {}", config.models.openai_base_url);
    }
    name
}

fn speech(config: &Config) -> Result<String> {
    Ok(match Asr::from_config(config)? {
        #[cfg(feature = "whisper")]
        Asr::Whisper(_) => "whisper.cpp, in this process".to_owned(),
        Asr::Hosted(_) => format!("{} at {}", config.transcribe.hosted_model, config.transcribe.endpoint),
        Asr::None if cfg!(feature = "whisper") => {
            "no transcription; get a model with: runmill models pull whisper-base".to_owned()
        }
        Asr::None => "no transcription; set transcribe.endpoint (this build has no whisper in it)".to_owned(),
    })
}
