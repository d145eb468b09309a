//! Answers that have to be JSON of a schema.

use runmill_shared::{
    config::Config,
    domain::{agent::Definition, run::RunState, run_input::RunOptions},
    services::history,
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::{Value, json};

use super::told::{agent, check, is_discarded};

async fn start(database: TestDatabase, model: &ModelServer) -> (TestApp, RunOptions) {
    let quick = |config: &mut Config| {
        quick_recovery(config);
    };
    let app = TestApp::with_model(database, model, quick).await.unwrap();
    let schema = json!({
        "type": "object", "required": ["city", "people"], "additionalProperties": false,
        "properties": { "city": { "type": "string" }, "people": { "type": "integer", "minimum": 0 } },
    });
    let options = agent(&app, Definition { output_schema: Some(schema), ..Definition::default() }).await;
    (app, options)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_the_schema_is_repaired() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let (mut app, options) = start(database, &model).await;
        let good = "```json\n{\"city\": \"Vienna\", \"people\": 2000000}\n```";
        model
            .script(Reply::text("{\"city\": 7, \"people\": -1}"))
            .script(Reply::text("never seen").hold_until(&gate))
            .script(Reply::text(good));
        let accepted = app.say("t", "a city?", options.clone()).await.unwrap();
        model.until(|c| c.received == 2).await.unwrap();
        // What was wrong is known from the journal.
        app.kill_worker().await;
        app.start_worker();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let result = run.result.unwrap();
        assert_eq!((&result["output"], &result["content"]), (&json!({ "city": "Vienna", "people": 2_000_000 }), &json!(good)));
        assert_eq!(model.counts().received, 3);
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 2, "the wrong one, and the one that was in flight");
        let requests = model.requests();
        assert!(requests[0].last("system").contains("JSON Schema"));
        assert_eq!(requests[0].body["response_format"]["json_schema"]["schema"]["required"], json!(["city", "people"]));
        let told = requests[2].user();
        assert!(told.contains("/city") && told.contains("/people"), "every problem at once: {told}");
        assert_eq!(requests[1].messages(), requests[2].messages());
        // The thread knows the right one only.
        model.script(Reply::text("{\"city\": \"Graz\", \"people\": 1}"));
        app.say("t", "another?", options).await.unwrap();
        app.events("t").await.unwrap();
        let roles: Vec<_> = model.requests()[3].messages().iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_repairs_the_run_fails_with_what_it_cost() {
    for database in databases().await {
        let model = ModelServer::with(|_| Reply::text("I would rather not").usage(10, 4)).await.unwrap();
        let (app, options) = start(database, &model).await;
        let accepted = app.say("t", "a city?", options).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        let error = run.error.unwrap();
        assert_eq!((error.code.as_str(), error.retryable), ("OUTPUT_INVALID", false), "{}", app.name());
        assert_eq!(model.counts().received, 3);
        assert_eq!(run.usage.unwrap().input_tokens, 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_the_schema_is_asked_without() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let (app, options) = start(database, &model).await;
        model.script(Reply::status(400)).script(Reply::text("{\"city\": \"Rome\", \"people\": 3}"));
        let accepted = app.say("t", "a city?", options).await.unwrap();
        check(&app.events("t").await.unwrap());
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let formats: Vec<_> = model.requests().iter().map(|r| r.body["response_format"]["type"].clone()).collect();
        assert_eq!(formats, [json!("json_schema"), Value::Null]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_thought_is_streamed_and_kept() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = TestApp::with_model(database, &model, |_| {}).await.unwrap();
        let calls = Reply::tool_calls([("now", json!({}))]).reasoning("first the time ");
        model.script(calls).script(Reply::text("noon").reasoning("that was easy "));
        app.say("t", "what time is it?", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let thought: String =
            events.iter().filter(|e| e.kind == "reasoning.delta").filter_map(|e| e.data["delta"].as_str()).collect();
        assert_eq!(thought, "first the time that was easy ", "{}", app.name());
        let day = history::day(&app.app, &app.caller, Some("t"), None, chrono_tz::UTC).await.unwrap();
        let kept: Vec<_> = day.messages.iter().filter_map(|m| m.body.reasoning.as_deref()).collect();
        assert_eq!(kept, ["first the time ", "that was easy "]);
    }
}
