//! Teams: each mode to its end, with a crash in the middle; failures, a cancel, a retry; what participants see.
use std::{cell::Cell, time::Duration};

use runmill_shared::{
    config::{self, Config},
    domain::{
        event::{Event, kind},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Run, RunState},
        run_input::RunOptions,
        team::{Draft, DraftNode, Edge, Mode},
    },
    services::{
        chat::Message,
        runs::{accept::Accepted, control},
        teams,
    },
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::told::{check, of_kind, until_state};

const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

/// Who is asked: the agents' instructions are their names.
fn who(request: &Request) -> String {
    request.last("system")
}

fn may_hand_over(request: &Request) -> bool {
    request.body["tools"].as_array().is_some_and(|tools| tools.iter().any(|t| t["function"]["name"] == "hand_over"))
}

/// Everybody says who they are; a router takes bob, and alice hands over to bob.
fn answer(request: &Request) -> Reply {
    let who = who(request);
    if who.starts_with("Decide which agent") {
        return Reply::tool_calls([("choose_agent", json!({ "agent": "bob" }))]);
    }
    if who == "alice" && may_hand_over(request) {
        return Reply::tool_calls([("hand_over", json!({ "agent": "bob", "message": "go on" }))]);
    }
    Reply::text(&format!("{who} speaks"))
}

async fn start(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> TestApp {
    let quick = |config: &mut Config| {
        quick_recovery(config);
        for name in AGENTS {
            let agent = config::Agent {
                name: name.to_owned(),
                system: name.to_owned(),
                model: String::new(),
                tools: Vec::new(),
                max_iterations: 3,
            };
            config.agents.insert(name.to_owned(), agent);
        }
        tweak(config);
    };
    TestApp::with_model(database, model, quick).await.unwrap()
}

fn draft(mode: Mode, agents: &str) -> Draft {
    Draft::of(mode, agents.split_whitespace().map(str::to_owned).collect())
}

/// s → l, r → e, of alice, bob, carol and alice.
fn diamond(condition: Option<&str>) -> Draft {
    let node = |(id, agent): (&str, &str)| DraftNode { id: id.into(), agent_id: agent.into() };
    let edge = |(source, target): (&str, &str)| Edge {
        source: source.into(),
        target: target.into(),
        condition: condition.filter(|_| (source, target) == ("s", "l")).map(str::to_owned),
    };
    Draft {
        nodes: [("s", "alice"), ("l", "bob"), ("r", "carol"), ("e", "alice")].map(node).into(),
        edges: [("s", "l"), ("s", "r"), ("l", "e"), ("r", "e")].map(edge).into(),
        ..Draft::of(Mode::Graph, Vec::new())
    }
}

async fn put(app: &TestApp, draft: Draft) -> Accepted {
    let message = Message { text: "question".into(), session: "t".into(), trace: None, watcher: None };
    teams::start(&app.app, &app.caller, draft, message).await.unwrap()
}

/// What participants did, as the session's events tell it.
fn told(events: &[Event], status: &str) -> Vec<String> {
    let told = of_kind(events, kind::PROGRESS).into_iter().filter(|e| e.data["status"] == status);
    told.map(|e| e.data["name"].as_str().unwrap().to_owned()).collect()
}

fn participants(run: &Run) -> Vec<Value> {
    run.result.as_ref().unwrap()["participants"].as_array().unwrap().clone()
}

/// A mode, and what it looks like while bob's first answer is held back.
struct Case {
    draft: Draft,
    /// Participants that have ended, and requests that have come.
    ended: usize,
    received: usize,
    /// Of a run that nothing disturbs.
    requests: usize,
    participants: &'static [&'static str],
    content: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |draft, (ended, received, requests), participants, content| Case {
        draft,
        ended,
        received,
        requests,
        participants,
        content,
    };
    vec![
        case(draft(Mode::Route, "alice bob carol"), (0, 2, 2), &["bob"], "bob speaks"),
        case(draft(Mode::Sequential, "alice bob carol"), (1, 2, 3), &["alice", "bob", "carol"], "carol speaks"),
        case(draft(Mode::Pipeline, "alice bob carol"), (1, 2, 3), &["alice", "bob", "carol"], "carol speaks"),
        case(draft(Mode::Debate, "alice bob"), (1, 2, 5), &["alice", "bob", "alice", "bob", "alice"], "alice speaks"),
        case(diamond(None), (2, 3, 4), &["alice", "bob", "carol", "alice"], "alice speaks"),
        case(draft(Mode::Swarm, "alice bob"), (1, 2, 2), &["alice", "bob"], "bob speaks"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_dies_in_the_middle_and_nobody_is_asked_twice() {
    for case in cases() {
        let mode = case.draft.mode;
        for database in databases().await {
            let gate = Gate::new();
            let held = gate.clone();
            let respond = move |request: &Request| {
                let reply = answer(request);
                if who(request) == "bob" { reply.hold_until(&held) } else { reply }
            };
            let model = ModelServer::with(respond).await.unwrap();
            let mut app = start(database, &model, |_| {}).await;
            let accepted = put(&app, case.draft.clone()).await;
            let place = format!("{} {mode:?}", app.name());
            let ended = Cell::new(0);
            let is_there = |e: &Event| {
                ended.set(ended.get() + usize::from(e.data["status"] == "finished"));
                ended.get() == case.ended
            };
            app.events_until("t", is_there).await.unwrap();
            model.until(|c| c.received == case.received).await.unwrap();
            until_state(&app, accepted.id, RunState::Waiting).await;
            app.kill_worker().await;
            app.start_worker();
            // Bob's own call was in flight: it is made again, and nothing else is.
            model.until(|c| c.received == case.received + 1).await.unwrap();
            gate.open();
            let events = app.events("t").await.unwrap();
            check(&events);
            let run = app.run(accepted.id).await.unwrap();
            assert_eq!((run.state, run.crashes), (RunState::Succeeded, 0), "{place}: {:?}", run.error);
            assert_eq!(model.counts().received, case.requests + 1, "{place}");
            assert_eq!(run.result.as_ref().unwrap()["content"], case.content, "{place}");
            let took_part = participants(&run);
            let names: Vec<_> = took_part.iter().map(|p| p["agent_id"].as_str().unwrap()).collect();
            assert_eq!(names, case.participants, "{place}");
            let mut runs: Vec<_> = took_part.iter().map(|p| p["execution_id"].to_string()).collect();
            runs.sort();
            runs.dedup();
            assert_eq!(runs.len(), case.participants.len(), "{place}");
            assert_eq!((told(&events, "started").len(), told(&events, "finished").len()), (runs.len(), runs.len()), "{place}");
            // The server says 7 tokens in for each answer that was given to its end.
            assert_eq!(run.usage.unwrap().input_tokens, 7 * u64::try_from(case.requests).unwrap(), "{place}");
            let last: Uuid = took_part.last().unwrap()["execution_id"].as_str().unwrap().parse().unwrap();
            let child = app.run(last).await.unwrap();
            assert_eq!((child.parent_run_id, child.root_run_id), (Some(run.id), Some(run.id)), "{place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_that_waits_holds_no_worker() {
    for database in databases().await {
        let model = ModelServer::with(answer).await.unwrap();
        let app = start(database, &model, |c| _ = c.lanes.insert("runs".into(), 1)).await;
        for (i, case) in cases().into_iter().enumerate() {
            let mode = case.draft.mode;
            let accepted = put(&app, case.draft).await;
            check(&app.events("t").await.unwrap());
            let run = app.run(accepted.id).await.unwrap();
            assert_eq!(run.state, RunState::Succeeded, "{} {mode:?}: {:?}", app.name(), run.error);
            assert_eq!(run.result.unwrap()["content"], case.content, "{mode:?} as run {i} of the session");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_see_what_was_said_before() {
    for database in databases().await {
        let model = ModelServer::with(answer).await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let first = NewMessage { id: new_id().to_string(), role: MessageRole::User, body: MessageBody::text("my name is Ada") };
        let options = RunOptions { agent_id: Some("carol".into()), ..RunOptions::default() };
        app.submit("t", vec![first], options).await.unwrap();
        app.events("t").await.unwrap();
        put(&app, draft(Mode::Sequential, "alice bob")).await;
        check(&app.events("t").await.unwrap());
        let bob = model.requests().into_iter().find(|r| who(r) == "bob").unwrap();
        let seen =
            bob.messages()[1..].iter().map(|m| format!("{}: {}", m["role"].as_str().unwrap(), m["content"])).collect::<Vec<_>>();
        let all = seen.join("\n");
        let earlier = all.contains("my name is Ada") && all.contains("carol speaks");
        assert!(earlier && all.contains("alice speaks") && bob.user().starts_with("question"), "{}: {all}", app.name());
        // The session has the question and the team's answer, and nothing of what was said between participants.
        app.say("t", "and now?", RunOptions { agent_id: Some("carol".into()), ..RunOptions::default() }).await.unwrap();
        app.events("t").await.unwrap();
        let carol = model.requests().pop().unwrap();
        let said: Vec<_> = carol.messages()[1..].iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(said, ["user", "assistant", "user", "assistant", "user"], "{}", app.name());
        assert_eq!(carol.last("assistant"), "bob speaks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_fails_the_team_or_is_done_without() {
    for database in databases().await {
        let failing = |request: &Request| if who(request) == "bob" { Reply::status(401) } else { answer(request) };
        let model = ModelServer::with(failing).await.unwrap();
        let app = start(database, &model, |_| {}).await;
        for draft in [
            draft(Mode::Route, "alice bob"),
            draft(Mode::Sequential, "alice bob carol"),
            draft(Mode::Pipeline, "bob"),
            diamond(None),
        ] {
            let mode = draft.mode;
            let accepted = put(&app, draft).await;
            let events = app.events("t").await.unwrap();
            check(&events);
            let run = app.run(accepted.id).await.unwrap();
            let error = run.error.unwrap();
            assert_eq!((run.state, error.code.as_str()), (RunState::Failed, "PARTICIPANT_FAILED"), "{} {mode:?}", app.name());
            assert!(error.message.starts_with("bob "), "{mode:?}: {}", error.message);
            assert_eq!(told(&events, "failed").last().map(String::as_str), Some("bob"), "{mode:?}");
        }
        let accepted = put(&app, draft(Mode::Debate, "alice bob carol")).await;
        check(&app.events("t").await.unwrap());
        let run = app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        let took_part = participants(&run);
        let names: Vec<_> = took_part.iter().map(|p| p["agent_id"].as_str().unwrap()).collect();
        assert_eq!(names, ["alice", "bob", "carol", "alice", "carol", "alice"]);
        assert!(took_part[1]["content"].is_null() && took_part[1]["error"].is_string(), "{took_part:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_asks_only_those_who_have_not_answered() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        model.script(Reply::text("alice speaks")).script(Reply::status(401));
        model.script(Reply::text("bob speaks")).script(Reply::text("carol speaks"));
        let first = put(&app, draft(Mode::Sequential, "alice bob carol")).await;
        app.events("t").await.unwrap();
        assert_eq!(app.run(first.id).await.unwrap().state, RunState::Failed, "{}", app.name());
        let again = control::retry(&app.app, &app.caller, first.id, None).await.unwrap();
        check(&app.events("t").await.unwrap());
        let run = app.run(again.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}: {:?}", app.name(), run.error);
        assert_eq!(run.result.unwrap()["content"], "carol speaks");
        assert_eq!(model.requests().iter().map(who).collect::<Vec<_>>(), ["alice", "bob", "bob", "carol"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_team_reaches_its_participants() {
    for database in databases().await {
        let gate = Gate::new();
        let held = gate.clone();
        // Long: a connection that was given up is noticed when bytes come, and a busy worker gives it up a little later.
        let long = move || Reply::text(&"word ".repeat(100)).hold_until(&held).delay_per_token(Duration::from_millis(100));
        let model = ModelServer::with(move |_| long()).await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let accepted = put(&app, draft(Mode::Debate, "alice bob carol")).await;
        model.until(|c| c.received == 3).await.unwrap();
        until_state(&app, accepted.id, RunState::Waiting).await;
        control::cancel(&app.app, &app.caller, accepted.id).await.unwrap();
        let events = app.events("t").await.unwrap();
        check(&events);
        for told in of_kind(&events, kind::PROGRESS) {
            let child: Uuid = told.data["childTaskId"].as_str().unwrap().parse().unwrap();
            until_state(&app, child, RunState::Cancelled).await;
        }
        // The requests to the provider are given up.
        gate.open();
        model.until(|c| c.open == 0).await.unwrap();
        assert_eq!((model.counts().left, told(&events, "started").len()), (3, 3), "{}", app.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_names_nobody_is_asked_once_more_and_then_the_first_answers() {
    for database in databases().await {
        let model = ModelServer::start().await.unwrap();
        let app = start(database, &model, |_| {}).await;
        model.script(Reply::text("whoever")).script(Reply::text("{\"agent\": \"Bob\"}")).script(Reply::text("it is me"));
        put(&app, draft(Mode::Route, "alice bob")).await;
        app.events("t").await.unwrap();
        assert!(model.requests()[1].user().contains("named nobody"), "{}", app.name());
        assert_eq!(who(&model.requests()[2]), "bob");
        model.script(Reply::text("whoever")).script(Reply::text("nobody")).script(Reply::text("so be it"));
        put(&app, draft(Mode::Route, "alice bob")).await;
        app.events("t").await.unwrap();
        assert_eq!((who(&model.requests()[5]).as_str(), model.counts().received), ("alice", 6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_decides_which_way_a_graph_goes() {
    for database in databases().await {
        let model = ModelServer::with(answer).await.unwrap();
        let app = start(database, &model, |_| {}).await;
        let accepted = put(&app, diamond(Some("output.contains('bob')"))).await;
        let events = app.events("t").await.unwrap();
        check(&events);
        assert_eq!(told(&events, "started"), ["alice", "carol", "alice"], "{}", app.name());
        let execution = runmill_shared::services::executions::get(&app.app, &app.caller, accepted.id).await.unwrap();
        let details = execution.details.unwrap();
        let keys: Vec<_> = details.steps.iter().map(|s| s.key.as_str()).collect();
        assert_eq!((keys, details.children.len()), (vec!["node:s", "node:r", "node:e"], 3));
    }
}
