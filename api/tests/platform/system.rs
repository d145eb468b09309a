use runmill_testkit::model_server::{Gate, Reply};
use serde_json::{Value, json};

use crate::support::each;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_leaves_behind_the_next_one_ends() {
    for mut platform in each(|_| {}).await {
        let gate = Gate::new();
        for text in ["never told", "never told", "told"] {
            let reply = Reply::text(text);
            platform.model.script(if text == "told" { reply } else { reply.hold_until(&gate) });
        }
        let run = platform.say("bob", "s", "m1", Value::Null).await;
        platform.model.until(|counts| counts.received == 1).await.unwrap();
        platform.kill_worker().await;
        platform.start_worker().await;
        platform.model.until(|counts| counts.received == 2).await.unwrap();
        platform.stop_worker().await;
        platform.start_worker().await;
        let ended = platform.ended("bob", run).await;
        assert_eq!((&ended["status"], &ended["result"]["content"]), (&json!("succeeded"), &json!("told")), "{}", platform.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dialects_are_one_server() {
    for platform in each(|_| {}).await {
        let body = json!({ "threadId": "s", "runId": "r", "messages": [{ "id": "m1", "role": "user", "content": "hi" }],
            "state": {}, "tools": [], "context": [], "forwardedProps": {} });
        let mut stream = platform.as_("bob").stream("/agent/agui", body).await;
        assert_eq!(stream.data().await["type"], "RUN_STARTED", "{}", platform.name());
        while stream.frame().await.is_some() {}
        assert_eq!(platform.history("bob", "s").await.len(), 2);
        let branch = json!({ "session_id": "s", "message_id": "m1" });
        platform.as_("bob").create("/agent-chat/branches", branch).await;
    }
}
