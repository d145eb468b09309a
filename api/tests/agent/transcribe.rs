use std::{path::PathBuf, time::Duration};

use reqwest::{RequestBuilder, multipart};
use runmill_shared::{
    config::Config,
    domain::{
        event::NewEvent,
        run::{Claimed, RunError, RunKind, RunState, RunUsage},
        transcript::{Segment, Transcript},
    },
    jobs::Transcription,
    services::runs::execution::{self, End, Writes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestApi, each, file, read, soon};

/// Silence, 16-bit mono at 8 kHz.
fn wav(seconds: usize) -> Vec<u8> {
    let data = vec![0; seconds * 16_000];
    let size = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let mut out = [b"RIFF".as_slice(), &size(36 + data.len()), b"WAVEfmt ", &size(16), &[1, 0, 1, 0]].concat();
    out.extend([&size(8000)[..], &size(16_000), &[2, 0, 16, 0], b"data", &size(data.len()), &data].concat());
    out
}

fn configured(config: &mut Config) {
    config.transcribe.model = PathBuf::from("some-model.bin");
}

fn post(api: &TestApi, query: &str, bytes: &[u8], mime: Option<&str>) -> RequestBuilder {
    let part = file("audio.wav", bytes);
    let part = mime.map_or_else(|| file("audio.wav", bytes), |mime| part.mime_str(mime).unwrap());
    api.post(&format!("/transcribe?{query}")).multipart(multipart::Form::new().part("audio", part))
}

/// The newest run, once there is a queued one.
async fn queued(api: &TestApi) -> Uuid {
    let found = async {
        loop {
            let runs = read(api.get("/runs?status=queued")).await.1;
            if let Some(id) = runs["runs"][0]["taskId"].as_str() {
                return id.parse().unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    soon("a queued transcription", found).await
}

async fn end(api: &TestApi, run: &Claimed, result: Result<Transcript, RunError>) {
    let usage = RunUsage::default();
    let value = result.as_ref().ok().map(|t| serde_json::to_value(t).unwrap());
    let event = match &result {
        Ok(_) => NewEvent::finished(value.as_ref().unwrap(), usage, &[]),
        Err(error) => NewEvent::failed(error, false),
    };
    let state = if result.is_ok() { RunState::Succeeded } else { RunState::Failed };
    let last = Writes { events: vec![event], ..Writes::default() };
    execution::end(&api.app, run, End { state, result: value, error: result.err(), usage: None }, last).await.unwrap();
}

fn transcript() -> Transcript {
    let segment = |start, end, text: &str| Segment { start, end, text: text.into() };
    let segments = vec![segment(0.0, 1.5, "今天天气"), segment(1.5, 2.0, "真不错")];
    Transcript { text: "今天天气真不错".into(), language: "zh-CN".into(), duration: 2.0, segments }
}

#[tokio::test]
async fn a_recording_is_queued_and_its_text_awaited() {
    for api in each(configured).await {
        let work = async {
            let run = api.claim(queued(&api).await).await;
            assert_eq!(run.kind, RunKind::Transcription);
            let input: Transcription = serde_json::from_value(run.input.clone()).unwrap();
            let stored = api.app.blobs.get_bytes(&input.path, 1 << 20).await.unwrap();
            assert_eq!((stored.to_vec(), input.duration), (wav(2), 2.0));
            end(&api, &run, Ok(transcript())).await;
            run.id
        };
        let bytes = wav(2);
        let (answer, task) = tokio::join!(read(post(&api, "", &bytes, Some("audio/wav"))), work);
        let expected = json!({
            "transcript": "今天天气真不错", "language": "zh-CN", "duration": 2.0,
            "segments": [{ "start": 0.0, "end": 1.5, "text": "今天天气" }, { "start": 1.5, "end": 2.0, "text": "真不错" }],
        });
        assert_eq!(answer, (200, expected.clone()));
        assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await, (200, expected));
        let srt = api.get(&format!("/transcribe/{task}?format=srt")).send().await.unwrap();
        assert_eq!(srt.headers()["content-type"], "application/x-subrip; charset=utf-8");
        assert_eq!(srt.text().await.unwrap(), transcript().to_srt());
        let vtt = api.get(&format!("/transcribe/{task}?format=vtt")).send().await.unwrap();
        assert_eq!(vtt.headers()["content-type"], "text/vtt; charset=utf-8");
        assert_eq!(vtt.text().await.unwrap(), transcript().to_vtt());
        assert_eq!(read(api.get(&format!("/transcribe/{task}?format=ass"))).await.0, 400);
        assert_eq!(read(api.get("/history")).await.1["threadId"], json!(null), "its thread is no conversation");
    }
}

#[tokio::test]
async fn what_takes_longer_is_answered_later() {
    let quick = |config: &mut Config| {
        configured(config);
        config.transcribe.wait = Duration::from_millis(50);
    };
    for api in each(quick).await {
        let (status, body) = read(post(&api, "", &wav(1), Some("audio/x-wav"))).await;
        assert_eq!(status, 202, "{body}");
        let (task, thread) = (body["taskId"].as_str().unwrap(), body["threadId"].as_str().unwrap());
        assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await, (202, body.clone()));
        let mut stream = api.events(thread, "").await;
        assert_eq!(stream.take(1).await, ["1 run.queued"]);
        let run = api.claim(task.parse().unwrap()).await;
        end(&api, &run, Err(RunError::new("VALIDATION_ERROR", "audio: it cannot be decoded", false))).await;
        assert_eq!(stream.rest().await, ["2 run.failed"]);
        let expected = (422, json!({ "detail": "audio: it cannot be decoded" }));
        assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await, expected);

        let (_, body) = read(post(&api, "", &wav(1), Some("audio/wave"))).await;
        let task = body["taskId"].as_str().unwrap().to_owned();
        assert_eq!(read(api.post(&format!("/runs/{task}/cancel"))).await.0, 200);
        assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await.0, 409);
        let failed = [("TRANSCRIBE_UNAVAILABLE", 503), ("OTHER", 500)];
        for (code, status) in failed {
            let (_, body) = read(post(&api, "", &wav(1), None)).await;
            let task: Uuid = body["taskId"].as_str().unwrap().parse().unwrap();
            let run = api.claim(task).await;
            end(&api, &run, Err(RunError::new(code, "no", false))).await;
            assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await.0, status);
        }
        let agents = api.post_run("t1", "r1").await;
        assert_eq!(read(api.get(&format!("/transcribe/{agents}"))).await.0, 404, "it is no transcription");
    }
}

#[tokio::test]
async fn a_stopping_server_says_where_the_result_will_be() {
    for mut api in each(configured).await {
        let bytes = wav(1);
        let waiting = read(post(&api, "", &bytes, Some("audio/wav")));
        let stop = async {
            let task = queued(&api).await;
            api.stop.cancel();
            task
        };
        let ((status, body), task) = tokio::join!(waiting, stop);
        assert_eq!((status, &body["taskId"]), (202, &json!(task)));
        soon("the end", api.stopped.take().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_recording_is_refused_with_the_reason() {
    let short = |config: &mut Config| {
        configured(config);
        config.transcribe.max_duration = Duration::from_secs(2);
    };
    for api in each(short).await {
        let refused = async |bytes: &[u8], mime: Option<&str>| -> (u16, Value) { read(post(&api, "", bytes, mime)).await };
        let types = "Unsupported file type; send one of audio/wav, audio/x-wav, audio/wave";
        let cases: [(&[u8], Option<&str>, u16, &str); 7] = [
            (&wav(1), Some("audio/mpeg"), 400, types),
            (b"words", Some("application/octet-stream"), 400, types),
            (b"words", None, 400, types),
            (b"words", Some("audio/wav"), 422, "audio: it is not a WAV file: it does not begin with RIFF"),
            (&wav(3), Some("audio/wav"), 422, "audio: it is longer than 2s, the most that is transcribed"),
            (&wav(0), Some("audio/wav; codecs=1"), 422, "audio: "),
            (&wav(1)[..30], Some("audio/wav"), 422, "audio: "),
        ];
        for (bytes, mime, status, detail) in cases {
            let (got, body) = refused(bytes, mime).await;
            assert_eq!(got, status, "{body}");
            assert!(body["detail"].as_str().unwrap().starts_with(detail), "{body}");
        }
        let large = vec![0; 10 * 1024 * 1024 + 1];
        assert_eq!(refused(&large, Some("audio/wav")).await.0, 413);
        let empty = multipart::Form::new().text("other", "x");
        let answer = read(api.post("/transcribe").multipart(empty)).await;
        assert_eq!(answer, (422, json!({ "detail": "audio: is required" })));
        assert_eq!(read(api.get("/runs")).await.1["runs"], json!([]));
    }
}

#[tokio::test]
async fn without_a_model_it_says_how_to_get_one_and_twenty_a_minute_are_enough() {
    for api in each(|_| {}).await {
        for _ in 0..20 {
            let (status, body) = read(post(&api, "", &wav(1), Some("audio/wav"))).await;
            assert_eq!(status, 503);
            assert!(body["detail"].as_str().unwrap().ends_with("runmill models pull whisper-base"), "{body}");
        }
        let refused = post(&api, "", &wav(1), Some("audio/wav")).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "60"));
        api.app.clock.advance(Duration::from_secs(61));
        assert_eq!(read(post(&api, "", &wav(1), Some("audio/wav"))).await.0, 503);
    }
}
