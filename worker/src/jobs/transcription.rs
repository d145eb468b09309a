//! A recording becomes text. Progress and segments are events of the run's own thread; the recording goes when the run has ended.
use std::sync::Arc;

use runmill_shared::{
    domain::{
        event::{NewEvent, kind},
        run::{Claimed, RunUsage},
        transcript::Transcript,
    },
    jobs::Transcription,
    services::{
        attachments,
        runs::execution::{self, End, Writes},
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Jobs;
use crate::{
    asr::AsrEvent,
    engine::{Failure, Left},
};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let input: Transcription =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null });
    jobs.recorder.emit(run, NewEvent::new(kind::RUN_STARTED, started));
    let wav = jobs.app.blobs.get_bytes(&input.path, jobs.app.config.transcribe.max_bytes).await?;
    let transcript = listen(jobs, run, wav).await?;
    let result = serde_json::to_value(&transcript).map_err(|e| Failure::from(runmill_shared::Error::from(e)))?;
    let last = Writes { events: vec![NewEvent::finished(&result, RunUsage::default(), &[])], ..Writes::default() };
    let end = End::succeeded(result);
    jobs.recorder.end(run, end, last).await?;
    Ok(Left::Ended)
}

/// Removes the recording of a run that has ended, however it did. What is missed here is left to the sweeper.
pub async fn tidy(jobs: &Jobs, run: &Claimed) {
    let Ok(input) = serde_json::from_value::<Transcription>(run.input.clone()) else { return };
    let outcome = async {
        let ended = execution::outcomes(&jobs.app, &[run.id]).await?.iter().any(|o| o.state.is_ended());
        if ended { attachments::remove(&jobs.app, input.attachment_id, &input.path).await } else { Ok(()) }
    };
    if let Err(e) = outcome.await {
        tracing::debug!(error = %e, "the recording is left to the sweeper");
    }
}

async fn listen(jobs: &Jobs, run: &Arc<Claimed>, wav: bytes::Bytes) -> Result<Transcript, Failure> {
    // Dropped with this future: a run that is stopped stops whisper.
    let cancel = CancellationToken::new();
    let _stop_with_us = cancel.clone().drop_guard();
    let (tell, mut told) = mpsc::channel(32);
    let tellings = async {
        while let Some(event) = told.recv().await {
            let data = match event {
                AsrEvent::Progress(percent) => json!({ "percent": percent }),
                AsrEvent::Segment(segment) => json!({ "segment": segment }),
            };
            jobs.recorder.emit(run, NewEvent::new(kind::PROGRESS, data));
        }
    };
    let (transcript, ()) = tokio::join!(jobs.asr.transcribe(wav, &cancel, tell), tellings);
    Ok(transcript?)
}
