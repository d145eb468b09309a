//! Parking and waking: no wake is lost, whoever comes first.
use futures::future::join_all;
use runmill_shared::{
    domain::run::Waiting,
    services::runs::{execution::Parked, sweep},
    store::{
        outbox::{self, Notice, NoticeKind},
        runs::moves,
    },
};

use super::{cancel::start_child, *};

async fn all_ended(app: &App, children: &[Uuid]) -> bool {
    execution::outcomes(app, children).await.unwrap().iter().all(|o| o.state.is_ended())
}

#[tokio::test]
async fn a_child_that_ends_between_look_and_park_is_noticed() {
    for w in worlds().await {
        let parent = w.started("t", "parent").await;
        let child = start_child(&w, &parent).await;
        let run = w.claim(child).await;
        assert!(!all_ended(&w.app, &[child]).await);
        w.finish(&run).await;
        until("the wake is applied", async || w.count("outbox").await == 0).await;
        let waiting = Waiting::Children { runs: vec![child], until: None };
        let writes = Writes { events: vec![delta("before")], ..Writes::default() };
        let parked = execution::park(&w.app, &parent, parent.wake_seq, &waiting, writes).await.unwrap();
        assert_eq!(parked, Parked::Woken(parent.wake_seq + 1), "{}", w.name);
        assert_eq!(w.kinds(parent.id).await, ["run.queued"], "what was not parked wrote nothing");
        assert_eq!(w.state(parent.id).await, RunState::Running);
        let stale = Claimed { fence: 0, ..parent.clone() };
        let lost = execution::park(&w.app, &stale, 0, &waiting, Writes::default()).await.unwrap_err();
        assert_eq!(lost.code, execution::LOST);
        w.check().await;
    }
}

#[tokio::test]
async fn a_child_that_ends_after_the_park_wakes_its_parent_which_keeps_its_thread() {
    for w in worlds().await {
        let parent = w.started("t", "parent").await;
        let child = start_child(&w, &parent).await;
        let behind = w.accept("t", "behind").await.id;
        let waiting = Waiting::Children { runs: vec![child], until: None };
        assert_eq!(execution::park(&w.app, &parent, 0, &waiting, Writes::default()).await.unwrap(), Parked::Yes);
        assert_eq!(w.run(parent.id).await.waiting, Some(waiting), "{}", w.name);
        assert!(!w.is_ready(behind).await, "a waiting run keeps its thread");
        let child = w.claim(child).await;
        w.finish(&child).await;
        until("the parent is ready", async || w.is_ready(parent.id).await).await;
        let again = w.claim(parent.id).await;
        assert_eq!((again.attempt, again.wake_seq), (0, 1));
        w.finish(&again).await;
        assert!(w.is_ready(behind).await);
        w.check().await;
    }
}

#[tokio::test]
async fn a_notice_is_applied_once_by_however_many_processes() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut tx = w.tx().await;
        let notice = Notice::new(run.id, NoticeKind::Wake, "x");
        let gone = Notice::new(new_id(), NoticeKind::Cancel, "x");
        outbox::send(&mut tx, &[notice.clone(), gone.clone()], START).await.unwrap();
        tx.commit().await.unwrap();
        let applied = join_all((0..10).map(|_| sweep::apply_notice(&w.app, &notice))).await;
        assert_eq!(applied.into_iter().filter(|a| *a.as_ref().unwrap()).count(), 1, "{}", w.name);
        assert_eq!(w.column(run.id, "wake_seq").await, Some(1));
        assert!(sweep::apply_notice(&w.app, &gone).await.unwrap(), "a notice to nobody is done with");
        assert_eq!(sweep::notices(&w.app).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_notice_that_cannot_be_applied_does_not_hold_up_the_others() {
    for w in worlds().await {
        let (broken, waiting) = (w.accept("t", "broken").await.id, w.started("u", "waiting").await);
        execution::park(&w.app, &waiting, 0, &Waiting::Children { runs: vec![], until: None }, Writes::default()).await.unwrap();
        w.execute("UPDATE runs SET kind = 'from a newer release' WHERE external_id = 'broken'").await;
        let mut tx = w.tx().await;
        let notices = [Notice::new(broken, NoticeKind::Cancel, "x"), Notice::new(waiting.id, NoticeKind::Wake, "x")];
        outbox::send(&mut tx, &notices, START).await.unwrap();
        tx.commit().await.unwrap();
        sweep::notices(&w.app).await.unwrap();
        assert!(w.is_ready(waiting.id).await, "{}", w.name);
        assert_eq!(w.count("outbox").await, 1);
    }
}

#[tokio::test]
async fn a_timer_wakes_when_it_is_time_and_counts_as_a_wake() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let waiting = Waiting::Timer { until: START.after(MINUTE) };
        execution::park(&w.app, &run, 0, &waiting, Writes::default()).await.unwrap();
        assert_eq!(sweep::due(&w.app).await.unwrap(), 0, "{}", w.name);
        w.later(MINUTE);
        assert_eq!((sweep::due(&w.app).await.unwrap(), sweep::due(&w.app).await.unwrap()), (1, 0));
        let again = w.claim(run.id).await;
        assert_eq!(again.wake_seq, 1);
        assert_eq!(again.run_deadline, w.app.clock.now().after(w.app.config.runs.run_timeout), "waiting costs no time");
        w.check().await;
    }
}

/// Parents look, then park, while their children end; half of them are woken by others too. Nobody is left waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_is_lost_however_look_park_and_wake_fall() {
    for w in worlds().await {
        let mut families = Vec::new();
        for n in 0..16 {
            let parent = w.started(&format!("t{n}"), &format!("p{n}")).await;
            let children = [start_child(&w, &parent).await, start_child(&w, &parent).await];
            families.push((parent, children));
        }
        let ended = families.iter().flat_map(|(_, children)| children).map(|child| async {
            let run = w.claim(*child).await;
            w.finish(&run).await;
        });
        let parents = families.iter().map(|(parent, children)| async {
            let mut seen = parent.wake_seq;
            let waiting = Waiting::Children { runs: children.to_vec(), until: None };
            while !all_ended(&w.app, children).await {
                match execution::park(&w.app, parent, seen, &waiting, Writes::default()).await.unwrap() {
                    Parked::Yes => return,
                    Parked::Woken(count) => seen = count,
                }
            }
            w.finish(parent).await;
        });
        let noise = families.iter().step_by(2).map(|(parent, _)| async {
            let mut tx = w.tx().await;
            moves::wake(&mut tx, parent.id, START).await.unwrap();
            tx.commit().await.unwrap();
        });
        tokio::join!(join_all(ended), join_all(parents), join_all(noise));
        until("every notice is applied", async || w.count("outbox").await == 0).await;
        for (parent, _) in &families {
            let row = w.run(parent.id).await;
            assert!(row.state.is_ended() || w.is_ready(parent.id).await, "{}: {:?}", w.name, row.state);
        }
        w.check().await;
    }
}
