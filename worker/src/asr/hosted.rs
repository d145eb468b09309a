//! A hosted service with OpenAI's wire: `POST {endpoint}/audio/transcriptions`.
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response, StatusCode,
    header::RETRY_AFTER,
    multipart::{Form, Part},
};
use runmill_shared::{
    Error, Result,
    config::Secret,
    domain::{
        transcript::{Segment, Transcript},
        wav,
    },
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{AsrEvent, language};

/// For the whole request.
pub const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);
const MAX_ANSWER: usize = 16 << 20;

#[derive(Clone)]
pub struct Hosted {
    client: Client,
    url: String,
    key: Secret,
    model: String,
    max_duration: Duration,
}

/// `verbose_json`. Services other than OpenAI leave some of it out.
#[derive(Deserialize)]
struct Answer {
    text: String,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    segments: Option<Vec<Segment>>,
}

impl Hosted {
    /// `endpoint` ends before `/audio/transcriptions`; an empty key sends none.
    pub fn new(endpoint: &str, key: Secret, model: &str, max_duration: Duration, timeout: Duration) -> Result<Self> {
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(timeout).build().map_err(Error::internal)?;
        let url = format!("{}/audio/transcriptions", endpoint.trim_end_matches('/'));
        Ok(Self { client, url, key, model: model.to_owned(), max_duration })
    }

    /// Dropping the future cancels the request.
    pub(super) async fn transcribe(&self, wav: Bytes, on_event: mpsc::Sender<AsrEvent>) -> Result<Transcript> {
        let duration = wav::probe(&wav)?.duration();
        if duration > self.max_duration.as_secs_f64() {
            return Err(super::too_long(self.max_duration));
        }
        let answer = self.ask(wav).await?;
        let transcript = Transcript {
            text: answer.text.trim().to_owned(),
            language: language::tag(answer.language.as_deref().unwrap_or_default()),
            duration,
            segments: answer.segments.unwrap_or_default().into_iter().map(trimmed).collect(),
        };
        let segments = transcript.segments.iter().cloned().map(AsrEvent::Segment);
        for event in segments.chain([AsrEvent::Progress(100)]) {
            // Nobody listening is no reason to fail.
            let _ = on_event.send(event).await;
        }
        Ok(transcript)
    }

    async fn ask(&self, wav: Bytes) -> Result<Answer> {
        let length = wav.len() as u64;
        let file = Part::stream_with_length(wav, length).file_name("audio.wav").mime_str("audio/wav").map_err(Error::internal)?;
        let form = Form::new().part("file", file).text("model", self.model.clone()).text("response_format", "verbose_json");
        let mut request = self.client.post(&self.url).multipart(form);
        if !self.key.is_empty() {
            request = request.bearer_auth(self.key.expose());
        }
        let response = request.send().await.map_err(away)?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = read(response).await?;
        if !status.is_success() {
            return Err(refused(status, retry_after, &body));
        }
        serde_json::from_slice(&body).map_err(|e| away(format!("an answer that is no transcript: {e}")))
    }
}

fn trimmed(segment: Segment) -> Segment {
    Segment { text: segment.text.trim().to_owned(), ..segment }
}

fn away(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("TRANSCRIBE_SERVICE_UNAVAILABLE", "the transcription service does not answer").because(cause)
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
    let wait = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    wait.unwrap_or(RETRY_AFTER_DEFAULT).min(RETRY_AFTER_MOST)
}

async fn read(mut response: Response) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(away("an answer of more than 16 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// 429 and 5xx are worth a retry; any other status is a setting of ours that is wrong, and the same again would not help.
fn refused(status: StatusCode, retry_after: Duration, body: &[u8]) -> Error {
    let cause = format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)]));
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            Error::limited("TRANSCRIBE_LIMITED", "the transcription service is busy", retry_after).because(cause)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large("the audio is too large for the transcription service").because(cause),
        StatusCode::REQUEST_TIMEOUT => away(cause),
        s if s.is_server_error() => away(cause),
        _ => Error::internal(format!("the transcription service refused the request: {cause}")),
    }
}
