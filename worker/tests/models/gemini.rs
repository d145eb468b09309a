//! What is Gemini's own.
use runmill_shared::domain::{chat::Usage, model::Provider};
use runmill_testkit::wires::gemini;
use runmill_worker::models::ModelErrorKind as K;
use serde_json::json;

use crate::{
    DEADLINE, KEY, ask,
    wires::{bad_day, good_day, long_conversation, talk},
};

#[tokio::test]
async fn the_key_is_a_header_and_the_path_names_the_model() {
    let (server, (_, end)) = talk(Provider::Gemini, gemini::stream(&gemini::text("ok")), &ask("hi"), DEADLINE).await;
    let answer = end.unwrap();
    let sent = &server.requests()[0];
    assert_eq!(sent.path, "/v1beta/models/scripted:streamGenerateContent?alt=sse");
    assert_eq!(sent.header("x-goog-api-key"), Some(KEY));
    assert_eq!(answer.usage, Usage { input_tokens: 28, cached_input_tokens: 20, output_tokens: 5, cost_micros: 0 });
}

#[tokio::test]
async fn results_name_their_functions() {
    let (sent, ..) = good_day(Provider::Gemini, gemini::stream(&gemini::text("ok")), &long_conversation()).await;
    assert_eq!(sent["systemInstruction"]["parts"][0]["text"], "be brief", "{sent}");
    assert_eq!(sent["contents"][1]["parts"][1]["functionCall"]["name"], "now", "{sent}");
    assert_eq!(sent["contents"][2]["parts"][0]["functionResponse"]["name"], "now", "{sent}");
    assert_eq!(sent["contents"][2]["parts"][1]["functionResponse"]["response"], json!({"result": "4"}), "{sent}");
    assert_eq!(sent["generationConfig"]["maxOutputTokens"], 99);
}

#[tokio::test]
async fn what_was_blocked_or_went_wrong_is_no_answer() {
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    let (_, error) = bad_day(Provider::Gemini, gemini::stream(&[blocked])).await;
    assert_eq!((error.kind, error.retryable()), (K::ContentFilter, false));
    for (reason, kind) in [("MALFORMED_FUNCTION_CALL", K::Malformed), ("RECITATION", K::ContentFilter), ("OTHER", K::Malformed)] {
        let mut chunks = gemini::text("one two");
        chunks.last_mut().unwrap()["candidates"][0]["finishReason"] = json!(reason);
        let (_, error) = bad_day(Provider::Gemini, gemini::stream(&chunks)).await;
        assert_eq!(error.kind, kind, "{reason}");
    }
}
