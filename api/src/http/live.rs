//! An open event stream of any dialect: a reader of a thread, an encoder, and when it ends.
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use poem::{Body, Response};
use runmill_shared::{
    App, Result,
    clock::Timestamp,
    domain::event::Event,
    services::stream::{Follow, Item},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Keeps a connection open that has nothing to say.
pub const PING: Bytes = Bytes::from_static(b": ping\n\n");
/// Ready events are written together, up to about this many bytes at once.
const CHUNK: usize = 64 * 1024;
/// Tells an EventSource to come back, to another process, a second after this one has closed the stream in order to stop.
const RETRY: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// What a dialect makes of events: whole frames, or nothing.
pub trait Encode: Send + 'static {
    fn event(&mut self, event: &Event) -> Result<Bytes>;

    /// The events `from..=to` are past retention.
    fn gap(&mut self, from: i64, to: i64, at: Timestamp) -> Result<Bytes>;
}

pub struct Live<E> {
    pub app: App,
    pub follow: Follow,
    pub encoder: E,
    /// The stream closes after this long without an event.
    pub idle: Duration,
    /// The stream ends with this run, and not with the thread's last.
    pub until: Option<Uuid>,
    pub stopping: CancellationToken,
}

impl<E: Encode> Live<E> {
    pub fn into_body(self) -> Body {
        Body::from_bytes_stream(self.chunks())
    }

    fn chunks(mut self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        stream! {
            let period = self.app.config.events.ping;
            let mut ping = interval_at(Instant::now() + period, period);
            ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut idle_until = Instant::now() + self.idle;
            loop {
                let item = tokio::select! {
                    biased;
                    () = self.stopping.cancelled() => {
                        yield Ok(RETRY);
                        break;
                    }
                    item = self.follow.next() => item,
                    _ = ping.tick() => {
                        yield Ok(PING);
                        continue;
                    }
                    () = sleep_until(idle_until) => break,
                };
                let (chunk, last) = match item.and_then(|item| item.map(|item| self.encode(item)).transpose()) {
                    Ok(Some(encoded)) => encoded,
                    Ok(None) => break,
                    Err(e) => {
                        // What was sent stands; the reader resumes after it.
                        tracing::warn!(error = %e, "an event stream broke off");
                        break;
                    }
                };
                if !chunk.is_empty() {
                    yield Ok(chunk);
                }
                if last {
                    break;
                }
                idle_until = Instant::now() + self.idle;
            }
        }
    }

    /// The item and what else is ready, and whether the stream ends with that.
    fn encode(&mut self, item: Item) -> Result<(Bytes, bool)> {
        let mut event = match item {
            Item::Gap { from, to } => return Ok((self.encoder.gap(from, to, self.app.clock.now())?, false)),
            Item::Event(event) => event,
        };
        let mut chunk = BytesMut::new();
        loop {
            chunk.extend_from_slice(&self.encoder.event(&event)?);
            if self.until == Some(event.run_id) && event.is_terminal() {
                return Ok((chunk.freeze(), true));
            }
            event = match if chunk.len() < CHUNK { self.follow.try_next() } else { None } {
                Some(next) => next,
                None => return Ok((chunk.freeze(), false)),
            };
        }
    }
}

/// The answer whose body is a stream of events.
pub fn event_stream(body: Body) -> Response {
    Response::builder()
        .content_type("text/event-stream")
        .header("Cache-Control", "no-store")
        .header("X-Accel-Buffering", "no")
        .body(body)
}
