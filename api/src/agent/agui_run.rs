//! `/agui`: a run for the stock AG-UI client, which posts and reads the answer as the stream.
use std::time::Duration;

use poem::{Body, IntoResponse, Response, web::Data};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::Header,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use runmill_shared::{
    App,
    services::{
        runs::start,
        stream::{From, follow},
    },
};

use super::{Reply, agui::AguiEncoder, input::RunAgentInput, stream::Encoder};
use crate::{
    Stopping,
    http::{
        auth::Auth,
        body::Unchecked,
        live::{Live, event_stream},
        trace::Trace,
    },
};

/// The stock client cannot come back to a stream, so that a run that waits in silence keeps it for as long as any may.
const IDLE: Duration = Duration::from_secs(3600);

/// What the data of a frame holds; what else there is depends on its type.
#[derive(Object)]
struct AguiEventBody {
    /// `RUN_STARTED`, `TEXT_MESSAGE_CONTENT` …
    #[oai(rename = "type")]
    kind: String,
    /// milliseconds since 1970
    timestamp: Option<i64>,
}

struct AguiReply(Body);

impl IntoResponse for AguiReply {
    fn into_response(self) -> Response {
        event_stream(self.0)
    }
}

impl ApiResponse for AguiReply {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType { content_type: "text/event-stream", schema: AguiEventBody::schema_ref() }];
        let description = "AG-UI 1.0 events, one a frame";
        let response = MetaResponse { description, status: Some(200), status_range: None, content, headers: vec![] };
        MetaResponses { responses: vec![response] }
    }

    fn register(registry: &mut Registry) {
        AguiEventBody::register(registry);
    }
}

pub struct AguiApi;

#[OpenApi]
impl AguiApi {
    /// Accepts a run as POST /runs does, and answers with its events in AG-UI's form. The run goes on when the client is gone.
    #[oai(path = "/agui", method = "post", operation_id = "runAgent")]
    async fn run(
        &self,
        app: Data<&App>,
        stopping: Stopping,
        caller: Auth,
        trace: Trace,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: Unchecked<RunAgentInput>,
    ) -> Reply<AguiReply> {
        let request = start::Request { body: &body.0, idempotency_key: key.0, trace: trace.0 };
        let run = start::start(&app, &caller.0, request).await?;
        let follow = follow(&app, &caller.0, &run.thread, From::Run(run.id)).await?;
        let encoder = Encoder::Agui(Box::new(AguiEncoder::new(run.thread).only(run.id)));
        let live = Live { app: app.clone(), follow, encoder, idle: IDLE, until: Some(run.id), stopping: stopping.0 };
        Ok(AguiReply(live.into_body()))
    }
}
