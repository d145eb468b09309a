//! What the model is shown.
use runmill_shared::{
    domain::{
        message::{MessageBody, MessagePart, MessageRole, NewMessage, PartKind, Source},
        new_id,
        run::RunState,
        run_input::{ClientTool, ContextItem, RunInput, RunOptions},
    },
    services::attachments,
};
use runmill_testkit::{
    app::TestApp,
    database::databases,
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::{Value, json};

use super::told::{check, until_state};

fn input(thread: &str) -> RunInput {
    RunInput {
        thread_id: thread.to_owned(),
        run_id: format!("run-{}", new_id()),
        messages: Vec::new(),
        state: None,
        tools: Vec::new(),
        context: Vec::new(),
        forwarded_props: Value::Null,
        parent_run_id: None,
        options: RunOptions::default(),
    }
}

fn message(role: MessageRole, body: MessageBody) -> NewMessage {
    NewMessage { id: new_id().to_string(), role, body }
}

fn users(text: &str) -> NewMessage {
    message(MessageRole::User, MessageBody::text(text))
}

fn client_tool(name: &str) -> ClientTool {
    ClientTool { name: name.to_owned(), description: "the client's".to_owned(), parameters: json!({ "type": "object" }) }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_thread_are_serial_and_see_what_came_before_them_only() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        model.script(Reply::text("first answer").hold_until(&gate)).script(Reply::text("second answer"));
        app.say("t", "first question", RunOptions::default()).await.unwrap();
        model.until(|c| c.received == 1).await.unwrap();
        let second = app.say("t", "second question", RunOptions::default()).await.unwrap();
        // Another thread goes through: the second is held back by its thread and not by the worker.
        app.say("other", "hello", RunOptions::default()).await.unwrap();
        app.events("other").await.unwrap();
        assert_eq!(app.run(second.id).await.unwrap().state, RunState::Queued, "{}", app.name());
        gate.open();
        check(&app.events("t").await.unwrap());
        let requests = model.requests();
        let of = |question: &str| requests.iter().find(|r| r.user() == question).unwrap();
        let text = |question| of(question).messages().iter().map(Value::to_string).collect::<String>();
        assert!(!text("first question").contains("second question"));
        assert_eq!(of("second question").last("assistant"), "first answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_is_not_shown_to_a_run_that_starts_before_it() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let mut app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        app.stop_worker().await.unwrap();
        for question in ["one", "two", "three"] {
            app.say("t", question, RunOptions::default()).await.unwrap();
        }
        app.start_worker();
        check(&app.events("t").await.unwrap());
        let asked: Vec<_> = model.requests().iter().map(|r| (r.user(), r.messages().len())).collect();
        let expected = [("one", 2), ("two", 4), ("three", 6)].map(|(q, n)| (q.to_owned(), n));
        assert_eq!(asked, expected, "{}", app.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_tool_ends_the_run_and_its_result_goes_on_in_the_next() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        // One of them has the name of a tool of ours: the client's goes before.
        let mut first = input("t");
        first.tools = vec![client_tool("open_door"), client_tool("now")];
        let calls = [("open_door", json!({ "door": 1 })), ("now", json!({})), ("calculator", json!({ "expression": "6*7" }))];
        model.script(Reply::tool_calls(calls)).script(Reply::text("it is open"));
        let accepted = app.accept(first.clone(), vec![users("open the door")]).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", app.name());
        let offered = model.requests()[0].body["tools"].as_array().cloned().unwrap();
        assert_eq!(offered.iter().filter(|t| t["function"]["name"] == "now").count(), 1);
        let pending = events.last().unwrap().data["pendingToolCallIds"].as_array().cloned().unwrap();
        assert_eq!(pending.len(), 2, "{pending:?}");
        let results = pending.iter().map(|id| {
            let mut body = MessageBody::text("the client did it");
            body.tool_call_id = id.as_str().map(str::to_owned);
            message(MessageRole::Tool, body)
        });
        let mut next = input("t");
        next.tools = first.tools;
        let accepted = app.accept(next, results.collect()).await.unwrap();
        check(&app.events("t").await.unwrap());
        assert_eq!(app.run(accepted.id).await.unwrap().result.unwrap()["content"], "it is open");
        let told = model.requests()[1].tool_results();
        assert_eq!(told.iter().filter(|t| *t == "the client did it").count(), 2, "{told:?}");
        assert!(told.len() == 3 && told.iter().any(|t| t.contains("42")), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_call_that_nobody_answers_does_not_break_the_thread() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        let mut first = input("t");
        first.tools = vec![client_tool("open_door")];
        model.script(Reply::tool_calls([("open_door", json!({}))])).script(Reply::text("never mind"));
        app.accept(first, vec![users("open the door")]).await.unwrap();
        app.events("t").await.unwrap();
        app.say("t", "forget the door", RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
        let last = model.requests().pop().unwrap();
        let roles: Vec<_> = last.messages().iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"], "{}", app.name());
        assert!(last.last("tool").contains("not executed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_and_context_are_in_the_system_message() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        let mut run = input("t");
        run.state = Some(json!({ "basket": ["apples"] }));
        run.context = vec![ContextItem { description: "The user's language".into(), value: "Catalan".into() }];
        app.accept(run, vec![users("hello")]).await.unwrap();
        let events = app.events("t").await.unwrap();
        let snapshot = events.iter().find(|e| e.kind == "state.snapshot").unwrap();
        assert_eq!(snapshot.data["snapshot"]["basket"][0], "apples");
        let system = model.requests()[0].last("system");
        let agent = app.app.config.agent(None).unwrap().1;
        assert!(system.starts_with(&agent.system), "{system}");
        assert!(system.contains("The user's language:\nCatalan") && system.contains(r#"{"basket":["apples"]}"#), "{system}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_attachments_reach_the_model() {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        let body = futures::stream::iter([Ok(bytes::Bytes::from_static(PNG))]);
        let stored = attachments::upload(&app.app, &app.caller, "t", "dot.png", body).await.unwrap();
        let image = |source| MessagePart::Media { kind: PartKind::Image, mime_type: Some("image/png".into()), source };
        let parts = vec![
            MessagePart::Text { text: "what is this?".into() },
            image(Source::Url { url: "https://example.test/a.png".into() }),
            image(Source::Data { base64: "QUJD".into() }),
            image(Source::Attachment { bucket: stored.bucket.clone(), path: stored.path.clone() }),
        ];
        let accepted = app.submit(
            "t",
            vec![message(MessageRole::User, MessageBody { parts, ..MessageBody::default() })],
            RunOptions::default(),
        );
        let accepted = accepted.await.unwrap();
        let run = until_state(&app, accepted.id, RunState::Succeeded).await;
        assert!(run.error.is_none());
        let asked = model.requests()[0].messages().last().unwrap().to_string();
        assert!(asked.contains("https://example.test/a.png") && asked.contains("data:image/png;base64,QUJD"), "{asked}");
        let stored = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, PNG);
        assert!(asked.contains(&format!("data:image/png;base64,{stored}")), "{}: {asked}", app.name());
    }
}
