//! `/agent-chat`: talking to an agent, to none, and to several.
use poem::web::Data;
use poem_openapi::{Enum, Object, OpenApi, param::Path};
use runmill_shared::{
    App, Result,
    domain::{
        caller::Caller,
        team::{Draft, Edge, Mode},
    },
    services::{
        agents::BARE,
        branches,
        chat::{self, Message},
        runs::accept::Accepted,
        teams,
    },
};
use uuid::Uuid;

use super::{
    Reply,
    chat::{ChatReply, ChatStream, LastEventId, Streaming, Waiting},
};
use crate::{
    Stopping,
    http::{auth::Auth, body::Body, patience::Patience, trace::Trace},
};

#[derive(Object)]
pub struct ChatInput {
    #[oai(validator(min_length = 1))]
    message: String,
    /// of the caller; made when it is new, or left out
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
    /// only text and the end: no tool calls and no results
    streamlined: Option<bool>,
}

impl ChatInput {
    fn is_streamlined(&self) -> bool {
        self.streamlined == Some(true)
    }

    async fn say(self, app: &App, caller: &Caller, agent_id: &str, trace: Trace) -> Result<Accepted> {
        chat::say(app, caller, agent_id, message(self.message, self.session_id, trace)).await
    }
}

/// What is said, in the session that is named or in a new one.
pub fn message(text: String, session: Option<String>, trace: Trace) -> Message {
    Message { text, session: session.unwrap_or_else(chat::new_session), trace: trace.0, watcher: None }
}

#[derive(Object)]
struct ResumeInput {
    #[oai(validator(min_length = 1))]
    message: String,
    streamlined: Option<bool>,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum OrchestrationMode {
    /// a model picks who answers
    Route,
    /// one after the other, each knowing the answers so far
    Sequential,
    /// rounds, and a conclusion
    Debate,
}

#[derive(Object)]
struct OrchestrateInput {
    #[oai(validator(min_length = 1))]
    message: String,
    agent_ids: Vec<String>,
    mode: OrchestrationMode,
    /// of a debate; 2 by default
    rounds: Option<u32>,
    /// of a debate: who concludes; the first by default
    aggregator: Option<String>,
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum NodeType {
    Agent,
}

#[derive(Object)]
pub struct NodeInput {
    pub id: String,
    #[oai(rename = "type")]
    pub kind: NodeType,
    pub agent_id: String,
}

#[derive(Object)]
pub struct EdgeInput {
    pub source: String,
    pub target: String,
    /// CEL over what the source came to: `output` (text), `json` (the text as JSON, or null), `status`, `input`
    pub condition: Option<String>,
}

impl From<EdgeInput> for Edge {
    fn from(e: EdgeInput) -> Self {
        Self { source: e.source, target: e.target, condition: e.condition }
    }
}

#[derive(Object)]
struct GraphInput {
    #[oai(validator(min_length = 1))]
    message: String,
    nodes: Vec<NodeInput>,
    #[oai(default)]
    edges: Vec<EdgeInput>,
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
}

pub struct AgentChatApi;

#[OpenApi(prefix_path = "/api/v1/agent-chat")]
impl AgentChatApi {
    /// Says something to an agent and waits for its answer. The run goes on when the client hangs up; runs of one session are serial.
    #[oai(path = "/:agent_id", method = "post", operation_id = "chat")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor of the request")]
    async fn chat(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        agent_id: Path<String>,
        body: Body<ChatInput>,
    ) -> Reply<ChatReply> {
        let (is_streamlined, input) = (body.0.is_streamlined(), body.0);
        let accepted = input.say(&app, &caller.0, &agent_id.0, trace).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, is_streamlined).await?)
    }

    /// As chat, streamed. The same request with `Last-Event-ID` goes on after that frame, and starts no run.
    #[oai(path = "/:agent_id/stream", method = "post", operation_id = "streamChat")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor of the request")]
    async fn stream(
        &self,
        app: Data<&App>,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        agent_id: Path<String>,
        #[oai(name = "Last-Event-ID")] last_event_id: LastEventId,
        body: Body<ChatInput>,
    ) -> Reply<ChatStream> {
        stream(&Streaming { app: &app, caller: &caller.0, stopping }, trace, &agent_id.0, last_event_id, body.0).await
    }

    /// Says something to the default model, without instructions and tools.
    #[oai(path = "/bare", method = "post", operation_id = "chatBare")]
    async fn bare(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        body: Body<ChatInput>,
    ) -> Reply<ChatReply> {
        let (is_streamlined, input) = (body.0.is_streamlined(), body.0);
        let accepted = input.say(&app, &caller.0, BARE, trace).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, is_streamlined).await?)
    }

    /// As bare, streamed.
    #[oai(path = "/bare/stream", method = "post", operation_id = "streamBareChat")]
    async fn stream_bare(
        &self,
        app: Data<&App>,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        #[oai(name = "Last-Event-ID")] last_event_id: LastEventId,
        body: Body<ChatInput>,
    ) -> Reply<ChatStream> {
        stream(&Streaming { app: &app, caller: &caller.0, stopping }, trace, BARE, last_event_id, body.0).await
    }

    /// Puts a message to several agents, and waits for what they come to.
    #[oai(path = "/orchestrate", method = "post", operation_id = "orchestrate")]
    async fn orchestrate(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        body: Body<OrchestrateInput>,
    ) -> Reply<ChatReply> {
        let OrchestrateInput { message: text, agent_ids, mode, rounds, aggregator, session_id } = body.0;
        let mode = match mode {
            OrchestrationMode::Route => Mode::Route,
            OrchestrationMode::Sequential => Mode::Sequential,
            OrchestrationMode::Debate => Mode::Debate,
        };
        let draft = Draft { rounds, aggregator, ..Draft::of(mode, agent_ids) };
        let accepted = teams::start(&app, &caller.0, draft, message(text, session_id, trace)).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, false).await?)
    }

    /// Puts a message to a graph of agents: branches run at once, and an edge is taken when its condition holds.
    #[oai(path = "/orchestrate/graph", method = "post", operation_id = "orchestrateGraph")]
    async fn graph(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        body: Body<GraphInput>,
    ) -> Reply<ChatReply> {
        let GraphInput { message: text, nodes, edges, session_id } = body.0;
        let nodes = nodes.into_iter().map(Into::into).collect();
        let edges = edges.into_iter().map(Into::into).collect();
        let draft = Draft { nodes, edges, ..Draft::of(Mode::Graph, Vec::new()) };
        let accepted = teams::start(&app, &caller.0, draft, message(text, session_id, trace)).await?;
        Ok(ChatReply::wait(&Waiting { app: &app, caller: &caller.0, patience, stopping }, &accepted, false).await?)
    }

    /// Goes on from a branch: chat with the agent of its session, in its own.
    #[oai(path = "/branches/:branch_id/resume", method = "post", operation_id = "resumeBranch")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor of the request")]
    async fn resume_branch(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        branch_id: Path<Uuid>,
        body: Body<ResumeInput>,
    ) -> Reply<ChatReply> {
        let branch = branches::get(&app, &caller.0, branch_id.0).await?;
        let ResumeInput { message: text, streamlined } = body.0;
        let agent_id = branch.agent_id.as_deref().unwrap_or(BARE);
        let accepted = chat::say(&app, &caller.0, agent_id, message(text, Some(branch.session), trace)).await?;
        let cx = Waiting { app: &app, caller: &caller.0, patience, stopping };
        Ok(ChatReply::wait(&cx, &accepted, streamlined == Some(true)).await?)
    }
}

async fn stream(
    cx: &Streaming<'_>,
    trace: Trace,
    agent_id: &str,
    last_event_id: LastEventId,
    input: ChatInput,
) -> Reply<ChatStream> {
    let is_streamlined = input.is_streamlined();
    if let Some(id) = last_event_id.0 {
        return Ok(ChatStream::resume(cx, &id, is_streamlined).await?);
    }
    let accepted = input.say(cx.app, cx.caller, agent_id, trace).await?;
    Ok(ChatStream::start(cx, &accepted, is_streamlined).await?)
}

impl From<NodeInput> for runmill_shared::domain::team::DraftNode {
    fn from(n: NodeInput) -> Self {
        Self { id: n.id, agent_id: n.agent_id }
    }
}
