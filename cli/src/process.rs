//! What the processes that serve have in common: the stop signals, and what must be there before they start.
use runmill_shared::{Error, FieldError, Result, config::Config, tasks};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The shell's code for a process that ended by ctrl-c.
pub const INTERRUPTED: u8 = 130;

/// Cancelled at the first SIGINT or SIGTERM; the second ends the process at once.
pub fn shutdown() -> Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tasks::spawn("wait for signals", async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                tracing::info!(
                    "stopping; work that does not end in time goes back to the queue; a second signal ends it at once"
                );
                stop.cancel();
            }
        }
        tracing::warn!("ended by a second signal");
        std::process::exit(INTERRUPTED.into());
    });
    Ok(token)
}

/// Several processes share a database and a queue, and neither a file nor memory can be shared.
pub fn require_distributed(config: &Config, command: &str) -> Result<()> {
    let mut missing = Vec::new();
    let mut need = |unset: bool, field: &str, what: &str, example: &str| {
        if unset {
            let message = format!("`runmill {command}` is one of several processes, which need {what}; set {example}");
            missing.push(FieldError { field: field.to_owned(), message });
        }
    };
    need(config.database.url.is_empty(), "database.url", "Postgres", "RUNMILL_DATABASE_URL=postgres://…");
    need(config.redis.url.is_empty(), "redis.url", "Redis (7 or newer)", "RUNMILL_REDIS_URL=redis://…");
    if !missing.is_empty() {
        return Err(Error::invalid_fields(missing));
    }
    if config.blobs.bucket.is_empty() {
        tracing::warn!(data_dir = %config.data_dir.display(), "no bucket is set: every process must see this same data directory");
    }
    Ok(())
}
