//! `/transcribe`: speech to text.
use std::time::Duration;

use poem::{IntoResponse, Response, http::StatusCode, web::Data};
use poem_openapi::{
    ApiResponse, Enum, Multipart, Object, OpenApi,
    param::{Path, Query},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type, multipart::Upload},
};
use runmill_shared::{
    App, Error, Result,
    config::Config,
    domain::{caller::Caller, transcript::Transcript},
    services::{
        runs::accept::Accepted,
        transcriptions::{self, Progress, Recording},
    },
};
use uuid::Uuid;

use super::Reply;
use crate::{
    Stopping,
    http::{
        auth::Auth,
        patience::Patience,
        trace::Trace,
        upload::{Form, Shape},
    },
};

/// What storing and queueing may take, beside the waiting.
const SLACK: Duration = Duration::from_secs(15);

#[derive(Multipart)]
#[expect(dead_code, reason = "what the document says; the form is read as it comes in")]
struct AudioForm {
    audio: Upload,
}

impl Shape for AudioForm {
    fn limit(config: &Config) -> u64 {
        config.transcribe.max_bytes
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum Subtitles {
    Srt,
    Vtt,
}

/// Times are seconds from the beginning.
#[derive(Object)]
struct SegmentBody {
    start: f64,
    end: f64,
    text: String,
}

#[derive(Object)]
struct TranscriptBody {
    transcript: String,
    /// BCP 47
    language: String,
    /// seconds of the audio
    duration: f64,
    segments: Vec<SegmentBody>,
}

impl From<Transcript> for TranscriptBody {
    fn from(t: Transcript) -> Self {
        let segments = t.segments.into_iter().map(|s| SegmentBody { start: s.start, end: s.end, text: s.text });
        Self { transcript: t.text, language: t.language, duration: t.duration, segments: segments.collect() }
    }
}

/// The work goes on: ask again, or follow the thread's events.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct PendingBody {
    task_id: Uuid,
    thread_id: String,
}

enum TranscribeReply {
    Done(Transcript, Option<Subtitles>),
    Pending(PendingBody),
}

impl TranscribeReply {
    fn new(progress: Progress, format: Option<Subtitles>) -> Self {
        match progress {
            Progress::Done(transcript) => Self::Done(transcript, format),
            Progress::Pending(run) => Self::Pending(PendingBody { task_id: run.id, thread_id: run.thread }),
        }
    }
}

const JSON: &str = "application/json; charset=utf-8";
const SRT: &str = "application/x-subrip; charset=utf-8";
const VTT: &str = "text/vtt; charset=utf-8";

impl IntoResponse for TranscribeReply {
    fn into_response(self) -> Response {
        let (status, content_type, body) = match self {
            Self::Done(t, Some(Subtitles::Srt)) => (StatusCode::OK, SRT, t.to_srt()),
            Self::Done(t, Some(Subtitles::Vtt)) => (StatusCode::OK, VTT, t.to_vtt()),
            Self::Done(t, None) => (StatusCode::OK, JSON, TranscriptBody::from(t).to_json_string()),
            Self::Pending(pending) => (StatusCode::ACCEPTED, JSON, pending.to_json_string()),
        };
        Response::builder().status(status).content_type(content_type).body(body)
    }
}

impl ApiResponse for TranscribeReply {
    fn meta() -> MetaResponses {
        let media = |content_type, schema| MetaMediaType { content_type, schema };
        let response = |status, description, content| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content,
            headers: vec![],
        };
        let done =
            vec![media(JSON, TranscriptBody::schema_ref()), media(SRT, String::schema_ref()), media(VTT, String::schema_ref())];
        MetaResponses {
            responses: vec![
                response(200, "what was said", done),
                response(202, "not done yet", vec![media(JSON, PendingBody::schema_ref())]),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        TranscriptBody::register(registry);
        PendingBody::register(registry);
    }
}

async fn receive(app: &App, caller: &Caller, form: &mut Form<AudioForm>, trace: Option<String>) -> Result<Accepted> {
    while let Some(part) = form.next().await? {
        if part.name() == "audio" {
            let mime_type = part.content_type();
            let recording = Recording { mime_type: mime_type.as_deref(), body: part.stream(form.limit()), trace };
            return transcriptions::start(app, caller, recording).await;
        }
    }
    Err(Error::invalid("audio", "is required"))
}

pub struct TranscribeApi;

#[OpenApi]
impl TranscribeApi {
    /// Transcribes a WAV file of 10 MiB at most. Waits for the result for a while; 202 says where it will be.
    #[oai(path = "/transcribe", method = "post", operation_id = "transcribe")]
    async fn start(
        &self,
        app: Data<&App>,
        patience: Patience,
        stopping: Stopping,
        trace: Trace,
        caller: Auth,
        /// the answer as subtitles
        format: Query<Option<Subtitles>>,
        mut form: Form<AudioForm>,
    ) -> Reply<TranscribeReply> {
        let wait = app.config.transcribe.wait;
        patience.allow(app.config.http.request_timeout + wait + SLACK);
        let received = receive(&app, &caller.0, &mut form, trace.0).await;
        let accepted = form.settle(received).await?;
        // A server that stops does not wait: the result will be where 202 says.
        let progress = match stopping.0.run_until_cancelled(transcriptions::wait(&app, &caller.0, &accepted, wait)).await {
            Some(progress) => progress?,
            None => transcriptions::get(&app, &caller.0, accepted.id).await?,
        };
        Ok(TranscribeReply::new(progress, format.0))
    }

    /// The result of a transcription; 202 while it is under way.
    #[oai(path = "/transcribe/:task_id", method = "get", operation_id = "getTranscription")]
    async fn get(
        &self,
        app: Data<&App>,
        caller: Auth,
        task_id: Path<Uuid>,
        format: Query<Option<Subtitles>>,
    ) -> Reply<TranscribeReply> {
        Ok(TranscribeReply::new(transcriptions::get(&app, &caller.0, task_id.0).await?, format.0))
    }
}
