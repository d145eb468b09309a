//! An open event stream: a reader of a thread, an encoder, and when it ends.
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use poem::{Body, IntoResponse, Response, http::StatusCode};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use runmill_shared::{
    App, Result,
    services::stream::{Follow, Item},
};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    agui::AguiEncoder,
    sse::{PING, SseEncoder},
};

/// Ready events are written together, up to about this many bytes at once.
const CHUNK: usize = 64 * 1024;
/// Tells an EventSource to come back, to another process, a second after this one has closed the stream in order to stop.
const RETRY: Bytes = Bytes::from_static(b"retry: 1000\n\n");

pub enum Encoder {
    Own(SseEncoder),
    Agui(Box<AguiEncoder>),
}

pub struct Live {
    pub app: App,
    pub follow: Follow,
    pub encoder: Encoder,
    /// The stream closes after this long without an event.
    pub idle: Duration,
    /// The stream ends with this run, and not with the thread's last.
    pub until: Option<Uuid>,
    pub stopping: CancellationToken,
}

impl Live {
    pub fn into_reply(self) -> EventStreamReply {
        EventStreamReply::Stream(Body::from_bytes_stream(self.chunks()))
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
            Item::Gap { from, to } => {
                let now = self.app.clock.now();
                let frame = match &mut self.encoder {
                    Encoder::Own(sse) => sse.gap(from, to, now)?,
                    Encoder::Agui(agui) => agui.gap(from, to, now)?,
                };
                return Ok((frame, false));
            }
            Item::Event(event) => event,
        };
        let mut chunk = BytesMut::new();
        loop {
            chunk.extend_from_slice(&match &mut self.encoder {
                Encoder::Own(sse) => sse.event(&event)?,
                Encoder::Agui(agui) => agui.encode(&event)?,
            });
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

/// What the data of a frame holds; its id and its type are also the frame's `id:` and `event:`.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct EventBody {
    /// the event's number in its thread: 1, 2, 3 … without a hole
    id: i64,
    #[oai(rename = "type")]
    kind: String,
    thread_id: String,
    run_id: Option<String>,
    task_id: Option<Uuid>,
    /// ISO 8601, UTC
    timestamp: String,
    /// by type
    data: Value,
}

pub enum EventStreamReply {
    Stream(Body),
    /// Nothing is left to read and nothing will come: an EventSource does not connect again.
    Over,
}

impl IntoResponse for EventStreamReply {
    fn into_response(self) -> Response {
        match self {
            Self::Over => StatusCode::NO_CONTENT.into_response(),
            Self::Stream(body) => Response::builder()
                .content_type("text/event-stream")
                .header("Cache-Control", "no-store")
                .header("X-Accel-Buffering", "no")
                .body(body),
        }
    }
}

impl ApiResponse for EventStreamReply {
    fn meta() -> MetaResponses {
        let response = |status, description, content| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content,
            headers: vec![],
        };
        let stream = vec![MetaMediaType { content_type: "text/event-stream", schema: EventBody::schema_ref() }];
        MetaResponses {
            responses: vec![
                response(200, "frames of id, event and data, one a stored event; or AG-UI 1.0 events", stream),
                response(204, "nothing is left to read and nothing will come", vec![]),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        EventBody::register(registry);
    }
}
