//! Conversations that become too long: their older part gives way to a summary, in the journal and for later runs.

use runmill_shared::{
    config::Config,
    domain::{
        event::{Event, kind},
        run::RunState,
        run_input::RunOptions,
    },
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::{Value, json};

use super::told::{check, of_kind};

const SUMMARY: &str = "They spoke of apples and pears.";

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        quick_recovery(config);
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

fn long(word: &str) -> String {
    format!("{word} ").repeat(300)
}

/// Two turns that are long.
async fn talk(app: &TestApp, model: &ModelServer) {
    for word in ["apples", "pears"] {
        model.script(Reply::text(&long(word)));
        app.say("t", &format!("tell me of {word}"), RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
    }
}

/// What follows the system prompt, in short.
fn shown(request: &Request) -> Vec<String> {
    let text = |m: &Value| {
        m["content"].as_str().map_or_else(|| m["content"][0]["text"].as_str().unwrap_or("").to_owned(), str::to_owned)
    };
    request.messages()[1..]
        .iter()
        .map(|m| format!("{} {}", m["role"].as_str().unwrap(), text(m).chars().take(20).collect::<String>()))
        .collect()
}

fn compactions(events: &[Event]) -> Vec<&Value> {
    of_kind(events, kind::PROGRESS).into_iter().map(|e| &e.data["compaction"]).filter(|c| !c.is_null()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_cannot_take_gives_way_to_a_summary() {
    for database in databases().await {
        let (model, gate) = (ModelServer::start().await.unwrap(), Gate::new());
        let mut app = start(database, &model, |_| {}).await;
        talk(&app, &model).await;
        model
            .script(Reply::context_overflow())
            .script(Reply::text(SUMMARY).usage(500, 50))
            .script(Reply::text("in flight").hold_until(&gate))
            .script(Reply::text("plums too").usage(60, 6));
        let accepted = app.say("t", "and plums?", RunOptions::default()).await.unwrap();
        model.until(|c| c.received == 5).await.unwrap();
        // The summary is not asked for again.
        app.kill_worker().await;
        app.start_worker();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        assert_eq!(run.usage.unwrap().input_tokens, 560, "the summary is paid for, too");
        let requests = model.requests();
        assert_eq!(requests.len(), 6);
        let asked = requests[3].user();
        assert!(asked.contains("tell me of apples") && asked.contains("pears pears") && !asked.contains("plums"), "{asked}");
        assert_eq!(requests[4].messages(), requests[5].messages(), "the same after the crash");
        let last = &requests[5];
        assert_eq!(shown(last), ["user and plums?"]);
        let system = last.last("system");
        assert!(system.starts_with(&app.app.config.agent(None).unwrap().1.system) && system.ends_with(SUMMARY), "{system}");
        let compactions = compactions(&events);
        assert_eq!(compactions.len(), 1);
        assert_eq!(compactions[0]["messages"], 4);
        assert!(compactions[0]["tokensBefore"].as_u64().unwrap() > 4 * compactions[0]["tokensAfter"].as_u64().unwrap());
        // Later runs begin with it.
        app.say("t", "and figs?", RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
        let next = model.requests().pop().unwrap();
        assert!(next.last("system").ends_with(SUMMARY));
        assert_eq!(shown(&next), ["user and plums?", "assistant plums too", "user and figs?"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_did_itself_gives_way_and_its_question_and_last_results_stay() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let add = |n: u32| Reply::tool_calls([("calculator", json!({ "expression": format!("{n}+{n}") })), ("now", json!({}))]);
        model
            .script(add(1))
            .script(add(2))
            .script(add(3))
            .script(Reply::context_overflow())
            .script(Reply::text("1+1 is 2"))
            .script(Reply::text("done"));
        let accepted = app.say("t", "add them", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let last = model.requests().pop().unwrap();
        assert!(last.last("system").ends_with("1+1 is 2"));
        let roles: Vec<_> = last.messages()[1..].iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool"]);
        assert!(last.tool_results()[0].contains('6'), "{:?}", last.tool_results());
        // For later runs the question and what was done for it have become the summary; the last results are still there.
        app.say("t", "thanks", RunOptions::default()).await.unwrap();
        check(&app.events("t").await.unwrap());
        let next = model.requests().pop().unwrap();
        let roles: Vec<_> = next.messages()[1..].iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["assistant", "tool", "tool", "assistant", "user"]);
        assert!(next.last("system").ends_with("1+1 is 2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_after_a_summary_fails() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        talk(&app, &model).await;
        model.script(Reply::context_overflow()).script(Reply::text(SUMMARY)).script(Reply::context_overflow());
        let accepted = app.say("t", "and plums?", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        let error = app.run(accepted.id).await.unwrap().error.unwrap();
        assert_eq!((error.code.as_str(), error.retryable), ("MODEL_CONTEXT_OVERFLOW", false), "{}", app.name());
        assert_eq!(model.counts().received, 5);
        assert_eq!(compactions(&events).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_above_the_setting_is_summarised_before_it_is_refused() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |c| c.memory.compact_above_tokens = 700).await;
        // Each answer is some 500 tokens: the third turn is the first that is above.
        talk(&app, &model).await;
        model.script(Reply::text(SUMMARY)).script(Reply::text("plums too"));
        app.say("t", "and plums?", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(compactions(&events).len(), 1, "{}", app.name());
        let last = model.requests().pop().unwrap();
        assert!(model.requests().len() == 4 && last.last("system").ends_with(SUMMARY));
        assert_eq!(shown(&last), ["user and plums?"]);
    }
}
