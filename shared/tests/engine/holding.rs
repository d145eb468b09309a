//! Holding runs and letting them go on, in every state; and runs that wait cost nobody anything.
use runmill_shared::{
    domain::run::Waiting,
    error::Error,
    events::live::Order,
    services::{
        executions::{self, Execution},
        runs::{execution::Parked, sweep},
    },
    store::runs::{moves, sweep as rows},
};

use super::*;

async fn pause(w: &World, id: Uuid) -> Result<Execution, Error> {
    executions::pause(&w.app, &Caller::local(), id).await
}

async fn resume(w: &World, id: Uuid) -> Result<Execution, Error> {
    executions::resume(&w.app, &Caller::local(), id).await
}

fn paused() -> Waiting {
    Waiting::Paused { until: None }
}

fn code<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map(|_| ()).unwrap_err().code
}

/// What a worker does at a checkpoint.
async fn checkpoint(w: &World, run: &Claimed) -> bool {
    loop {
        let (seen, is_paused) = execution::holding(&w.app, run).await.unwrap();
        if !is_paused || execution::park(&w.app, run, seen, &paused(), Writes::default()).await.unwrap() == Parked::Yes {
            return is_paused;
        }
    }
}

#[tokio::test]
async fn a_ready_run_is_held_at_once_keeps_its_thread_and_goes_on_when_resumed() {
    for w in worlds().await {
        let (run, behind) = (w.accept("t", "a").await.id, w.accept("t", "behind").await.id);
        let held = pause(&w, run).await.unwrap().run;
        assert_eq!((held.state, held.waiting, held.paused), (RunState::Waiting, Some(paused()), true), "{}", w.name);
        assert_eq!(pause(&w, run).await.unwrap().run.state, RunState::Waiting, "asking twice changes nothing");
        assert_eq!(w.kinds(run).await, ["run.queued", "run.waiting"]);
        assert!(!w.is_ready(behind).await);
        w.later(w.app.config.runs.queue_timeout * 2);
        sweep::deadlines(&w.app).await.unwrap();
        assert_eq!(w.state(run).await, RunState::Waiting, "what is held is not queued for too long");
        assert_eq!(w.state(behind).await, RunState::Failed);
        assert_eq!(resume(&w, run).await.unwrap().run.state, RunState::Queued);
        sweep::deadlines(&w.app).await.unwrap();
        assert_eq!(code(resume(&w, run).await), "EXECUTION_NOT_PAUSED");
        let claimed = w.claim(run).await;
        assert!(!claimed.paused);
        w.check().await;
        w.finish(&claimed).await;
        for refused in [pause(&w, run).await, resume(&w, run).await, executions::cancel(&w.app, &Caller::local(), run).await] {
            let e = refused.map(|_| ()).unwrap_err();
            assert_eq!((e.code, e.message.contains("completed")), ("EXECUTION_ENDED", true));
        }
    }
}

#[tokio::test]
async fn a_run_that_is_executed_is_held_at_its_next_checkpoint_unless_it_was_resumed_before() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        assert!(!checkpoint(&w, &run).await, "{}", w.name);
        let mut orders = w.app.live.orders();
        assert_eq!(pause(&w, run.id).await.unwrap().run.state, RunState::Running);
        assert_eq!(orders.recv().await.unwrap(), Order::Look(run.id), "its worker is told");
        assert!(rows::still_mine(&w.app.db, claimer(&w, run.id).await).await.unwrap()[0].paused, "and finds it otherwise");
        // Between its look and its park somebody resumes it: the park is refused, and it goes on.
        let (seen, is_paused) = execution::holding(&w.app, &run).await.unwrap();
        assert!(is_paused);
        resume(&w, run.id).await.unwrap();
        let parked = execution::park(&w.app, &run, seen, &paused(), Writes::default()).await.unwrap();
        assert_eq!(parked, Parked::Woken(seen + 1));
        assert!(!checkpoint(&w, &run).await);
        pause(&w, run.id).await.unwrap();
        assert!(checkpoint(&w, &run).await);
        assert_eq!((w.state(run.id).await, w.column(run.id, "attempt").await), (RunState::Waiting, Some(0)));
        resume(&w, run.id).await.unwrap();
        let again = w.claim(run.id).await;
        w.finish(&again).await;
        w.check().await;
    }
}

async fn claimer(w: &World, id: Uuid) -> Uuid {
    query(sql("SELECT lease_owner FROM runs WHERE id = $1".into()))
        .bind(id)
        .one(&w.app.db)
        .await
        .unwrap()
        .get("lease_owner")
        .unwrap()
}

#[tokio::test]
async fn what_waits_for_something_else_goes_on_waiting_and_is_held_when_that_has_come() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let timer = Waiting::Timer { until: START.after(MINUTE) };
        execution::park(&w.app, &run, 0, &timer, Writes::default()).await.unwrap();
        pause(&w, run.id).await.unwrap();
        assert_eq!(w.run(run.id).await.waiting, Some(timer.clone()), "{}", w.name);
        let resumed = resume(&w, run.id).await.unwrap().run;
        assert_eq!((resumed.state, resumed.waiting), (RunState::Waiting, Some(timer)));
        pause(&w, run.id).await.unwrap();
        w.later(MINUTE);
        assert_eq!(sweep::due(&w.app).await.unwrap(), 1);
        let woken = w.claim(run.id).await;
        assert!(woken.paused && checkpoint(&w, &woken).await);
        assert_eq!(w.run(run.id).await.waiting, Some(paused()));
        // Something else wakes it: it is held again.
        let mut tx = w.tx().await;
        moves::wake(&mut tx, run.id, w.app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let woken = w.claim(run.id).await;
        assert!(checkpoint(&w, &woken).await);
        let cancelled = executions::cancel(&w.app, &Caller::local(), run.id).await.unwrap();
        assert_eq!(cancelled.run.state, RunState::Cancelled);
        w.check().await;
    }
}

#[tokio::test]
async fn a_run_behind_another_or_not_due_is_held_when_its_turn_comes() {
    for w in worlds().await {
        let (first, second) = (w.started("t", "a").await, w.accept("t", "b").await.id);
        let delayed =
            accept(&w.app, &owner(), &Work { run_at: Some(START.after(MINUTE)), ..work("u", "later") }).await.unwrap().id;
        for id in [second, delayed] {
            let marked = pause(&w, id).await.unwrap().run;
            assert_eq!((marked.state, marked.paused), (RunState::Queued, true), "{}", w.name);
        }
        w.finish(&first).await;
        w.later(MINUTE);
        sweep::due(&w.app).await.unwrap();
        for id in [second, delayed] {
            let run = w.claim(id).await;
            assert!(run.paused && checkpoint(&w, &run).await);
            resume(&w, id).await.unwrap();
            w.finish(&w.claim(id).await).await;
        }
        w.check().await;
    }
}

#[tokio::test]
async fn only_what_has_checkpoints_is_held_and_only_by_its_owner() {
    for w in worlds().await {
        for kind in RunKind::ALL {
            let name = kind.as_str();
            let id = accept(&w.app, &owner(), &Work { kind, ..work(name, name) }).await.unwrap().id;
            match kind.has_checkpoints() {
                true => assert!(pause(&w, id).await.unwrap().run.paused, "{}: {name}", w.name),
                false => assert_eq!(code(pause(&w, id).await), "EXECUTION_NOT_PAUSABLE", "{}: {name}", w.name),
            }
        }
        let id = w.accept("t", "a").await.id;
        let stranger = Caller::user(new_id(), runmill_shared::domain::caller::Role::Admin);
        assert_eq!(code(executions::pause(&w.app, &stranger, id).await), "RUN_NOT_FOUND");
        assert_eq!(code(executions::resume(&w.app, &stranger, id).await), "RUN_NOT_FOUND");
        assert_eq!(code(executions::cancel(&w.app, &stranger, id).await), "RUN_NOT_FOUND");
        assert_eq!(code(executions::retry(&w.app, &stranger, id, None).await), "RUN_NOT_FOUND");
        assert_eq!(w.state(id).await, RunState::Queued);
    }
}

#[tokio::test]
async fn what_is_tried_again_in_another_way_says_which() {
    for w in worlds().await {
        let goal = new_id();
        for (kind, input, way) in [
            (RunKind::Task, json!({ "task_id": goal }), format!("/tasks/{goal}/retry")),
            (RunKind::Goal, json!({ "goal_id": goal }), format!("/goals/{goal}/execute-async")),
            (RunKind::GoalPlan, json!({ "goal_id": goal }), format!("/goals/{goal}/decompose")),
        ] {
            let name = kind.as_str();
            let id = accept(&w.app, &owner(), &Work { kind, input: input.to_string(), ..work(name, name) }).await.unwrap().id;
            assert_eq!(code(executions::retry(&w.app, &Caller::local(), id, None).await), "RUN_NOT_ENDED");
            control::end(&w.app, id, "x").await.unwrap();
            let e = executions::retry(&w.app, &Caller::local(), id, None).await.unwrap_err();
            assert!(e.code == "EXECUTION_NOT_RETRYABLE" && e.message.contains(&way), "{}: {}", w.name, e.message);
        }
        let id = accept(&w.app, &owner(), &Work { kind: RunKind::Delivery, ..work("d", "d") }).await.unwrap().id;
        control::end(&w.app, id, "x").await.unwrap();
        assert!(executions::retry(&w.app, &Caller::local(), id, None).await.is_ok());
    }
}

/// Holding and letting go at random while workers look, park and wake: in the end nobody is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_resume_is_lost_however_look_park_and_resume_fall() {
    for w in worlds().await {
        for n in 0..20 {
            let run = w.started(&format!("t{n}"), &format!("r{n}")).await;
            let held = async {
                for _ in 0..3 {
                    checkpoint(&w, &run).await;
                    if w.state(run.id).await != RunState::Running {
                        return;
                    }
                }
            };
            let wished = async {
                pause(&w, run.id).await.unwrap();
                resume(&w, run.id).await.unwrap();
            };
            futures::join!(held, wished);
            let run = match w.state(run.id).await {
                RunState::Queued => w.claim(run.id).await,
                state => {
                    assert_eq!(state, RunState::Running, "{}: it waits, and nobody holds it", w.name);
                    run
                }
            };
            w.finish(&run).await;
        }
        w.check().await;
    }
}

#[tokio::test]
async fn runs_that_wait_have_no_lease_and_are_in_no_sweep() {
    for w in worlds().await {
        let waiting = Waiting::Approval { approvals: vec![new_id()], until: Some(START.after(MINUTE * 60)) };
        let session = w.session().await;
        for n in 0..300 {
            let id = w.accept(&format!("t{n}"), &format!("r{n}")).await.id;
            let run = w.try_claim(id, session).await.unwrap();
            execution::park(&w.app, &run, 0, &waiting, Writes::default()).await.unwrap();
        }
        assert_eq!(
            w.count("runs WHERE state = 'waiting' AND lease_owner IS NULL AND run_deadline IS NULL").await,
            300,
            "{}",
            w.name
        );
        assert!(rows::still_mine(&w.app.db, session).await.unwrap().is_empty());
        w.later(MINUTE);
        let swept =
            [sweep::due(&w.app).await, sweep::deadlines(&w.app).await, sweep::strays(&w.app).await, sweep::notices(&w.app).await];
        assert!(swept.into_iter().all(|n| n.unwrap() == 0), "{}", w.name);
        assert_eq!(sweep::lost_hints(&w.app, runmill_shared::domain::Lane::Runs).await.unwrap(), 0);
        let active = w.started("active", "active").await;
        w.finish(&active).await;
        w.check().await;
    }
}
