//! Background tasks: each keeps the span it was started in, and a panic is logged instead of lost.
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// `name` is what the log calls it.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let watched = async move {
        if AssertUnwindSafe(future).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a background task panicked");
        }
    };
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    tokio::spawn(watched.in_current_span())
}
