//! Runs that wait for people: they cost no worker meanwhile, go on as was decided, and survive whatever happens in between.
use std::time::Duration;

use runmill_shared::{
    Error,
    clock::Clock,
    config::Config,
    domain::{
        agent::Definition,
        approval::{Approval, ApprovalKind, ApprovalStatus, Decision},
        caller::{Caller, Role},
        event::kind,
        new_id,
        page::PageRequest,
        run::{RunState, Waiting},
        run_input::RunOptions,
    },
    services::{approvals, runs::control},
    store::db::{Class, Sql, query},
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    counting_server::CountingServer,
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::told::{agent, check, count, of_kind, until_state};

struct Bench {
    app: TestApp,
    model: ModelServer,
    web: CountingServer,
    options: RunOptions,
}

async fn bench(database: TestDatabase) -> Bench {
    let (model, web) = (ModelServer::start().await.unwrap(), CountingServer::start(&Gate::new()).await.unwrap());
    let quick = |config: &mut Config| {
        quick_recovery(config);
        config.security.allow_private_hosts = vec![web.host()];
    };
    let app = TestApp::with_model(database, &model, quick).await.unwrap();
    let definition = Definition {
        include_tools: ["http_request", "calculator", "ask_human"].map(str::to_owned).into(),
        approval_tools: vec!["http_request".into()],
        ..Definition::default()
    };
    let options = agent(&app, definition).await;
    Bench { app, model, web, options }
}

impl Bench {
    fn post(&self, path: &str) -> (&'static str, Value) {
        ("http_request", json!({ "method": "POST", "url": self.web.url(path) }))
    }

    async fn waiting(&self, thread: &str) -> Uuid {
        let accepted = self.app.say(thread, "hello", self.options.clone()).await.unwrap();
        until_state(&self.app, accepted.id, RunState::Waiting).await;
        accepted.id
    }

    async fn listed(&self, caller: &Caller, status: Option<&str>) -> Vec<Approval> {
        let page = PageRequest { number: 1, size: 20, search: None, status: status.map(str::to_owned), sort: None };
        let listed = approvals::list(&self.app.app, caller, &page).await.unwrap();
        assert_eq!(usize::try_from(listed.total).unwrap(), listed.items.len());
        listed.items
    }

    /// Lets time go by. Postgres has the clock itself: there the times are moved instead.
    async fn pass(&self, time: Duration) {
        const RUNS: Sql = Sql::both("UPDATE runs SET wake_at = wake_at - $1 WHERE wake_at IS NOT NULL RETURNING id");
        const APPROVALS: Sql = Sql::both("UPDATE approvals SET expires_at = expires_at - $1 RETURNING id");
        if self.app.name() == "sqlite" {
            return self.app.app.clock.advance(time);
        }
        let micros = i64::try_from(time.as_micros()).unwrap();
        for sql in [APPROVALS, RUNS] {
            query(sql).bind(micros).write::<Uuid>(&self.app.app.db, Class::Request).await.unwrap();
        }
    }

    async fn pending(&self) -> Vec<Approval> {
        self.listed(&self.app.caller, Some("pending")).await
    }

    async fn resolve(&self, id: Uuid, decision: Decision, comment: Option<&str>) -> Result<Approval, Error> {
        approvals::resolve(&self.app.app, &self.app.caller, id, decision, comment).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_call_is_made_once_whatever_restarts_in_between() {
    for database in databases().await {
        let mut b = bench(database).await;
        b.model
            .script(Reply::tool_calls([b.post("/once"), ("calculator", json!({ "expression": "6*7" }))]))
            .script(Reply::text("done"));
        let run = b.waiting("t").await;
        let pending = b.pending().await;
        let [approval] = pending.as_slice() else { panic!("{pending:?}") };
        assert_eq!((approval.kind, approval.run_id), (ApprovalKind::Tool, run), "{}", b.app.name());
        assert_eq!(approval.subject["arguments"]["url"], b.web.url("/once"));
        let row = b.app.run(run).await.unwrap();
        let until = Some(approval.expires_at);
        assert_eq!(row.waiting, Some(Waiting::Approval { approvals: vec![approval.id], until }));
        // Nobody executes it, and what needs no approval is done.
        b.app.kill_worker().await;
        assert!(b.web.seen().is_empty());
        let stranger = Caller::user(new_id(), Role::User);
        assert!(b.listed(&stranger, None).await.is_empty());
        let refused = approvals::resolve(&b.app.app, &stranger, approval.id, Decision::Approve, None).await.unwrap_err();
        assert_eq!(refused.code, "APPROVAL_NOT_FOUND");
        let resolved = b.resolve(approval.id, Decision::Approve, Some("go on")).await.unwrap();
        assert_eq!((resolved.status, resolved.comment.as_deref()), (ApprovalStatus::Approved, Some("go on")));
        let again = b.resolve(approval.id, Decision::Reject, None).await.unwrap_err();
        assert_eq!((again.code, again.message.as_ref()), ("APPROVAL_RESOLVED", "the approval is approved"));
        b.app.start_worker();
        let events = b.app.events("t").await.unwrap();
        check(&events);
        let row = b.app.run(run).await.unwrap();
        assert_eq!((row.state, row.crashes), (RunState::Succeeded, 0), "{}: {:?}", b.app.name(), row.error);
        assert_eq!((b.web.seen().len(), b.model.counts().received), (1, 2));
        let told = b.model.requests()[1].tool_results();
        assert!(told[0].contains("answer to /once") && told[1].contains("42"), "{told:?}");
        let (requested, resolved) = (of_kind(&events, kind::APPROVAL_REQUESTED), of_kind(&events, kind::APPROVAL_RESOLVED));
        assert!(requested.len() == 1 && resolved.len() == 1);
        assert_eq!(
            (&requested[0].data["approvalId"], &resolved[0].data["approvalId"]),
            (&json!(approval.id), &json!(approval.id))
        );
        assert_eq!((&resolved[0].data["decision"], &resolved[0].data["comment"]), (&json!("approve"), &json!("go on")));
        assert!(requested[0].data["toolCallId"].as_str().unwrap().starts_with("call_"));
        assert_eq!(of_kind(&events, kind::RUN_WAITING)[0].data["reason"], "approval");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_call_is_not_made_and_the_model_is_told_why() {
    for database in databases().await {
        let b = bench(database).await;
        b.model.script(Reply::tool_calls([b.post("/never"), b.post("/please")])).script(Reply::text("so be it"));
        let run = b.waiting("t").await;
        let pending = b.pending().await;
        let of = |path: &str| pending.iter().find(|a| a.subject["arguments"]["url"] == b.web.url(path)).unwrap().id;
        b.resolve(of("/never"), Decision::Reject, Some("too dear")).await.unwrap();
        // It goes on with what was decided, and waits again for the rest.
        b.app.events_until("t", |e| e.kind == kind::APPROVAL_RESOLVED).await.unwrap();
        until_state(&b.app, run, RunState::Waiting).await;
        assert_eq!(b.pending().await.len(), 1, "{}", b.app.name());
        b.resolve(of("/please"), Decision::Approve, None).await.unwrap();
        let events = b.app.events("t").await.unwrap();
        check(&events);
        assert_eq!(b.app.run(run).await.unwrap().state, RunState::Succeeded);
        let paths: Vec<_> = b.web.seen().into_iter().map(|s| s.path).collect();
        assert_eq!(paths, ["/please"]);
        let told = b.model.requests()[1].tool_results();
        assert!(told[0].contains("APPROVAL_REJECTED") && told[0].contains("too dear"), "{told:?}");
        assert!(told[1].contains("answer to /please"));
        assert_eq!((count(&events, kind::APPROVAL_REQUESTED), count(&events, kind::APPROVAL_RESOLVED)), (2, 2));
        let listed = b.listed(&b.app.caller, None).await;
        assert_eq!(listed.iter().filter(|a| a.status == ApprovalStatus::Rejected).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_a_question() {
    for database in databases().await {
        let b = bench(database).await;
        let question = json!({ "question": "Which colour?", "options": ["red", "blue"] });
        b.model
            .script(Reply::tool_calls([("ask_human", question), ("ask_human", json!({ "question": " " }))]))
            .script(Reply::text("blue it is"));
        let run = b.waiting("t").await;
        let [approval] = b.pending().await.try_into().unwrap();
        assert_eq!((approval.kind, approval.reason.as_str()), (ApprovalKind::Question, "Which colour?"), "{}", b.app.name());
        assert_eq!(approval.subject["options"], json!(["red", "blue"]));
        b.resolve(approval.id, Decision::Reject, Some("blue")).await.unwrap();
        check(&b.app.events("t").await.unwrap());
        assert_eq!(b.app.run(run).await.unwrap().state, RunState::Succeeded);
        let told = b.model.requests()[1].tool_results();
        assert_eq!(serde_json::from_str::<Value>(&told[0]).unwrap(), json!({ "decision": "reject", "comment": "blue" }));
        assert!(told[1].contains("INVALID_ARGUMENTS"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_expires_and_the_run_goes_on_without() {
    for database in databases().await {
        let mut b = bench(database).await;
        if b.app.name() == "sqlite" {
            b.app.stop_worker().await.unwrap();
            b.app.app.clock = Clock::manual(b.app.app.clock.now());
            b.app.start_worker();
        }
        b.model
            .script(Reply::tool_calls([b.post("/never"), ("ask_human", json!({ "question": "Well?" }))]))
            .script(Reply::text("I see"));
        let run = b.waiting("t").await;
        assert_eq!(b.pending().await.len(), 2, "{}", b.app.name());
        b.pass(b.app.app.config.approvals.expires).await;
        // For people it has expired at once.
        assert!(b.pending().await.is_empty());
        let expired = b.listed(&b.app.caller, Some("expired")).await;
        assert_eq!(expired.len(), 2);
        let late = b.resolve(expired[0].id, Decision::Approve, None).await.unwrap_err();
        assert_eq!((late.code, late.message.as_ref()), ("APPROVAL_RESOLVED", "the approval is expired"));
        let events = b.app.events("t").await.unwrap();
        check(&events);
        assert_eq!(b.app.run(run).await.unwrap().state, RunState::Succeeded);
        assert!(b.web.seen().is_empty());
        let told = b.model.requests()[1].tool_results();
        assert!(told.len() == 2 && told.iter().all(|t| t.contains("APPROVAL_EXPIRED")), "{told:?}");
        let decisions: Vec<_> = of_kind(&events, kind::APPROVAL_RESOLVED).iter().map(|e| e.data["decision"].clone()).collect();
        assert_eq!(decisions, ["expired", "expired"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_waits_for_nobody() {
    for database in databases().await {
        let b = bench(database).await;
        b.model.script(Reply::tool_calls([b.post("/never")]).usage(11, 2)).script(Reply::text("next"));
        let run = b.waiting("t").await;
        let [approval] = b.pending().await.try_into().unwrap();
        control::cancel(&b.app.app, &b.app.caller, run).await.unwrap();
        let events = b.app.events("t").await.unwrap();
        check(&events);
        let usage = b.app.run(run).await.unwrap().usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (11, 2), "{}: what it cost is kept", b.app.name());
        assert_eq!(events.last().unwrap().data["usage"]["inputTokens"], 11);
        assert_eq!(b.listed(&b.app.caller, None).await[0].status, ApprovalStatus::Cancelled);
        let refused = b.resolve(approval.id, Decision::Approve, None).await.unwrap_err();
        assert_eq!(refused.code, "APPROVAL_RESOLVED");
        // A retry asks again: nobody has decided.
        let again = control::retry(&b.app.app, &b.app.caller, run, None).await.unwrap();
        until_state(&b.app, again.id, RunState::Waiting).await;
        let [fresh] = b.pending().await.try_into().unwrap();
        assert_ne!(fresh.id, approval.id);
        b.resolve(fresh.id, Decision::Approve, None).await.unwrap();
        check(&b.app.events("t").await.unwrap());
        assert_eq!((b.web.seen().len(), b.model.counts().received), (1, 2));
        let usage = b.app.run(again.id).await.unwrap().usage.unwrap();
        assert_eq!(usage.input_tokens, 7, "the inherited answer is in the first run's account");
    }
}
