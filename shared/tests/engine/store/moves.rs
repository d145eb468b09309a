use runmill_shared::{
    domain::run::{RunError, Waiting},
    store::runs::{Fenced, moves},
};

use super::{super::*, NASTY};

fn fenced(run: &Claimed) -> Fenced {
    Fenced { id: run.id, fence: run.fence }
}

fn children() -> Waiting {
    Waiting::Children { runs: vec![new_id()], until: None }
}

#[tokio::test]
async fn a_claim_takes_a_ready_run_once_and_counts_its_fence() {
    for w in worlds().await {
        let (a, b) = (w.accept("t", "a").await.id, w.accept("t", "b").await.id);
        let session = w.session().await;
        let claimed = moves::claim(&w.app.db, &[Claim { run: a, session }], START.after(MINUTE)).await.unwrap().pop().unwrap();
        assert_eq!((claimed.fence, claimed.attempt, claimed.wake_seq, claimed.root_run_id), (1, 0, 0, a), "{}", w.name);
        assert_eq!((claimed.thread.as_str(), claimed.external_id.as_str(), claimed.ready_at), ("t", "a", START));
        assert_eq!(claimed.run_deadline, START.after(MINUTE).after(w.app.config.runs.run_timeout));
        assert!(
            moves::claim(&w.app.db, &[Claim { run: a, session }], START).await.unwrap().pop().is_none(),
            "it is claimed already"
        );
        assert!(
            moves::claim(&w.app.db, &[Claim { run: b, session }], START).await.unwrap().pop().is_none(),
            "it waits behind another"
        );
        assert!(moves::claim(&w.app.db, &[Claim { run: new_id(), session }], START).await.unwrap().pop().is_none());
        assert_eq!(w.column(a, "queue_deadline").await, None);
        let (c, expired) = (w.accept("u", "c").await.id, new_id());
        runmill_shared::store::sessions::open(&w.app.db, expired, "w", START, START.after(MINUTE)).await.unwrap();
        for nobody in [expired, new_id()] {
            assert!(
                moves::claim(&w.app.db, &[Claim { run: c, session: nobody }], START.after(MINUTE)).await.unwrap().pop().is_none(),
                "no live session"
            );
        }
        assert!(w.is_ready(c).await);
    }
}

#[tokio::test]
async fn the_fence_and_the_state_guard_every_write_of_an_execution() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let stale = Claimed { fence: run.fence - 1, ..run.clone() };
        let error = RunError::new("X", NASTY, true);
        let result = json!({ "text": NASTY });
        let end = End::succeeded(result.clone());
        let mut tx = w.tx().await;
        assert!(!moves::hold(&mut tx, run.id, stale.fence).await.unwrap(), "{}", w.name);
        assert!(moves::hold(&mut tx, run.id, run.fence).await.unwrap());
        assert!(!moves::park(&mut tx, &stale, 0, &children(), START).await.unwrap());
        assert!(!moves::park(&mut tx, &run, 1, &children(), START).await.unwrap(), "another wake_seq than the row's");
        assert!(!moves::back_off(&mut tx, &stale, START, &error, START).await.unwrap());
        assert!(moves::end(&mut tx, &[(fenced(&stale), &end)], START).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert!(moves::release(&w.app.db, run.id, stale.fence, START).await.unwrap().is_none());
        assert_eq!(moves::wake_seq(&w.app.db, run.id, stale.fence).await.unwrap(), None);
        assert_eq!(w.state(run.id).await, RunState::Running);
        let mut tx = w.tx().await;
        let both = [(fenced(&stale), &end), (fenced(&run), &end)];
        assert_eq!(moves::end(&mut tx, &both, START).await.unwrap(), [run.id]);
        assert!(moves::end(&mut tx, &both, START).await.unwrap().is_empty());
        assert!(!moves::hold(&mut tx, run.id, run.fence).await.unwrap());
        assert!(!moves::end_from_outside(&mut tx, run.id, &End::failed(error), START).await.unwrap());
        assert!(moves::wake(&mut tx, run.id, START).await.unwrap().is_none());
        assert!(moves::make_ready(&mut tx, &[run.id], START).await.unwrap().is_empty());
        assert!(!moves::join_order(&mut tx, run.id, 9).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(w.run(run.id).await.result, Some(result));
    }
}

#[tokio::test]
async fn many_are_held_at_once_and_each_by_its_own_fence() {
    for w in worlds().await {
        let mut held = Vec::new();
        for n in 0..100 {
            let run = w.started(&format!("t{n}"), &format!("r{n}")).await;
            held.push(Fenced { id: run.id, fence: run.fence + i64::from(n % 3 == 0) });
        }
        held.push(Fenced { id: new_id(), fence: 1 });
        let old_and_new = Fenced { fence: 7, ..held[1] };
        held.push(old_and_new);
        let mut tx = w.tx().await;
        let mine = moves::hold_many(&mut tx, &held).await.unwrap();
        assert_eq!(mine.len(), 66, "{}", w.name);
        assert!(mine.iter().all(|h| h.fence == 1) && mine.contains(&held[1]) && !mine.contains(&old_and_new));
        assert!(moves::hold_many(&mut tx, &[]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_wake_counts_in_every_live_state_and_moves_only_a_waiting_run() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let behind = w.accept("t", "b").await.id;
        let mut tx = w.tx().await;
        assert!(moves::wake(&mut tx, run.id, START).await.unwrap().is_none(), "{}: it runs", w.name);
        assert!(moves::wake(&mut tx, behind, START).await.unwrap().is_none(), "it waits for its thread and not for a wake");
        assert!(!moves::park(&mut tx, &run, 0, &children(), START).await.unwrap(), "the wake came first");
        assert!(moves::park(&mut tx, &run, 1, &children(), START.after(MINUTE)).await.unwrap());
        let ready = moves::wake(&mut tx, run.id, START.after(MINUTE * 2)).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!((ready.id, ready.score), (run.id, START.after(MINUTE * 2).0));
        assert_eq!(w.column(run.id, "wake_seq").await, Some(2));
        assert_eq!(w.column(behind, "wake_seq").await, Some(1));
        assert!(!w.is_ready(behind).await);
        let again = w.claim(run.id).await;
        assert_eq!((again.fence, again.wake_seq), (run.fence + 2, 2));
        // Waiting is not counted as running.
        let left = w.app.config.runs.run_timeout - MINUTE;
        assert_eq!(again.run_deadline, w.app.clock.now().after(left));
    }
}

#[tokio::test]
async fn release_keeps_the_place_and_backoff_and_priority_set_it() {
    for w in worlds().await {
        let high = Work { priority: Priority::High, ..work("t", "a") };
        let id = accept(&w.app, &owner(), &high).await.unwrap().id;
        let run = w.claim(id).await;
        assert_eq!(run.ready_at, START, "{}: the bonus is not part of the time", w.name);
        let score = Priority::score(1, START);
        let ready = moves::release(&w.app.db, id, run.fence, START.after(MINUTE)).await.unwrap().unwrap();
        assert_eq!((ready.score, w.column(id, "dispatch_score").await), (score, Some(score)));
        let run = w.claim(id).await;
        let mut tx = w.tx().await;
        let error = RunError::new("X", "x", true);
        assert!(moves::back_off(&mut tx, &run, START.after(MINUTE), &error, START).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!w.is_ready(id).await);
        assert_eq!((w.run(id).await.attempt, w.run(id).await.error), (1, Some(error)));
        let mut tx = w.tx().await;
        let ready = moves::make_ready(&mut tx, &[id], START.after(MINUTE)).await.unwrap().pop().unwrap();
        assert_eq!(ready.score, Priority::score(1, START.after(MINUTE)));
    }
}
