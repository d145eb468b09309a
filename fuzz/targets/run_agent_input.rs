//! The body of a run, from its bytes to what the service is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runmill_api::http::body::parsed;
use runmill_shared::{
    ErrorKind,
    domain::run_input::{InputLimits, RunInput, body_hash},
};
use serde_json::{Value, json};

const LIMITS: InputLimits = InputLimits { max_messages: 20 };

fuzz_target!(|body: &[u8]| {
    let Ok(body) = parsed(body) else { return };
    assert!(!body.to_string().contains("\\u0000"), "a NUL came through");
    match RunInput::parse(&body, &LIMITS) {
        Ok(input) => {
            holds(&input);
            same_hash(body);
        }
        Err(e) => {
            assert_eq!(e.kind, ErrorKind::Invalid);
            assert!(!e.fields.is_empty() && e.fields.iter().all(|f| !f.field.is_empty() && !f.message.is_empty()), "{e:?}");
        }
    }
});

fn holds(input: &RunInput) {
    for id in [&input.thread_id, &input.run_id] {
        assert!((1..=128).contains(&id.chars().count()), "{id:?}");
    }
    assert!(input.messages.len() <= LIMITS.max_messages);
    assert_eq!(input.options.goal_id, None, "no client says it");
    // As it is stored, and read by a worker.
    let stored = serde_json::to_string(input).unwrap();
    assert_eq!(serde_json::from_str::<RunInput>(&stored).unwrap(), *input);
}

/// Whoever sends the same again may order it otherwise, and has another id for the run.
fn same_hash(mut body: Value) {
    let hash = body_hash(&body);
    let again: Value = serde_json::from_str(&body.to_string()).unwrap();
    assert_eq!(body_hash(&again), hash);
    body["runId"] = json!("another");
    assert_eq!(body_hash(&body), hash);
    body["threadId"] = json!(["no thread is named so"]);
    assert_ne!(body_hash(&body), hash);
}
