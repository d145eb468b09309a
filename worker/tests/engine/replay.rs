//! A worker dies after each kind of step; another goes on after the last finished one, and does nothing twice.

use runmill_shared::{
    config::Config,
    domain::{event::kind, run::RunState, run_input::RunOptions},
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    counting_server::CountingServer,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::{Value, json};

use super::told::{check, count, has_text, is_discarded, of_kind, started, text, until_state};

struct Bench {
    app: TestApp,
    model: ModelServer,
    web: CountingServer,
    gate: Gate,
}

async fn bench(database: TestDatabase) -> Bench {
    let gate = Gate::new();
    let (model, web) = (ModelServer::start().await.unwrap(), CountingServer::start(&gate).await.unwrap());
    let quick = |config: &mut Config| {
        quick_recovery(config);
        config.security.allow_private_hosts = vec![web.host()];
    };
    let app = TestApp::with_model(database, &model, quick).await.unwrap();
    Bench { app, model, web, gate }
}

impl Bench {
    fn call(&self, method: &str, path: &str) -> (&'static str, Value) {
        ("http_request", json!({ "method": method, "url": self.web.url(path) }))
    }

    /// The worker dies, and another starts.
    async fn crash(&mut self) {
        self.app.kill_worker().await;
        self.app.start_worker();
    }

    /// What a later run of the thread sees of it: every message once.
    async fn transcript(&self, thread: &str) -> Vec<String> {
        self.app.say(thread, "and now?", RunOptions::default()).await.unwrap();
        check(&self.app.events(thread).await.unwrap());
        let last = self.model.requests().pop().unwrap();
        let short = |m: &Value| {
            let calls = m["tool_calls"].as_array().map_or(0, Vec::len);
            let content = m["content"].as_str().map_or_else(|| m["content"][0]["text"].to_string(), str::to_owned);
            format!("{}:{}", m["role"].as_str().unwrap(), if calls > 0 { format!("{calls} calls") } else { content })
        };
        last.messages()[1..].iter().map(short).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_an_answer() {
    for database in databases().await {
        let mut b = bench(database).await;
        b.model.script(Reply::text("one two three four").hold_after(2, &b.gate)).script(Reply::text("whole"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        b.app.events_until("t", |e| has_text(e, "two")).await.unwrap();
        b.crash().await;
        let events = b.app.events("t").await.unwrap();
        assert_eq!(b.app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", b.app.name());
        check(&events);
        assert_eq!(b.model.counts().received, 2);
        let ids = started(&events);
        assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
        assert_eq!((text(&events, &ids[0]).trim(), text(&events, &ids[1]).as_str()), ("one two", "whole"));
        assert_eq!(b.transcript("t").await, ["user:hello", "assistant:whole", "user:and now?"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_tools_run() {
    for database in databases().await {
        let mut b = bench(database).await;
        let calls = [b.call("GET", "/held/get"), b.call("POST", "/held/post"), b.call("POST", "/quick")];
        b.model.script(Reply::tool_calls(calls)).script(Reply::text("so be it"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        b.web.until(3).await.unwrap();
        // The one that has ended is kept though the others have not.
        b.app.events_until("t", |e| e.kind == kind::TOOL_FINISHED).await.unwrap();
        b.crash().await;
        b.web.until(4).await.unwrap();
        b.gate.open();
        let events = b.app.events("t").await.unwrap();
        assert_eq!(b.app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", b.app.name());
        check(&events);
        assert_eq!(b.model.counts().received, 2, "the answer that asked for the tools was journaled");
        let seen = b.web.seen();
        let of = |path: &str| seen.iter().filter(|s| s.path == path).collect::<Vec<_>>();
        assert_eq!((of("/held/post").len(), of("/quick").len(), of("/held/get").len()), (1, 1, 2), "{seen:?}");
        let keys: Vec<_> = of("/held/get").iter().map(|s| s.idempotency_key.clone().unwrap()).collect();
        assert_eq!(keys[0], keys[1]);
        assert_ne!(of("/held/post")[0].idempotency_key, of("/quick")[0].idempotency_key);
        let told = b.model.requests()[1].tool_results();
        assert!(told.len() == 3 && told[0].contains("answer to /held/get"), "{told:?}");
        assert!(told[1].contains("OUTCOME_UNKNOWN") && told[2].contains("answer to /quick"), "{told:?}");
        assert_eq!(count(&events, kind::TOOL_FINISHED), 3);
        let transcript = b.transcript("t").await;
        assert_eq!(transcript.iter().filter(|m| m.starts_with("tool:")).count(), 3, "{transcript:?}");
        assert_eq!(transcript.len(), 7, "{transcript:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_a_tools_end_and_the_next_model_call() {
    for database in databases().await {
        let mut b = bench(database).await;
        b.model
            .script(Reply::tool_calls([b.call("POST", "/once")]))
            .script(Reply::text("never").hold_until(&b.gate))
            .script(Reply::text("done"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        b.model.until(|c| c.received == 2).await.unwrap();
        b.crash().await;
        let events = b.app.events("t").await.unwrap();
        assert_eq!(b.app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", b.app.name());
        check(&events);
        assert_eq!(b.model.counts().received, 3, "one for each journaled step, and the one that was in flight");
        assert_eq!(b.web.seen().len(), 1);
        let requests = b.model.requests();
        assert_eq!(requests[1].messages(), requests[2].messages(), "the same conversation again");
        let transcript = b.transcript("t").await;
        assert_eq!(transcript.len(), 5, "{transcript:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_waits_on_a_timer() {
    for database in databases().await {
        let mut b = bench(database).await;
        b.model
            .script(Reply::tool_calls([("wait", json!({ "seconds": 1 })), b.call("POST", "/once")]))
            .script(Reply::text("done"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        until_state(&b.app, accepted.id, RunState::Waiting).await;
        b.crash().await;
        let events = b.app.events("t").await.unwrap();
        assert_eq!(b.app.run(accepted.id).await.unwrap().state, RunState::Succeeded, "{}", b.app.name());
        check(&events);
        assert_eq!((b.model.counts().received, b.web.seen().len()), (2, 1));
        assert_eq!(count(&events, kind::RUN_WAITING), 1);
        assert_eq!(b.transcript("t").await.len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_child_runs() {
    for database in databases().await {
        let mut b = bench(database).await;
        b.model
            .script(Reply::tool_calls([("delegate_to_agent", json!({ "task": "dig" }))]))
            .script(Reply::text("half a hole").hold_after(1, &b.gate))
            .script(Reply::text("a whole hole"))
            .script(Reply::text("it is dug"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        b.model.until(|c| c.received == 2).await.unwrap();
        until_state(&b.app, accepted.id, RunState::Waiting).await;
        b.crash().await;
        let events = b.app.events("t").await.unwrap();
        let run = b.app.run(accepted.id).await.unwrap();
        assert_eq!(run.state, RunState::Succeeded, "{}", b.app.name());
        assert_eq!(run.crashes, 0, "a run that waits is held by nobody");
        check(&events);
        assert_eq!(b.model.counts().received, 4);
        assert!(b.model.requests()[3].tool_results()[0].contains("a whole hole"));
        let child = of_kind(&events, kind::PROGRESS)[0].data["childThreadId"].as_str().unwrap();
        let events = b.app.events(child).await.unwrap();
        check(&events);
        assert_eq!(events.iter().filter(|e| is_discarded(e)).count(), 1);
        assert_eq!(b.transcript("t").await.len(), 5);
    }
}

/// The last journaled step is the last thing that a run did: a crash in the last answer repeats that answer only.
#[tokio::test(flavor = "multi_thread")]
async fn again_and_again() {
    for database in databases().await {
        let mut b = bench(database).await;
        let hold = |reply: Reply| reply.hold_after(1, &b.gate);
        b.model
            .script(hold(Reply::text("a b")))
            .script(Reply::tool_calls([b.call("POST", "/1")]))
            .script(hold(Reply::text("c d")))
            .script(hold(Reply::text("e f")))
            .script(Reply::tool_calls([b.call("POST", "/2")]))
            .script(hold(Reply::text("g h")))
            .script(Reply::text("end"));
        let accepted = b.app.say("t", "hello", RunOptions::default()).await.unwrap();
        for received in [1, 3, 4, 6] {
            b.model.until(|c| c.received == received).await.unwrap();
            b.crash().await;
        }
        let events = b.app.events("t").await.unwrap();
        let run = b.app.run(accepted.id).await.unwrap();
        assert_eq!((run.state, run.attempt, run.crashes), (RunState::Succeeded, 0, 4), "{}", b.app.name());
        check(&events);
        assert_eq!((b.model.counts().received, b.web.seen().len()), (7, 2));
        assert_eq!(b.transcript("t").await.len(), 7);
    }
}
