//! Transcription: whisper.cpp in this process, or a hosted service, or an honest no.
use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use runmill_shared::{
    Error, Result,
    config::Config,
    domain::transcript::{Segment, Transcript},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub mod audio;
pub mod hosted;
pub mod language;
pub mod model_file;
#[cfg(feature = "whisper")]
pub mod whisper;

#[derive(Clone, Debug, PartialEq)]
pub enum AsrEvent {
    /// Percent, rising.
    Progress(u8),
    Segment(Segment),
}

/// Who transcribes. Make one a process: clones are cheap and share the loaded model.
#[derive(Clone)]
pub enum Asr {
    #[cfg(feature = "whisper")]
    Whisper(whisper::Whisper),
    Hosted(hosted::Hosted),
    None,
}

impl Asr {
    /// The model file that is set or pulled, else the endpoint, else none. Nothing is loaded or called yet.
    pub fn from_config(config: &Config) -> Result<Self> {
        let t = &config.transcribe;
        #[cfg(feature = "whisper")]
        if let Some(model) = model_path(config) {
            let at_once = config.lanes.get("media").copied().unwrap_or(1);
            return Ok(Self::Whisper(whisper::Whisper::new(model, t.threads, at_once, t.max_duration)));
        }
        #[cfg(not(feature = "whisper"))]
        if model_path(config).is_some() {
            tracing::warn!("a transcription model is set, but this build has no whisper in it");
        }
        if t.endpoint.is_empty() {
            return Ok(Self::None);
        }
        hosted::Hosted::new(&t.endpoint, t.api_key.clone(), &t.hosted_model, t.max_duration, hosted::TIMEOUT).map(Self::Hosted)
    }

    /// Transcribes a whole WAV file. Events come while it works, so the receiver must be read meanwhile; one that is closed is
    /// fine. Fails with `Invalid` (field `audio`), `Unavailable` (`TRANSCRIBE_UNAVAILABLE` without a model; also when a service
    /// does not answer: worth a retry), `Limited`, or, once `cancel` is set, at once with `Conflict` and the code `CANCELLED`.
    pub async fn transcribe(
        &self,
        wav: Bytes,
        cancel: &CancellationToken,
        on_event: mpsc::Sender<AsrEvent>,
    ) -> Result<Transcript> {
        let work = async {
            match self {
                #[cfg(feature = "whisper")]
                Self::Whisper(whisper) => whisper.transcribe(wav, cancel, on_event).await,
                Self::Hosted(hosted) => hosted.transcribe(wav, on_event).await,
                Self::None => Err(Error::unavailable("TRANSCRIBE_UNAVAILABLE", UNAVAILABLE)),
            }
        };
        cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(cancelled()))
    }
}

const UNAVAILABLE: &str = if cfg!(feature = "whisper") {
    "no transcription model is configured; get one with: runmill models pull whisper-base"
} else {
    "no transcription service is configured, and this build has no whisper in it; set transcribe.endpoint"
};

/// The whisper model that is set, or pulled under its usual name; none when neither is there.
pub fn model_path(config: &Config) -> Option<PathBuf> {
    let set = &config.transcribe.model;
    if !set.as_os_str().is_empty() {
        return Some(set.clone());
    }
    Some(config.data_dir.join("models").join("ggml-base.bin")).filter(|p| p.exists())
}

fn cancelled() -> Error {
    Error::conflict("CANCELLED", "the transcription was cancelled")
}

fn too_long(most: Duration) -> Error {
    let most = runmill_shared::config::duration::print(most);
    Error::invalid("audio", format!("it is longer than {most}, the most that is transcribed"))
}
