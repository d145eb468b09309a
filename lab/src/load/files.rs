//! Uploads of files, and transcriptions.
use std::time::Duration;

use rand::{Rng, RngCore, rngs::StdRng};
use reqwest::multipart::{Form, Part};
use runmill_shared::domain::new_id;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::history::Upload;

const RATE: u32 = 16_000;

pub async fn uploads(client: &Client, n: usize, mut random: StdRng, stop: &CancellationToken) {
    for upload in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let thread = format!("files-{n}");
        let mut text = vec![0; random.random_range(1_000..400_000)];
        random.fill_bytes(&mut text);
        // Text, so that its type is one that is taken.
        let text = hex::encode(text);
        let sha256 = hex::encode(Sha256::digest(&text));
        let form = || {
            let file = Part::text(text.clone()).file_name(format!("{upload}.txt"));
            Form::new().text("threadId", thread.clone()).part("file", file)
        };
        let answer = client.post_form(upload, "/api/v1/agent/attachments", form).await;
        let path = answer.and_then(|(status, body)| {
            let path = body["attachment"]["path"].as_str().map(str::to_owned);
            if status < 500 && (status != 200 || path.is_none()) {
                client.history.wrong(format!("an upload was refused: {status} {body}"));
            }
            path
        });
        client.history.lock().uploads.push(Upload { path, sha256 });
        sleep(Duration::from_millis(random.random_range(200..1500))).await;
    }
}

/// Each is asked for once: what broke may have been done or not, and is swept.
pub async fn transcriptions(client: &Client, n: usize, stop: &CancellationToken) {
    let wav = silence(1);
    for turn in n.. {
        if stop.is_cancelled() {
            return;
        }
        let form = || {
            Form::new().part(
                "audio",
                Part::bytes(wav.clone()).file_name("a.wav").mime_str("audio/wav").unwrap_or_else(|_| Part::text("")),
            )
        };
        match client.post_form(turn, &format!("/api/v1/agent/transcribe?nonce={}", new_id()), form).await {
            Some((200, body)) if body["transcript"].as_str().is_some_and(|t| t.contains("as it is scripted")) => {
                client.history.lock().transcripts += 1;
            }
            Some((202 | 500.., _)) | None => {}
            Some((status, body)) => client.history.wrong(format!("a transcription answered {status} {body}")),
        }
        sleep(Duration::from_secs(3)).await;
    }
}

/// So many seconds of it, as a WAV file of 16-bit samples.
fn silence(seconds: u32) -> Vec<u8> {
    let data = seconds * RATE * 2;
    let mut wav = Vec::from(*b"RIFF");
    wav.extend((36 + data).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    wav.extend([RATE, RATE * 2].map(u32::to_le_bytes).concat());
    wav.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend(data.to_le_bytes());
    wav.resize(44 + data as usize, 0);
    wav
}
