//! What owners are told, once, and what becomes of it.
use futures::future::join_all;
use runmill_shared::{
    domain::{
        approval::{ApprovalKind, ApprovalStatus, Decision, NewApproval},
        caller::{Role, Scope},
        notification::{NewNotification, Notification, NotificationKind},
        page::PageRequest,
        run::{RunError, Waiting, Watcher},
    },
    services::{accounts, approvals, model_configs::Patch, notification_channels as channels, notifications},
    store::notifications as store,
};

use super::*;

fn page(size: i64) -> PageRequest {
    PageRequest { number: 1, size, search: None, status: None, sort: None }
}

async fn told(w: &World, owner: &Owner) -> Vec<Notification> {
    store::list(&w.app.db, owner, &page(100), None, None).await.unwrap().items
}

async fn tell(w: &World, owner: &str, n: usize, kind: NotificationKind) {
    let new: Vec<_> = (0..n).map(|n| NewNotification::about(owner, kind, "execution", &n.to_string(), "hi\r\nthere")).collect();
    let mut tx = w.tx().await;
    store::insert_many(&mut tx, &new, w.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn webhook(w: &World, name: &str, kinds: Option<&[&str]>) -> Uuid {
    let change = channels::Change {
        name: Some(name.into()),
        kind: Some("webhook".into()),
        target: Some("https://example.org/hook".into()),
        kinds: kinds.map_or(Patch::Keep, |kinds| Patch::Set(kinds.iter().map(|k| (*k).to_owned()).collect())),
        ..channels::Change::default()
    };
    let (made, secret) = channels::create(&w.app, &Caller::local(), change).await.unwrap();
    assert!(secret.is_some_and(|s| s.expose().starts_with("whsec_")));
    made.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_sent_once_through_each_channel_however_many_send() {
    for w in worlds().await {
        tell(&w, "local", 3, NotificationKind::GoalEnded).await;
        assert_eq!(w.count("notifications WHERE NOT sent").await, 0, "{}: there is nowhere to send it", w.name);
        webhook(&w, "all", None).await;
        webhook(&w, "some", Some(&["message"])).await;
        let off = webhook(&w, "off", None).await;
        let change = channels::Change { enabled: Some(false), ..channels::Change::default() };
        channels::update(&w.app, &Caller::local(), off, change).await.unwrap();
        // The same is not told again.
        tell(&w, "local", 3, NotificationKind::GoalEnded).await;
        tell(&w, "local", 70, NotificationKind::RunEnded).await;
        tell(&w, "local", 10, NotificationKind::Message).await;
        tell(&w, "bob", 5, NotificationKind::RunEnded).await;
        assert_eq!(w.count("notifications WHERE NOT sent").await, 80);
        let mut other = App::open(w.database.config()).await.unwrap();
        other.clock = w.app.clock.clone();
        let sent = join_all([&w.app, &other, &w.app, &other].map(notifications::dispatch)).await;
        assert_eq!(sent.into_iter().map(Result::unwrap).sum::<usize>(), 80, "{}", w.name);
        assert_eq!(notifications::dispatch(&w.app).await.unwrap(), 0);
        assert_eq!(w.count("notifications WHERE NOT sent").await, 0);
        assert_eq!(w.count("runs WHERE kind = 'delivery' AND owner = 'local' AND lane = 'bulk' AND ready").await, 90);
        assert_eq!(w.count("runs").await, 90);
        w.check().await;
    }
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_tells_of_its_end_once() {
    for w in worlds().await {
        let watched = |name: &str| Work { watcher: Some(Watcher::Owner), ..work(name, name) };
        let started = async |name: &str| {
            let accepted = accept(&w.app, &owner(), &watched(name)).await.unwrap();
            w.claim(accepted.id).await
        };
        let (done, failed, mine, taken) =
            (started("done").await, started("failed").await, started("mine").await, started("taken").await);
        w.finish(&done).await;
        let error = RunError::new("MODEL_AUTH", "who are you?", false);
        let end = End::failed(error.clone());
        let writes = Writes { events: vec![NewEvent::failed(&error, false)], ..Writes::default() };
        execution::end(&w.app, &failed, end, writes).await.unwrap();
        control::cancel(&w.app, &Caller::local(), mine.id).await.unwrap();
        control::end(&w.app, taken.id, "its parent has ended").await.unwrap();
        let unwatched = w.started("plain", "plain").await;
        w.finish(&unwatched).await;
        until("all is told", async || w.count("outbox").await == 0).await;
        let told = told(&w, &owner()).await;
        let about = |run: &Claimed| told.iter().find(|n| n.subject["id"] == run.id.to_string());
        assert_eq!(told.len(), 3, "{}: {told:?}", w.name);
        assert!(about(&mine).is_none() && about(&done).unwrap().title.contains("finished"));
        assert_eq!(about(&failed).unwrap().body, "MODEL_AUTH: who are you?");
        assert_eq!(about(&taken).unwrap().body, "its parent has ended");
        assert!(told.iter().all(|n| n.kind == NotificationKind::RunEnded && n.subject["type"] == "execution"));
    }
}

/// A run that waits for a decision until it is made, and no timer of its own.
async fn asks(w: &World, run: &Claimed, expires: Duration, escalate: Option<Duration>) -> Uuid {
    let (id, now) = (new_id(), w.app.clock.now());
    let escalate_at = escalate.map(|d| now.after(d));
    let (kind, subject, expires_at) = (ApprovalKind::Question, json!({ "question": "well?" }), now.after(expires));
    let approval = NewApproval { id, kind, reason: "well?".into(), subject, expires_at, escalate_at };
    let writes = Writes { approvals: vec![approval], ..Writes::default() };
    let waiting = Waiting::Approval { approvals: vec![id], until: None };
    execution::park(&w.app, run, run.wake_seq, &waiting, writes).await.unwrap();
    id
}

async fn user(w: &World, name: &str) -> Caller {
    let (email, password) = (format!("{name}@example.org"), "correct horse".to_owned());
    let new = accounts::Registration { email, password, nickname: name.to_owned() };
    let user = accounts::register(&w.app, new).await.unwrap();
    Caller::user(user.id, user.role)
}

#[tokio::test]
async fn what_nobody_decides_is_escalated_once_to_the_administrators_who_may_decide_then() {
    for w in worlds().await {
        let (admin, bob) = (user(&w, "ann").await, user(&w, "bob").await);
        assert_eq!((admin.role, bob.role), (Role::Admin, Role::User));
        let run = w.started("t", "a").await;
        let id = asks(&w, &run, MINUTE * 10, Some(MINUTE)).await;
        let wanted = told(&w, &owner()).await;
        assert_eq!((wanted.len(), wanted[0].kind), (1, NotificationKind::ApprovalWanted), "{}", w.name);
        assert_eq!((&wanted[0].subject["id"], wanted[0].body.as_str()), (&json!(id), "well?"));
        let resolve = async |by: &Caller| approvals::resolve(&w.app, by, id, Decision::Approve, None).await;
        let seen = async |by: &Caller| approvals::list(&w.app, by, &page(20)).await.unwrap();
        assert_eq!(approvals::sweep(&w.app).await.unwrap(), 0);
        assert_eq!(resolve(&admin).await.unwrap_err().code, "APPROVAL_NOT_FOUND", "not before it is escalated");
        assert_eq!(seen(&admin).await.total, 0);
        w.later(MINUTE);
        let other = App { clock: w.app.clock.clone(), ..App::open(w.database.config()).await.unwrap() };
        let swept = join_all([&w.app, &other, &w.app].map(approvals::sweep)).await;
        assert_eq!(swept.into_iter().map(Result::unwrap).sum::<usize>(), 1, "{}", w.name);
        let admins = Owner::of_row(admin.can(Scope::Read).unwrap().as_str());
        let bobs = Owner::of_row(bob.can(Scope::Read).unwrap().as_str());
        let kinds = |all: Vec<Notification>| all.into_iter().map(|n| n.kind).collect::<Vec<_>>();
        let escalated = NotificationKind::ApprovalEscalated;
        assert_eq!(kinds(told(&w, &admins).await), [escalated]);
        assert_eq!(kinds(told(&w, &owner()).await), [escalated, NotificationKind::ApprovalWanted]);
        assert!(told(&w, &bobs).await.is_empty());
        assert_eq!((seen(&admin).await.total, seen(&bob).await.total), (1, 0));
        assert!(seen(&admin).await.items[0].escalated_at.is_some());
        assert_eq!(resolve(&bob).await.unwrap_err().code, "APPROVAL_NOT_FOUND");
        let resolved = resolve(&admin).await.unwrap();
        assert_eq!((resolved.status, resolved.resolved_by.as_deref()), (ApprovalStatus::Approved, Some(admins.as_str())));
        assert_eq!(resolve(&Caller::local()).await.unwrap_err().code, "APPROVAL_RESOLVED");
        until("the run goes on", async || w.is_ready(run.id).await).await;
        w.later(MINUTE * 20);
        assert_eq!(approvals::sweep(&w.app).await.unwrap(), 0, "what is decided neither expires nor escalates");
    }
}

#[tokio::test]
async fn what_expires_is_closed_and_wakes_its_run_although_nobody_looks() {
    for w in worlds().await {
        user(&w, "ann").await;
        let (run, quiet) = (w.started("t", "a").await, w.started("u", "b").await);
        let id = asks(&w, &run, MINUTE, Some(MINUTE / 2)).await;
        asks(&w, &quiet, MINUTE * 3, None).await;
        // Nobody swept while it could have been escalated.
        w.later(MINUTE * 2);
        assert_eq!(approvals::sweep(&w.app).await.unwrap(), 1, "{}", w.name);
        until("the run is woken", async || w.is_ready(run.id).await).await;
        assert!(!w.is_ready(quiet.id).await);
        let stored = runmill_shared::store::approvals::of_run(&w.app.db, run.id).await.unwrap();
        assert_eq!((stored[0].id, stored[0].status, stored[0].resolved_by.clone()), (id, ApprovalStatus::Expired, None));
        assert!(told(&w, &owner()).await.iter().all(|n| n.kind == NotificationKind::ApprovalWanted));
        assert_eq!(approvals::sweep(&w.app).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn texts_are_cut_titles_are_one_line_and_old_ones_are_forgotten() {
    for w in worlds().await {
        let long = NewNotification::about("local", NotificationKind::Message, "execution", "x", "t\r\n".repeat(200));
        let mut tx = w.tx().await;
        store::insert(&mut tx, &long.saying("ä".repeat(10_000)), w.app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let first = told(&w, &owner()).await.remove(0);
        assert!(first.title.chars().count() == 200 && !first.title.chars().any(char::is_control), "{}", w.name);
        assert_eq!(first.body.chars().count(), 8000);
        w.later(w.app.config.notifications.retention);
        tell(&w, "local", 1, NotificationKind::Message).await;
        w.later(Duration::from_millis(1));
        assert_eq!(notifications::forget(&w.app).await.unwrap(), 1);
        assert_eq!(w.count("notifications").await, 1);
    }
}
