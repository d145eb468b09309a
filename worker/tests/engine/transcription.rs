//! Transcription as a run: real whisper.cpp on the scripted model.
use std::time::Duration;

use bytes::Bytes;
use runmill_shared::{
    config::Config,
    domain::{
        event::kind,
        new_id,
        run::{Multitask, Priority, RunKind, RunState},
    },
    jobs::Transcription,
    services::{
        attachments::{self, Upload},
        runs::{
            accept::{self, Accepted, Work},
            control,
        },
    },
    store::attachments::{Attachment, AttachmentState},
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    whisper_model::{Script, sine_wav, write_scripted_model},
};

use super::told::{check, count, of_kind, until, until_state};

async fn start(database: TestDatabase, with_model: bool) -> TestApp {
    let model = database.config().data_dir.join("scripted.bin");
    let script = Script { language: "en", segments: vec![(0.0, 2.0, "hello from runmill"), (2.0, 4.0, "goodbye")] };
    write_scripted_model(&model, &script).unwrap();
    let tweak = |config: &mut Config| {
        config.runs.backoff = Duration::from_millis(10);
        config.worker.reconcile = Duration::from_millis(20);
        if with_model {
            config.transcribe.model = model;
        }
    };
    TestApp::start(database, tweak).await.unwrap()
}

async fn transcribe(app: &TestApp, thread: &str, wav: Vec<u8>) -> (Accepted, Attachment) {
    let owner = app.caller.can(runmill_shared::domain::caller::Scope::Write).unwrap();
    let new = Upload { thread, listed: false, name: "a.wav", mime_type: "audio/wav".into(), limit: 10_000_000 };
    let body = futures::stream::iter([Ok(Bytes::from(wav))]);
    let stored = attachments::store(&app.app, owner, new, AttachmentState::Temporary, body).await.unwrap();
    let input = Transcription { attachment_id: stored.id, path: stored.path.clone(), duration: 4.0 };
    let name = format!("run-{}", new_id());
    let work = Work {
        kind: RunKind::Transcription,
        thread: thread.to_owned(),
        listed: false,
        run: name.clone(),
        input: serde_json::to_string(&input).unwrap(),
        hash: name,
        idempotency_key: None,
        messages: Vec::new(),
        priority: Priority::Normal,
        run_at: None,
        multitask: Multitask::Enqueue,
        agent_id: None,
        model: None,
        retry_of: None,
        watcher: None,
        trace: None,
    };
    (accept::accept(&app.app, owner, &work).await.unwrap(), stored)
}

/// The recording is gone: it was only there for the run.
async fn until_gone(app: &TestApp, stored: &Attachment) {
    let begun = std::time::Instant::now();
    while app.app.blobs.get_bytes(&stored.path, 10_000_000).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}: the recording stays", app.name());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_becomes_text_and_goes() {
    for database in databases().await {
        let app = start(database, true).await;
        let (accepted, stored) = transcribe(&app, "t", sine_wav(4.0, 16_000, 1)).await;
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let result = run.result.unwrap();
        assert_eq!((&result["text"], &result["language"]), (&"hello from runmill goodbye".into(), &"en".into()), "{result}");
        let progress = of_kind(&events, kind::PROGRESS);
        let segments: Vec<_> = progress.iter().filter_map(|e| e.data["segment"]["text"].as_str()).collect();
        assert_eq!(segments, ["hello from runmill", "goodbye"]);
        assert!(progress.iter().any(|e| e.data["percent"].is_u64()), "{progress:?}");
        assert_eq!(events.last().unwrap().data["result"], result);
        until_gone(&app, &stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_fails_at_once() {
    for database in databases().await {
        let app = start(database, true).await;
        let (accepted, stored) = transcribe(&app, "t", b"RIFF, but nothing that follows from it".to_vec()).await;
        let events = app.events("t").await.unwrap();
        check(&events);
        let error = app.run(accepted.id).await.unwrap().error.unwrap();
        assert!(!error.retryable && !error.message.is_empty(), "{}: {error:?}", app.name());
        assert_eq!(count(&events, kind::RUN_FAILED), 1);
        assert_eq!(count(&events, kind::RUN_STARTED), 1);
        until_gone(&app, &stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_it_fails_and_says_how_to_get_one() {
    for database in databases().await {
        let app = start(database, false).await;
        let (accepted, stored) = transcribe(&app, "t", sine_wav(1.0, 16_000, 1)).await;
        let events = app.events("t").await.unwrap();
        check(&events);
        let error = app.run(accepted.id).await.unwrap().error.unwrap();
        assert_eq!(error.code, "TRANSCRIBE_UNAVAILABLE", "{}", app.name());
        assert!(error.message.contains("runmill models pull"), "{error:?}");
        until_gone(&app, &stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcription_is_cancelled_in_the_middle_and_the_lane_is_free_for_the_next() {
    for database in databases().await {
        let app = start(database, true).await;
        // Ten minutes: long enough to be found at work.
        let (long, stored) = transcribe(&app, "long", sine_wav(600.0, 8_000, 1)).await;
        app.events_until("long", |e| e.kind == kind::PROGRESS).await.unwrap();
        let begun = std::time::Instant::now();
        control::cancel(&app.app, &app.caller, long.id).await.unwrap();
        check(&app.events("long").await.unwrap());
        until_state(&app, long.id, RunState::Cancelled).await;
        let (next, _) = transcribe(&app, "next", sine_wav(4.0, 16_000, 1)).await;
        let run = until(&app, next.id, |r| r.state.is_ended()).await;
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        assert!(begun.elapsed() < Duration::from_secs(10), "{}: {:?}", app.name(), begun.elapsed());
        until_gone(&app, &stored).await;
    }
}
