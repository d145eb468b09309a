//! `/runs/{thread_id}/events`: a thread's log from any point, then live.
use std::time::Duration;

use poem::{Request, http::header, web::Data};
use poem_openapi::{
    Enum, OpenApi,
    param::{Header, Path, Query},
};
use runmill_shared::{
    App, Error, Result,
    services::stream::{From, follow},
};

use super::{
    Reply,
    agui::AguiEncoder,
    sse::SseEncoder,
    stream::{Encoder, EventStreamReply},
};
use crate::{
    Stopping,
    http::{auth::StreamAuth, live::Live},
};

const IDLE_LIMIT: u64 = 300;
const MAX_IDLE_LIMIT: u64 = 3600;

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "lowercase")]
enum Format {
    /// AG-UI 1.0 events
    Agui,
}

/// The header wins: a browser connects again with its old URL and a fresh header.
fn starting_point(header: Option<String>, query: Option<String>) -> Result<From> {
    let Some(id) = header.or(query) else { return Ok(From::Natural) };
    let number = id.parse::<i64>().ok().filter(|n| *n >= 0 && id.bytes().all(|b| b.is_ascii_digit()));
    number.map(From::After).ok_or_else(|| Error::malformed("Last-Event-ID: must be a number, 0 or more"))
}

fn idle(limit: Option<u64>) -> Result<Duration> {
    match limit.unwrap_or(IDLE_LIMIT) {
        limit @ 1..=MAX_IDLE_LIMIT => Ok(Duration::from_secs(limit)),
        _ => Err(Error::malformed(format!("idle_limit: must be 1 to {MAX_IDLE_LIMIT} (seconds)"))),
    }
}

/// Whether `Accept: text/event-stream; profile=ag-ui` asks for AG-UI.
fn accepts_agui(request: &Request) -> bool {
    let is_profile =
        |p: &str| p.split_once('=').is_some_and(|(k, v)| k.trim() == "profile" && v.trim().trim_matches('"') == "ag-ui");
    let all = request.headers().get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|range| range.split(';').skip(1).any(is_profile))
}

pub struct EventsApi;

#[OpenApi]
impl EventsApi {
    /// Events of a thread, from an id that was seen or from where its work began, until its last active run has ended.
    #[oai(path = "/runs/:thread_id/events", method = "get", operation_id = "followEvents")]
    #[expect(clippy::too_many_arguments, reason = "a parameter each")]
    async fn events(
        &self,
        app: Data<&App>,
        request: &Request,
        stopping: Stopping,
        caller: StreamAuth,
        thread_id: Path<String>,
        /// go on after this event; 0 is the whole log. It wins over the query parameter
        #[oai(name = "Last-Event-ID")]
        header: Header<Option<String>>,
        /// go on after this event; 0 is the whole log
        #[oai(name = "Last-Event-ID")]
        query: Query<Option<String>>,
        /// seconds in a row without an event after which the stream closes, 1 to 3600; 300 by default
        #[oai(name = "idle_limit")]
        idle_limit: Query<Option<u64>>,
        /// agui: the same log as AG-UI 1.0 events
        format: Query<Option<Format>>,
    ) -> Reply<EventStreamReply> {
        let (from, idle) = (starting_point(header.0, query.0)?, idle(idle_limit.0)?);
        let follow = follow(&app, &caller.0, &thread_id.0, from).await?;
        if follow.is_over() {
            return Ok(EventStreamReply::Over);
        }
        let encoder = if format.0.is_some() || accepts_agui(request) {
            let mut agui = AguiEncoder::new(thread_id.0);
            follow.before_cursor(|page| agui.skip(page)).await?;
            Encoder::Agui(Box::new(agui))
        } else {
            Encoder::Own(SseEncoder::new(thread_id.0))
        };
        let live = Live { app: app.clone(), follow, encoder, idle, until: None, stopping: stopping.0 };
        Ok(EventStreamReply::Stream(live.into_body()))
    }
}
