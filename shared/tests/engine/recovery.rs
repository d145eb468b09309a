//! What the reconciler finds: backoffs, expired sessions, deadlines, lost hints, and what is past its retention.
use runmill_shared::{
    domain::{
        Lane,
        run::RunError,
        step::{StepKind, StepWrite},
    },
    services::{
        leases::{self, Beat},
        runs::sweep,
        stream::{self, Item},
    },
    store::sessions,
};

use super::*;

#[tokio::test]
async fn a_backoff_keeps_its_thread_and_is_ready_when_it_is_over() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let behind = w.accept("t", "b").await.id;
        let error = RunError::new("MODEL_UNAVAILABLE", "busy", true);
        execution::back_off(&w.app, &run, &error, MINUTE, Writes::default()).await.unwrap();
        let again = execution::back_off(&w.app, &run, &error, MINUTE, Writes::default()).await.unwrap_err();
        assert_eq!(again.code, execution::LOST, "{}", w.name);
        assert!(!w.is_ready(behind).await && !w.is_ready(run.id).await);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 0);
        w.later(MINUTE);
        assert_eq!((sweep::due(&w.app).await.unwrap(), sweep::due(&w.app).await.unwrap()), (1, 0));
        let again = w.claim(run.id).await;
        assert_eq!((again.attempt, again.ready_at), (1, w.app.clock.now()));
        assert_eq!(w.kinds(run.id).await, ["run.queued", "run.failed"]);
        w.finish(&again).await;
        assert_eq!(w.run(run.id).await.error, None);
        assert!(w.is_ready(behind).await);
        w.check().await;
    }
}

#[tokio::test]
async fn a_dead_workers_runs_go_back_and_poison_is_failed() {
    for w in worlds_with(|c| (c.runs.max_crashes, c.worker.batch) = (2, 3)).await {
        let mine = new_id();
        let mut ids = Vec::new();
        for n in 0..7 {
            ids.push(w.accept(&format!("t{n}"), &format!("r{n}")).await.id);
        }
        let behind = w.accept("t0", "behind").await.id;
        w.execute("UPDATE runs SET crashes = 2 WHERE external_id = 'r0'").await;
        let session = new_id();
        let now = w.app.clock.now();
        sessions::open(&w.app.db, session, "w", now, now.after(MINUTE)).await.unwrap();
        for id in &ids {
            w.try_claim(*id, session).await.unwrap();
        }
        assert_eq!(sweep::dead_workers(&w.app, mine).await.unwrap(), 0, "{}", w.name);
        w.later(MINUTE * 2);
        assert_eq!(sweep::dead_workers(&w.app, session).await.unwrap(), 0, "one's own is for others to expire");
        assert_eq!(sweep::dead_workers(&w.app, mine).await.unwrap(), 7);
        assert_eq!(w.count("worker_sessions").await, 0);
        assert_eq!(w.run(ids[0]).await.error.unwrap().code, "WORKER_LOST");
        assert_eq!(w.count("runs WHERE state = 'queued' AND ready").await, 7, "six went back, and one came next");
        assert!(w.is_ready(behind).await);
        w.check().await;
    }
}

#[tokio::test]
async fn a_worker_that_slept_through_its_expiry_claims_nothing() {
    for w in worlds().await {
        let (asleep, now) = (new_id(), w.app.clock.now());
        sessions::open(&w.app.db, asleep, "w", now, now.after(MINUTE)).await.unwrap();
        w.later(MINUTE * 2);
        let id = w.accept("t", "a").await.id;
        assert!(w.try_claim(id, asleep).await.is_none(), "{}: it has expired", w.name);
        sweep::dead_workers(&w.app, new_id()).await.unwrap();
        assert_eq!(w.count("worker_sessions").await, 0);
        assert!(w.try_claim(id, asleep).await.is_none(), "it is gone");
        assert!(w.is_ready(id).await);
    }
}

#[tokio::test]
async fn a_worker_whose_session_is_gone_loses_what_it_holds() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        w.execute("DELETE FROM worker_sessions").await;
        assert_eq!(sweep::dead_workers(&w.app, new_id()).await.unwrap(), 1, "{}", w.name);
        assert!(w.is_ready(run.id).await, "its session is gone, and the run is found all the same");
        assert_eq!(finish(&w.app, &run).await.unwrap_err().code, execution::LOST);
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    for w in worlds().await {
        let session = w.session().await;
        let (known, unknown) = (w.accept("t", "known").await.id, w.accept("u", "unknown").await.id);
        let others = w.started("v", "others").await;
        let mut expected = Vec::new();
        for id in [known, unknown] {
            let run = w.try_claim(id, session).await.unwrap();
            expected.push((id, run.fence));
        }
        let rows = execution::held_by(&w.app, session).await.unwrap();
        let mut held: Vec<_> = rows.into_iter().map(|row| (row.held.id, row.held.fence)).collect();
        held.sort_unstable();
        expected.sort_unstable();
        assert_eq!(held, expected, "{}", w.name);
        let fence = held.iter().find(|(id, _)| *id == unknown).unwrap().1;
        execution::disown(&w.app, unknown, fence - 1).await.unwrap();
        assert_eq!(w.state(unknown).await, RunState::Running, "another claim's fence gives nothing back");
        until("its first hint is there", async || w.app.queue.remove(Lane::Runs, unknown).await.unwrap()).await;
        execution::disown(&w.app, unknown, fence).await.unwrap();
        assert!(w.is_ready(unknown).await);
        assert!(w.app.queue.place(Lane::Runs, unknown).await.unwrap().is_some(), "and its hint is in the queue");
        assert_eq!(execution::held_by(&w.app, session).await.unwrap().len(), 1);
        let again = w.claim(unknown).await;
        execution::disown(&w.app, unknown, fence).await.unwrap();
        assert_eq!(w.state(unknown).await, RunState::Running, "it is another's now");
        assert_eq!((again.attempt, w.column(unknown, "crashes").await), (0, Some(0)), "it was nobody's fault");
        assert_eq!(w.state(others.id).await, RunState::Running);
        w.check().await;
    }
}

#[tokio::test]
async fn what_was_half_said_is_known_until_its_step_ends() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let flush = async |step| {
            let writes = Writes { steps: vec![step], ..Writes::default() };
            execution::flush(&w.app, vec![Unit { run: &run, writes }], &mut execution::Doubt::default()).await.unwrap()
        };
        assert_eq!(execution::open_message(&w.app, &run).await.unwrap(), None, "{}", w.name);
        let intent = json!({ "messageId": "m1" });
        flush(StepWrite::Start { key: "1".into(), ordinal: 1, kind: StepKind::Model, name: "m".into(), intent }).await;
        assert_eq!(execution::open_message(&w.app, &run).await.unwrap().as_deref(), Some("m1"));
        flush(StepWrite::Finish { key: "1".into(), result: json!("said") }).await;
        assert_eq!(execution::open_message(&w.app, &run).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_lease_is_good_while_it_beats_and_alone_on_sqlite() {
    for mut w in worlds().await {
        w.app.clock = Clock::real();
        let first = leases::open(&w.app).await.unwrap();
        let second = leases::open(&w.app).await.unwrap();
        let live = w.live_sessions(w.app.clock.now()).await;
        if !w.app.db.is_postgres() {
            assert_eq!(live, 1, "the data directory is locked, so whoever came before is dead");
            continue;
        }
        assert_eq!(live, 2);
        let mut connection = None;
        leases::give_up(&w.app, first).await.unwrap();
        assert_eq!(leases::beat(&w.app, &mut connection, first).await.unwrap(), Beat::Lost);
        assert!(connection.is_some(), "it is kept for the next beat");
        assert!(matches!(leases::beat(&w.app, &mut connection, second).await.unwrap(), Beat::Renewed(at) if at > START));
    }
}

#[tokio::test]
async fn a_drained_run_keeps_its_place() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let score = w.column(run.id, "dispatch_score").await;
        w.later(MINUTE);
        let younger = w.accept("u", "b").await.id;
        execution::release(&w.app, &run).await.unwrap();
        assert_eq!(execution::release(&w.app, &run).await.unwrap_err().code, execution::LOST, "{}", w.name);
        assert_eq!(w.column(run.id, "dispatch_score").await, score);
        until("both have hints", async || w.app.queue.place(Lane::Runs, younger).await.unwrap() == Some(1)).await;
        let again = w.claim(run.id).await;
        assert_eq!((again.attempt, again.fence), (0, run.fence + 2));
        let left = w.app.config.runs.run_timeout - MINUTE;
        assert_eq!(again.run_deadline, w.app.clock.now().after(left), "the time it ran is counted");
        w.check().await;
    }
}

#[tokio::test]
async fn runs_fail_when_their_time_is_up() {
    for w in worlds_with(|c| (c.runs.queue_timeout, c.runs.run_timeout) = (MINUTE * 10, MINUTE * 5)).await {
        let running = w.started("t", "a").await;
        let behind = w.accept("t", "b").await.id;
        let delayed = Work { run_at: Some(START.after(MINUTE * 60)), ..work("u", "late") };
        let delayed = accept(&w.app, &owner(), &delayed).await.unwrap().id;
        w.later(MINUTE * 5 + Duration::from_secs(1));
        assert_eq!(sweep::deadlines(&w.app).await.unwrap(), 0, "{}: its worker has the first word", w.name);
        w.later(MINUTE);
        assert_eq!(sweep::deadlines(&w.app).await.unwrap(), 1);
        assert_eq!(w.run(running.id).await.error.unwrap().code, "RUN_TIMEOUT");
        assert!(w.is_ready(behind).await);
        w.later(MINUTE * 5);
        assert_eq!(sweep::deadlines(&w.app).await.unwrap(), 1);
        assert_eq!(w.run(behind).await.error.unwrap().code, "QUEUE_TIMEOUT");
        assert_eq!(w.state(delayed).await, RunState::Queued, "its time counts from when it is due");
        assert_eq!(sweep::deadlines(&w.app).await.unwrap(), 0);
        w.check().await;
    }
}

#[tokio::test]
async fn lost_hints_are_pushed_again() {
    for w in worlds().await {
        let (a, b) = (w.accept("t", "a").await.id, w.accept("u", "b").await.id);
        let depth = async |n| w.app.queue.depth(Lane::Runs).await.unwrap() == n;
        until("both are hinted", async || depth(2).await).await;
        for id in [a, b] {
            assert!(w.app.queue.remove(Lane::Runs, id).await.unwrap(), "{}", w.name);
        }
        assert_eq!(sweep::lost_hints(&w.app, Lane::Runs).await.unwrap(), 0, "they may be on their way");
        w.later(Duration::from_secs(3));
        assert_eq!(sweep::lost_hints(&w.app, Lane::Runs).await.unwrap(), 2);
        assert!(depth(2).await);
        assert_eq!(sweep::lost_hints(&w.app, Lane::Runs).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_past_its_retention_goes_and_a_reader_is_told_of_the_gap() {
    for w in worlds().await {
        let old = w.started("t", "old").await;
        w.finish(&old).await;
        w.later(w.app.config.runs.retention + MINUTE);
        let keyed = Work { idempotency_key: Some("k".into()), ..work("t", "new") };
        let new = accept(&w.app, &owner(), &keyed).await.unwrap().id;
        let new = w.claim(new).await;
        assert!(sweep::retention(&w.app).await.unwrap() > 0, "{}", w.name);
        assert_eq!(w.count("runs").await, 1);
        w.finish(&new).await;
        let mut follow = stream::follow(&w.app, &Caller::local(), "t", stream::From::After(0)).await.unwrap();
        assert_eq!(follow.next().await.unwrap(), Some(Item::Gap { from: 1, to: 2 }));
        assert_eq!(follow.cursor(), 2);
        for seq in [3, 4] {
            let Some(Item::Event(event)) = follow.next().await.unwrap() else { panic!("an event is next") };
            assert_eq!(event.seq, seq);
        }
        assert_eq!(follow.next().await.unwrap(), None);
        w.later(w.app.config.runs.retention + MINUTE);
        while sweep::retention(&w.app).await.unwrap() > 0 {}
        assert_eq!((w.count("run_events").await, w.count("idempotency_keys").await), (0, 0));
        let mut follow = stream::follow(&w.app, &Caller::local(), "t", stream::From::After(1)).await.unwrap();
        assert_eq!(
            follow.next().await.unwrap(),
            Some(Item::Gap { from: 2, to: 4 }),
            "with nothing left, the gap is all there is"
        );
        assert_eq!(follow.next().await.unwrap(), None);
        w.check().await;
    }
}
