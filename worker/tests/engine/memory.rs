//! What is remembered of users: by tools, by the job that learns from runs, and put before conversations.
use std::time::Duration;

use runmill_shared::{
    config::Config,
    domain::{
        agent::{Definition, Memory},
        caller::{Owner, Scope},
        memory::NewMemory,
        run::{Run, RunKind, RunState},
    },
    services::{
        memories,
        runs::control::{self, Filter},
    },
};
use runmill_testkit::{
    app::TestApp,
    database::{TestDatabase, databases},
    model_server::{ModelServer, Reply},
};
use serde_json::{Value, json};

use super::told::{agent, check, until};

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        config.worker.reconcile = Duration::from_millis(20);
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

async fn known(app: &TestApp, owner: &Owner, query: &str) -> Vec<String> {
    memories::search(&app.app, owner, query, 10).await.unwrap().into_iter().map(|m| m.text).collect()
}

async fn save(app: &TestApp, owner: &Owner, texts: &[&str]) {
    let all: Vec<_> = texts.iter().map(|text| NewMemory::new(text, &[]).unwrap()).collect();
    memories::save(&app.app, owner, &all, None).await.unwrap();
}

/// The job that learns from a run, when it has ended.
async fn learned(app: &TestApp, run: &Run) -> Run {
    let filter = Filter { thread: Some(format!("memory-{}", run.id)), limit: 10, ..Filter::default() };
    let jobs = control::list(&app.app, &app.caller, filter).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].kind, jobs[0].parent_run_id), (1, RunKind::MemoryExtraction, None));
    until(app, jobs[0].id, |job| job.state.is_ended()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_saves_and_another_finds_what_is_the_owners() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |c| c.memory.max_per_user = 3).await;
        let (mine, stranger) = (app.caller.can(Scope::Write).unwrap().clone(), Owner::of_row("stranger"));
        save(&app, &stranger, &["The stranger lives in Vienna."]).await;
        let tools = ["memory_save", "memory_search"].map(str::to_owned).into();
        let options = agent(&app, Definition { include_tools: tools, ..Definition::default() }).await;
        let vienna = json!({ "text": "The user lives in Vienna.", "topics": ["home"] });
        model
            .script(Reply::tool_calls([("memory_save", vienna)]))
            .script(Reply::tool_calls([("memory_save", json!({ "text": "the user lives in Vienna" }))]))
            .script(Reply::tool_calls([("memory_search", json!({ "query": "where is home? Vienna?" }))]))
            .script(Reply::text("Vienna"));
        app.say("t", "hello", options).await.unwrap();
        check(&app.events("t").await.unwrap());
        let told = model.requests()[3].tool_results();
        let told: Vec<Value> = told.iter().map(|t| serde_json::from_str(t).unwrap()).collect();
        assert_eq!((&told[0]["known"], &told[1]["known"]), (&json!(false), &json!(true)), "{}: {told:?}", app.name());
        let found = told[2]["memories"].as_array().unwrap();
        assert!(
            found.len() == 1 && found[0]["text"] == "The user lives in Vienna." && found[0]["topics"] == json!(["home"]),
            "{told:?}"
        );
        // The one that was confirmed longest ago goes.
        for text in ["cats are dear to them", "tea in the morning", "jazz on Sundays"] {
            save(&app, &mine, &[text]).await;
        }
        assert!(known(&app, &mine, "Vienna").await.is_empty());
        assert_eq!(known(&app, &mine, "cats tea jazz").await.len(), 3);
        assert_eq!(known(&app, &stranger, "Vienna").await.len(), 1, "nobody else's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_do_with_the_question_is_put_before_the_conversation() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |c| c.memory.recall = 1).await;
        let mine = app.caller.can(Scope::Write).unwrap().clone();
        save(&app, &mine, &["The user's cat is called Momo.", "The user drinks tea.", "The user has a cat flap."]).await;
        save(&app, &Owner::of_row("stranger"), &["The cat of the stranger is called Luna."]).await;
        let memory = Memory { recall: true, extract: false };
        let prompt = "Be brief.".to_owned();
        let options = agent(&app, Definition { system_prompt: prompt, memory, ..Definition::default() }).await;
        app.say("t", "How is my cat called?", options).await.unwrap();
        check(&app.events("t").await.unwrap());
        let system = model.requests()[0].last("system");
        assert!(
            system.starts_with("Be brief.") && system.ends_with("- The user's cat is called Momo."),
            "{}: {system}",
            app.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_teaches_what_it_learned_of_its_user_once() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let mine = app.caller.can(Scope::Write).unwrap().clone();
        save(&app, &mine, &["The user's name is Ada."]).await;
        let memory = Memory { recall: false, extract: true };
        let options = agent(&app, Definition { memory, ..Definition::default() }).await;
        let facts = json!([
            { "text": "The user moved to Graz.", "topics": ["home"] }, { "text": "the user's name is Ada" }, { "text": "The user moved to Graz!" },
        ]);
        model
            .script(Reply::text("Graz is lovely, Ada."))
            .script(Reply::text("Here you are: nothing").usage(40, 4))
            .script(Reply::text(&format!("```json\n{facts}\n```")).usage(50, 5));
        let accepted = app.say("t", "I am Ada, and moved to Graz", options).await.unwrap();
        check(&app.events("t").await.unwrap());
        let run = app.run(accepted.id).await.unwrap();
        let job = learned(&app, &run).await;
        assert_eq!(job.state, RunState::Succeeded, "{}: {:?}", app.name(), job.error);
        assert_eq!(job.result.unwrap(), json!({ "memories": 1 }));
        assert_eq!(job.usage.unwrap().input_tokens, 90, "it has an account of its own");
        assert_eq!(run.usage.unwrap().input_tokens, 7);
        let requests = model.requests();
        let (asked, told) = (requests[1].last("system"), requests[1].user());
        assert!(asked.contains("- The user's name is Ada."), "{asked}");
        assert!(told.contains("[user]\nI am Ada, and moved to Graz") && told.contains("[assistant]\nGraz is lovely"), "{told}");
        assert!(requests[2].user().contains("not JSON"));
        assert_eq!(known(&app, &mine, "Graz Ada").await.len(), 2);
        let learned = &memories::search(&app.app, &mine, "Graz", 1).await.unwrap()[0];
        assert_eq!((learned.run_id, learned.topics.as_slice()), (Some(run.id), ["home".to_owned()].as_slice()));
    }
}
