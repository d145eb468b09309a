//! Taking work in: idempotency, the policies of a busy thread, the limit, delays.
use futures::future::join_all;
use runmill_shared::{
    error::ErrorKind,
    services::runs::sweep,
    store::{messages, threads},
};

use super::*;

fn with_key(thread: &str, run: &str, key: &str, hash: &str) -> Work {
    Work { idempotency_key: Some(key.into()), hash: hash.into(), ..work(thread, run) }
}

#[tokio::test]
async fn the_same_run_again_is_the_same_answer_and_another_body_is_refused() {
    for w in worlds().await {
        let first = w.accept("t", "a").await;
        w.later(MINUTE);
        let again = w.accept("t", "a").await;
        assert_eq!(again, Accepted { replayed: true, ..first }, "{}", w.name);
        let other = Work { hash: "another".into(), ..work("t", "a") };
        let refused = accept(&w.app, &owner(), &other).await.unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Conflict, "RUN_EXISTS"));
        let others = accept(&w.app, &Owner::of_row("other"), &other).await.unwrap();
        assert!(!others.replayed, "a name is its owner's own");
        assert_eq!((w.count("runs").await, w.count("messages").await), (2, 2));
    }
}

#[tokio::test]
async fn a_key_answers_the_first_run_until_it_is_too_old() {
    for w in worlds().await {
        let ask = async |run: &str, hash: &str| accept(&w.app, &owner(), &with_key("t", run, "k", hash)).await;
        let first = ask("a", "h").await.unwrap();
        assert_eq!(ask("b", "h").await.unwrap(), Accepted { replayed: true, ..first.clone() }, "{}", w.name);
        assert_eq!(ask("b", "other").await.unwrap_err().code, "RUN_EXISTS");
        w.later(w.app.config.runs.idempotency_retention + MINUTE);
        let second = ask("b", "other").await.unwrap();
        assert!(!second.replayed && second.id != first.id);
        assert_eq!(ask("c", "other").await.unwrap().id, second.id, "the key is the second run's now");
    }
}

#[tokio::test]
async fn twenty_equal_requests_at_once_are_one_run() {
    for w in worlds().await {
        for multitask in [Multitask::Enqueue, Multitask::Reject, Multitask::Interrupt, Multitask::Rollback] {
            let name = format!("{multitask:?}");
            let by_name: Vec<_> = (0..10).map(|_| Work { multitask, ..with_key(&name, &name, &name, "h") }).collect();
            let by_key = (0..10).map(|n| Work { multitask, ..with_key(&name, &format!("{name}{n}"), &name, "h") });
            let all: Vec<_> = by_name.into_iter().chain(by_key).collect();
            let me = owner();
            let answers = join_all(all.iter().map(|work| accept(&w.app, &me, work))).await;
            let answers: Vec<_> = answers.into_iter().map(|a| a.unwrap_or_else(|e| panic!("{} {name}: {e}", w.name))).collect();
            assert_eq!(answers.iter().filter(|a| !a.replayed).count(), 1, "{}", w.name);
            assert!(answers.iter().all(|a| a.id == answers[0].id && a.run == answers[0].run));
            assert_eq!(w.state(answers[0].id).await, RunState::Queued);
        }
        assert_eq!((w.count("runs").await, w.count("run_events").await), (4, 4));
        w.check().await;
    }
}

#[tokio::test]
async fn fifty_accepts_on_one_thread_get_fifty_places_and_one_is_ready() {
    for w in worlds().await {
        let all: Vec<_> = (0..50).map(|n| work("t", &format!("r{n}"))).collect();
        let me = owner();
        let answers = join_all(all.iter().map(|work| accept(&w.app, &me, work))).await;
        let mut orders = Vec::new();
        for answer in answers {
            orders.push(w.column(answer.unwrap().id, "thread_order").await.unwrap());
        }
        orders.sort_unstable();
        assert_eq!(orders, (1..=50).collect::<Vec<_>>(), "{}", w.name);
        assert_eq!(w.count("runs WHERE ready").await, 1);
        w.check().await;
    }
}

/// The second of a pair that comes together is of the first one's thread, of its name, or new; who cannot be written harms nobody.
#[tokio::test]
async fn accepts_that_come_together_harm_nobody() {
    for w in worlds().await {
        // How full the lane is is known from now on: the others are accepted in one go.
        let first = w.accept("first", "first").await;
        let theirs = Owner::of_row("theirs");
        let mut all: Vec<_> = (0..60).map(|n| (owner(), work(&format!("t{}", n % 20), &format!("r{n}")))).collect();
        all.push((owner(), Work { hash: "another".into(), ..work("t1", "first") }));
        all.push((owner(), work("t2", "first")));
        all.push((owner(), Work { input: "nul \u{0}".into(), ..work("t3", "unwritable") }));
        all.push((theirs, work("t1", "r1")));
        let answers = join_all(all.iter().map(|(owner, work)| accept(&w.app, owner, work))).await;
        for (n, answer) in answers.iter().enumerate() {
            match (n, answer) {
                (60, answer) => assert_eq!(answer.as_ref().unwrap_err().code, "RUN_EXISTS", "{}", w.name),
                (61, answer) => assert_eq!(answer.as_ref().unwrap().id, first.id, "{}", w.name),
                // SQLite keeps what Postgres cannot.
                (62, answer) => assert_eq!(answer.is_err(), w.app.db.is_postgres(), "{answer:?}"),
                (n, answer) => assert!(!answer.as_ref().unwrap().replayed, "{} {n}", w.name),
            }
        }
        let kept = 62 + i64::from(!w.app.db.is_postgres());
        assert_eq!((w.count("runs").await, w.count("messages").await), (kept, kept), "{}", w.name);
        assert_eq!(w.count("runs WHERE ready").await, 22, "one of each thread");
        for thread in 0..20 {
            let orders = [thread, thread + 20, thread + 40].map(|n| answers[n].as_ref().unwrap().id);
            let mut places = Vec::new();
            for id in orders {
                places.push(w.column(id, "thread_order").await.unwrap());
            }
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), 3, "{}: each has a place of its own: {places:?}", w.name);
        }
        w.check().await;
    }
}

#[tokio::test]
async fn more_accepts_than_connections_do_not_wait_for_each_other() {
    for w in worlds_with(|c| c.database.acquire_timeout = Duration::from_secs(5)).await {
        let all: Vec<_> = (0..40).map(|n| work(&format!("t{n}"), &format!("r{n}"))).collect();
        let me = owner();
        for answer in join_all(all.iter().map(|work| accept(&w.app, &me, work))).await {
            answer.unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
        w.check().await;
    }
}

#[tokio::test]
async fn a_busy_thread_is_waited_for_refused_interrupted_or_rolled_back() {
    for w in worlds().await {
        let ask = async |run: &str, multitask| accept(&w.app, &owner(), &Work { multitask, ..work("t", run) }).await;
        let a = ask("a", Multitask::Reject).await.unwrap().id;
        let held = w.claim(a).await;
        assert_eq!(ask("b", Multitask::Reject).await.unwrap_err().code, "THREAD_BUSY", "{}", w.name);
        assert!(ask("a", Multitask::Reject).await.unwrap().replayed, "the retry of an accepted run never meets itself");
        let b = ask("b", Multitask::Interrupt).await.unwrap().id;
        assert_eq!((w.state(a).await, w.is_ready(b).await), (RunState::Cancelled, true));
        assert_eq!(finish(&w.app, &held).await.unwrap_err().code, execution::LOST);
        let c = ask("c", Multitask::Rollback).await.unwrap().id;
        assert_eq!((w.state(b).await, w.is_ready(c).await), (RunState::Cancelled, true));
        assert_eq!(w.kinds(b).await, ["run.queued", "messages.dropped", "run.cancelled"]);
        let c = w.claim(c).await;
        let seen = messages::context(&w.app.db, c.thread_id, c.id).await.unwrap();
        assert_eq!(seen.into_iter().map(|m| m.id).collect::<Vec<_>>(), ["m-a", "m-c"], "b's were dropped, a's were not");
        w.check().await;
    }
}

#[tokio::test]
async fn a_full_lane_refuses_and_takes_back_nothing() {
    for w in worlds_with(|c| c.runs.max_queued = 3).await {
        for n in 0..3 {
            w.accept(&format!("t{n}"), &format!("r{n}")).await;
        }
        let refused = accept(&w.app, &owner(), &work("t3", "r3")).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Limited, Some(w.app.config.runs.retry_after)), "{}", w.name);
        assert!(w.accept("t0", "r0").await.replayed, "an accepted run is never refused");
        let interrupt = Work { multitask: Multitask::Interrupt, ..work("t0", "other") };
        accept(&w.app, &owner(), &interrupt).await.expect("it makes the room that it needs");
        let reject = Work { multitask: Multitask::Interrupt, run_at: None, ..work("t4", "r4") };
        accept(&w.app, &owner(), &reject).await.unwrap_err();
        assert_eq!((w.count("runs").await, w.count("threads").await), (4, 3));
        let id = w.run(w.accept("t1", "r1").await.id).await.id;
        w.claim(id).await;
        w.accept("t3", "r3").await;
        w.check().await;
    }
}

#[tokio::test]
async fn a_delayed_run_joins_the_order_when_it_is_due() {
    for w in worlds().await {
        let delayed = Work { run_at: Some(START.after(MINUTE)), ..work("t", "late") };
        let late = accept(&w.app, &owner(), &delayed).await.unwrap().id;
        let alone = Work { run_at: Some(START.after(MINUTE)), ..work("alone", "alone") };
        let alone = accept(&w.app, &owner(), &alone).await.unwrap().id;
        let first = w.started("t", "first").await;
        assert_eq!((w.column(late, "thread_order").await, w.is_ready(late).await), (None, false), "{}", w.name);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 0);
        w.later(MINUTE);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 2);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 0);
        assert_eq!((w.column(late, "thread_order").await, w.is_ready(late).await), (Some(2), false));
        assert!(w.is_ready(alone).await);
        w.check().await;
        w.finish(&first).await;
        assert!(w.is_ready(late).await);
        w.check().await;
    }
}

#[tokio::test]
async fn a_delayed_run_that_is_cancelled_never_joins() {
    for w in worlds().await {
        let delayed = Work { run_at: Some(START.after(MINUTE)), ..work("t", "late") };
        let late = accept(&w.app, &owner(), &delayed).await.unwrap().id;
        control::cancel(&w.app, &Caller::local(), late).await.unwrap();
        w.later(MINUTE * 2);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 0, "{}", w.name);
        let thread = w.thread_of(late).await;
        assert_eq!(threads::head(&w.app.db, thread).await.unwrap().unwrap().run_id, None);
        // Its messages were never part of the conversation; a retry brings them into it.
        let retry = control::retry(&w.app, &Caller::local(), late, None).await.unwrap();
        let run = w.claim(retry.id).await;
        let seen = execution::context(&w.app, &run).await.unwrap();
        assert_eq!(seen.into_iter().map(|m| m.id).collect::<Vec<_>>(), ["m-late"]);
        w.check().await;
    }
}
