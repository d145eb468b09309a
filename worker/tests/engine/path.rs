//! The thinnest path: a run is accepted, executed, and told.
use runmill_shared::domain::{run::RunState, run_input::RunOptions};
use runmill_testkit::{app::TestApp, database::databases};

fn kinds(events: &[runmill_shared::domain::event::Event]) -> Vec<&str> {
    events.iter().map(|e| e.kind.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_executed_and_told() {
    for database in databases().await {
        let app = TestApp::start(database, |_| {}).await.unwrap();
        let accepted = app.say("t", "/say 5 words", RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let told = kinds(&events);
        assert_eq!(told[..3], ["run.queued", "run.started", "message.started"], "{}", app.name());
        assert_eq!(told[told.len() - 2..], ["message.finished", "run.finished"]);
        let text: String = events.iter().filter_map(|e| e.data["delta"].as_str()).collect();
        assert_eq!(text, "word-1 word-2 word-3 word-4 word-5");
        assert_eq!(run.result.unwrap()["content"], text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_the_answer_uses_their_results() {
    for database in databases().await {
        let app = TestApp::start(database, |_| {}).await.unwrap();
        let text = "/tool calculator {\"expression\":\"6*7\"}\n/tool now {}\n/tool wait {\"seconds\":1}";
        let accepted = app.say("t", text, RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?} {:?}", app.name(), run.error, kinds(&events));
        assert!(run.result.unwrap()["content"].as_str().unwrap().contains("42"));
        assert_eq!(kinds(&events).iter().filter(|k| **k == "tool.finished").count(), 3);
        assert_eq!(kinds(&events).iter().filter(|k| **k == "run.waiting").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_task_is_a_run_of_its_own_and_its_result_comes_back() {
    for database in databases().await {
        let app = TestApp::start(database, |_| {}).await.unwrap();
        let text = "/tool delegate_to_agent {\"task\":\"/say 3 words\"}";
        let accepted = app.say("t", text, RunOptions::default()).await.unwrap();
        let events = app.events("t").await.unwrap();
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?} {:?}", app.name(), run.error, kinds(&events));
        assert!(run.result.unwrap()["content"].as_str().unwrap().contains("word-3"), "{}", app.name());
        assert!(kinds(&events).contains(&"run.waiting"));
    }
}
