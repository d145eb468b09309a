//! `WS /ws/executions/{id}`: an execution as `GET` shows it, at once and after each change, until it has ended. It has no row in the
//! OpenAPI document, which knows no sockets.
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use poem::{
    Endpoint, IntoResponse, Response, get, handler,
    web::{
        Data, Path,
        websocket::{CloseCode, Message, WebSocket, WebSocketConfig, WebSocketStream},
    },
};
use poem_openapi::types::ToJSON;
use runmill_shared::{
    App, Result,
    domain::{
        caller::Caller,
        event::{Event, kind},
    },
    services::{
        executions::{self, Execution},
        stream::{Follow, Item},
    },
};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::executions::ExecutionBody;
use crate::http::{
    auth::SocketAuth,
    error::refuse,
    server::{Sockets, Stopping},
};

/// Changes that come closer together are told in one frame.
const GATHER: Duration = Duration::from_millis(50);
/// A client has nothing to say but pongs and a close.
const LARGEST: usize = 4 * 1024;
/// Pings that a client may leave unanswered.
const PATIENCE: u32 = 3;

pub fn endpoint() -> impl Endpoint {
    get(live)
}

#[handler]
async fn live(
    app: Data<&App>,
    caller: SocketAuth,
    id: Path<Uuid>,
    Stopping(stopping): Stopping,
    sockets: Sockets,
    socket: WebSocket,
) -> poem::Result<Response> {
    let (app, SocketAuth(caller), Path(id)) = (app.0.clone(), caller, id);
    // Refused before the upgrade: as any request.
    let (execution, follow) = executions::watch(&app, &caller, id).await.map_err(refuse)?;
    let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let serve = move |socket| async move {
        let mut live = Live { app, caller, id, follow, socket, last: String::new() };
        let reason = live.serve(execution, stopping).await;
        live.close(reason).await;
        drop(sockets);
    };
    Ok(socket.config(config).on_upgrade(serve).into_response())
}

struct Live {
    app: App,
    caller: Caller,
    id: Uuid,
    follow: Follow,
    socket: WebSocketStream,
    /// The frame that was sent last.
    last: String,
}

/// Why a socket is closed.
enum Closing {
    /// The execution has ended.
    Ended,
    /// This process stops: the client comes back to another one.
    Stopping,
    /// It cannot be read any more.
    Broken,
    /// The client has closed it, or is gone.
    Left,
}

/// What has happened.
enum Woken {
    Item(Result<Option<Item>>),
    Said(Option<std::io::Result<Message>>),
    Due,
    Ping,
    Stopping,
}

/// What a frame would not show is not worth one.
fn is_change(event: &Event, id: Uuid) -> bool {
    let is_delta = matches!(event.kind.as_str(), kind::TEXT_DELTA | kind::REASONING_DELTA | kind::TOOL_DELTA);
    event.run_id == id && !is_delta
}

impl Live {
    async fn serve(&mut self, execution: Execution, stopping: CancellationToken) -> Closing {
        let period = self.app.config.events.ping;
        let mut ping = interval_at(Instant::now() + period, period);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut due: Option<Instant> = None;
        let is_over = execution.run.state.is_ended();
        if let Err(closing) = self.send(execution).await {
            return closing;
        }
        if is_over {
            return Closing::Ended;
        }
        loop {
            let at = due.unwrap_or_else(|| Instant::now() + period);
            let woken = tokio::select! {
                biased;
                () = stopping.cancelled() => Woken::Stopping,
                said = self.socket.next() => Woken::Said(said),
                item = self.follow.next() => Woken::Item(item),
                () = sleep_until(at), if due.is_some() => Woken::Due,
                _ = ping.tick() => Woken::Ping,
            };
            match woken {
                Woken::Stopping => return Closing::Stopping,
                Woken::Said(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Closing::Left,
                Woken::Said(Some(Ok(_))) => heard = Instant::now(),
                Woken::Item(Ok(Some(item))) => {
                    if let Some(wait) = self.wait(item) {
                        let at = Instant::now() + wait;
                        due = Some(due.map_or(at, |due| due.min(at)));
                    }
                }
                Woken::Item(Err(e)) => {
                    tracing::warn!(error = %e, "the socket of an execution broke off");
                    return Closing::Broken;
                }
                Woken::Ping if heard.elapsed() > period * PATIENCE => return Closing::Left,
                // A ping looks too: being resumed, or queued again, is told by no event.
                Woken::Item(Ok(None)) | Woken::Due | Woken::Ping => {
                    due = None;
                    if matches!(woken, Woken::Ping) && self.socket.send(Message::Ping(Vec::new())).await.is_err() {
                        return Closing::Left;
                    }
                    if let Some(closing) = self.tell().await {
                        return closing;
                    }
                }
            }
        }
    }

    /// How long what has just been read may wait to be told; `None`: it need not be.
    fn wait(&mut self, item: Item) -> Option<Duration> {
        let Item::Event(mut event) = item else { return Some(GATHER) };
        let mut wait = None;
        loop {
            if event.run_id == self.id && event.is_terminal() {
                return Some(Duration::ZERO);
            }
            if is_change(&event, self.id) {
                wait = Some(GATHER);
            }
            event = match self.follow.try_next() {
                Some(next) => next,
                None => return wait,
            };
        }
    }

    /// Looks at the execution; `Some` when it is the last time.
    async fn tell(&mut self) -> Option<Closing> {
        match executions::get(&self.app, &self.caller, self.id).await {
            Ok(execution) => {
                let is_over = execution.run.state.is_ended();
                match self.send(execution).await {
                    Err(closing) => Some(closing),
                    Ok(()) => is_over.then_some(Closing::Ended),
                }
            }
            Err(e) => {
                tracing::warn!(error = %e, "the socket of an execution broke off");
                Some(Closing::Broken)
            }
        }
    }

    /// A frame, when it says something new. A client that takes nothing is cut by its connection's write time-out.
    async fn send(&mut self, execution: Execution) -> Result<(), Closing> {
        let body = ExecutionBody::from(execution).to_json().unwrap_or_default();
        let frame = json!({ "type": "execution", "execution": body }).to_string();
        if frame == self.last {
            return Ok(());
        }
        self.last.clone_from(&frame);
        self.socket.send(Message::Text(frame)).await.map_err(|_| Closing::Left)
    }

    async fn close(mut self, closing: Closing) {
        let (code, reason) = match closing {
            Closing::Ended => (CloseCode::Normal, "the execution has ended"),
            Closing::Stopping => (CloseCode::Away, "the server stops"),
            Closing::Broken => (CloseCode::Again, "try again later"),
            Closing::Left => return,
        };
        self.socket.send(Message::close_with(code, reason)).await.ok();
        // Until the client has said goodbye too, or does not: a connection that is dropped before may lose what was sent last.
        let goodbye = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(Duration::from_secs(2), goodbye).await.ok();
    }
}
