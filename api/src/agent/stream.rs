//! The event streams of this dialect: which encoder, and what the document says of them.
use bytes::Bytes;
use poem::{Body, IntoResponse, Response, http::StatusCode};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use runmill_shared::{Result, clock::Timestamp, domain::event::Event};
use serde_json::Value;
use uuid::Uuid;

use super::{agui::AguiEncoder, sse::SseEncoder};
use crate::http::live::{Encode, event_stream};

pub enum Encoder {
    Own(SseEncoder),
    Agui(Box<AguiEncoder>),
}

impl Encode for Encoder {
    fn event(&mut self, event: &Event) -> Result<Bytes> {
        match self {
            Self::Own(sse) => sse.event(event),
            Self::Agui(agui) => agui.encode(event),
        }
    }

    fn gap(&mut self, from: i64, to: i64, at: Timestamp) -> Result<Bytes> {
        match self {
            Self::Own(sse) => sse.gap(from, to, at),
            Self::Agui(agui) => agui.gap(from, to, at),
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
            Self::Stream(body) => event_stream(body),
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
