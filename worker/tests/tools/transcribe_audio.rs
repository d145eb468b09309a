//! `transcribe_audio`, by whisper.cpp on a scripted model.
use bytes::Bytes;
use runmill_shared::services::files::{self, Place};
use runmill_testkit::{
    database::TestDatabase,
    whisper_model::{Script, sine_wav, write_scripted_model},
};
use runmill_worker::tools::Tools;
use serde_json::json;

use crate::support::{call, in_thread};

#[tokio::test]
async fn a_recording_of_the_thread_becomes_text() {
    let database = TestDatabase::sqlite().await;
    let model = database.config().data_dir.join("scripted.bin");
    let script = Script { language: "en", segments: vec![(0.0, 2.0, "hello from runmill"), (2.0, 3.0, "goodbye")] };
    write_scripted_model(&model, &script).unwrap();
    let cx = in_thread(&database, |config| config.transcribe.model = model).await;
    let place = Place { owner: &cx.scope.owner, thread_id: cx.scope.thread_id, thread: "t" };
    files::write(&cx.app, place, "call.wav", Bytes::from(sine_wav(3.0, 16_000, 1)), "upload").await.unwrap();
    let heard = call(&cx, "transcribe_audio", json!({"name": "call.wav"})).await.unwrap();
    assert_eq!((&heard["text"], &heard["language"]), (&json!("hello from runmill goodbye"), &json!("en")));
    assert_eq!(heard["segments"].as_array().map(Vec::len), Some(2), "{heard}");
    files::write(&cx.app, place, "notes.txt", Bytes::from("words"), "notes").await.unwrap();
    let e = call(&cx, "transcribe_audio", json!({"name": "notes.txt"})).await.unwrap_err();
    assert_eq!(e.code, "VALIDATION_ERROR", "{e}");
    let e = call(&cx, "transcribe_audio", json!({"name": "none.wav"})).await.unwrap_err();
    assert_eq!(e.code, "FILE_NOT_FOUND");
}

#[tokio::test]
async fn it_is_listed_where_something_transcribes() {
    let database = TestDatabase::sqlite().await;
    let listed = |config| Tools::builtin(&config).unwrap().get("transcribe_audio").is_some();
    let mut config = database.config();
    assert!(!listed(config.clone()));
    config.transcribe.endpoint = "http://127.0.0.1:9/v1".to_owned();
    assert!(listed(config));
}
