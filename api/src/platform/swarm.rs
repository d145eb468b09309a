//! `/swarm`: agents that hand over to each other until one answers.
use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use runmill_shared::{
    App, Result,
    domain::{
        caller::Caller,
        team::{Draft, Mode},
    },
    services::{runs::accept::Accepted, teams},
};

use super::{
    Reply,
    agent_chat::message,
    chat::{ChatReply, ChatStream, LastEventId, Streaming, Waiting},
};
use crate::{
    Stopping,
    http::{auth::Auth, body::Body, patience::Patience, trace::Trace},
};

#[derive(Object)]
struct SwarmInput {
    #[oai(validator(min_length = 1))]
    message: String,
    /// the first one begins
    agent_ids: Vec<String>,
    /// turns in all; 5 by default. Whoever has the last one has to answer, unless there is an aggregator
    max_rounds: Option<u32>,
    /// answers when nobody has within `max_rounds`
    aggregator: Option<String>,
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
}

impl SwarmInput {
    async fn start(self, app: &App, caller: &Caller, trace: Trace) -> Result<Accepted> {
        let draft = Draft { rounds: self.max_rounds, aggregator: self.aggregator, ..Draft::of(Mode::Swarm, self.agent_ids) };
        teams::start(app, caller, draft, message(self.message, self.session_id, trace)).await
    }
}

pub struct SwarmApi;

#[OpenApi(prefix_path = "/api/v1/swarm")]
impl SwarmApi {
    /// Puts a message to a swarm, and waits for its answer.
    #[oai(path = "/run", method = "post", operation_id = "runSwarm")]
    async fn run(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        body: Body<SwarmInput>,
    ) -> Reply<ChatReply> {
        let accepted = body.0.start(&app, &caller.0, trace).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, false).await?)
    }

    /// As run, streamed. The same request with `Last-Event-ID` goes on after that frame, and starts no run.
    #[oai(path = "/run/stream", method = "post", operation_id = "streamSwarm")]
    async fn stream(
        &self,
        app: Data<&App>,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        #[oai(name = "Last-Event-ID")] last_event_id: LastEventId,
        body: Body<SwarmInput>,
    ) -> Reply<ChatStream> {
        let cx = Streaming { app: &app, caller: &caller.0, stopping };
        if let Some(id) = last_event_id.0 {
            return Ok(ChatStream::resume(&cx, &id, false).await?);
        }
        let accepted = body.0.start(&app, &caller.0, trace).await?;
        Ok(ChatStream::start(&cx, &accepted, false).await?)
    }
}
