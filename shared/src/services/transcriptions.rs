//! Speech to text: a recording comes in, is queued as a run in a thread of its own, and its caller may wait for the result.
use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use uuid::Uuid;

use super::{
    attachments::{self, Upload},
    runs::{
        accept::{self, Accepted, Work},
        control, wait,
    },
};
use crate::{
    app::App,
    config::{Config, duration},
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        run::{Run, RunKind, RunState},
        transcript::Transcript,
        wav,
    },
    error::{Error, ErrorKind, Result},
    jobs::Transcription,
    store::attachments::AttachmentState,
};

const TYPES: [&str; 3] = ["audio/wav", "audio/x-wav", "audio/wave"];
const MINUTE: Duration = Duration::from_secs(60);

/// How a transcription stands.
#[derive(Debug)]
pub enum Progress {
    /// Queued or under way: the run.
    Pending(Box<Run>),
    Done(Transcript),
}

/// What comes in.
pub struct Recording<'a, S> {
    /// What the caller says it is. Clients that know no types say nothing, or `application/octet-stream`: then the content decides.
    pub mime_type: Option<&'a str>,
    pub body: S,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

/// Reads a recording, stores it for as long as the work may take, and queues the work.
///
/// # Errors
/// `Limited` beyond `transcribe.per_minute`, `Malformed` for another type, `TooLarge` as soon as that is known, `Invalid` for what is
/// no WAV or too long, `Unavailable` when nothing here could transcribe it.
pub async fn start<S>(app: &App, caller: &Caller, recording: Recording<'_, S>) -> Result<Accepted>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let (owner, config) = (caller.can(Scope::Write)?, &app.config.transcribe);
    app.limiter.take(&format!("transcribe:{}", owner.as_str()), config.per_minute, MINUTE, &app.clock).await?;
    let known = recording.mime_type.filter(|t| *t != "application/octet-stream");
    if known.is_some_and(|t| !TYPES.contains(&t)) {
        return Err(unsupported());
    }
    let audio = read(recording.body, config.max_bytes).await?;
    if known.is_none() && !audio.is_empty() && !audio.starts_with(b"RIFF") {
        return Err(unsupported());
    }
    let seconds = wav::probe(&audio)?.duration();
    if seconds > config.max_duration.as_secs_f64() {
        let most = duration::print(config.max_duration);
        return Err(Error::invalid("audio", format!("it is longer than {most}, the most that is transcribed")));
    }
    if !is_configured(&app.config) {
        let message = "no transcription model is configured; get one with: runmill models pull whisper-base";
        return Err(Error::unavailable("TRANSCRIBE_UNAVAILABLE", message));
    }
    queue(app, owner, audio, seconds, recording.trace).await
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Malformed, "UNSUPPORTED_FILE_TYPE", format!("Unsupported file type; send one of {}", TYPES.join(", ")))
}

/// As far as the settings tell; whether a model loads, its worker finds out.
fn is_configured(config: &Config) -> bool {
    let t = &config.transcribe;
    !t.model.as_os_str().is_empty() || !t.endpoint.is_empty() || config.data_dir.join("models").join("ggml-base.bin").exists()
}

async fn read<S>(mut body: S, limit: u64) -> Result<Bytes>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut all = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let broken = |e: io::Error| e.downcast::<Error>().unwrap_or_else(|e| Error::malformed("the upload broke off").because(e));
        all.extend_from_slice(&chunk.map_err(broken)?);
        if all.len() as u64 > limit {
            return Err(Error::too_large(format!("the recording is larger than {limit} bytes")));
        }
    }
    Ok(all.freeze())
}

async fn queue(app: &App, owner: &Owner, audio: Bytes, seconds: f64, trace: Option<String>) -> Result<Accepted> {
    let name = format!("transcription-{}", new_id());
    let limit = app.config.transcribe.max_bytes;
    let new = Upload { thread: &name, listed: false, name: "audio.wav", mime_type: "audio/wav".into(), limit };
    let body = stream::iter([Ok(audio)]);
    let stored = attachments::store(app, owner, new, AttachmentState::Temporary, body).await?;
    let input = Transcription { attachment_id: stored.id, path: stored.path.clone(), duration: seconds };
    let work = Work { trace, ..Work::alone(RunKind::Transcription, name, serde_json::to_string(&input)?) };
    let accepted = accept::accept(app, owner, &work).await;
    if accepted.is_err() {
        // The sweeper takes what this leaves.
        attachments::remove(app, stored.id, &stored.path).await.ok();
    }
    accepted
}

/// Waits until the run has ended, at most for `limit`, and answers how it stands then.
///
/// # Errors
/// Those of `get`.
pub async fn wait(app: &App, caller: &Caller, accepted: &Accepted, limit: Duration) -> Result<Progress> {
    progress(wait::ended(app, caller, &accepted.thread, accepted.id, limit).await?)
}

/// How a transcription of the caller's stands.
///
/// # Errors
/// `NotFound` for what is no transcription of theirs; what it failed with when it failed; `Conflict` when it was cancelled.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Progress> {
    progress(control::get(app, caller, id).await?)
}

fn progress(run: Run) -> Result<Progress> {
    if run.kind != RunKind::Transcription {
        return Err(Error::not_found("RUN_NOT_FOUND", "no such transcription"));
    }
    match run.state {
        RunState::Succeeded => Ok(Progress::Done(serde_json::from_value(run.result.unwrap_or_default())?)),
        RunState::Failed => Err(failure(run)),
        RunState::Cancelled => Err(Error::conflict("CANCELLED", "the transcription was cancelled")),
        RunState::Queued | RunState::Running | RunState::Waiting => Ok(Progress::Pending(Box::new(run))),
    }
}

fn failure(run: Run) -> Error {
    let Some(error) = run.error else { return Error::internal("a failed transcription has no error") };
    match error.code.as_str() {
        "VALIDATION_ERROR" => Error::new(ErrorKind::Invalid, "VALIDATION_ERROR", error.message),
        "TRANSCRIBE_UNAVAILABLE" => Error::unavailable("TRANSCRIBE_UNAVAILABLE", error.message),
        _ => Error::new(ErrorKind::Internal, "TRANSCRIPTION_FAILED", "the transcription failed").because(error.message),
    }
}
