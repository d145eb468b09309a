use runmill_shared::{domain::Lane, store::runs::sweep};

use super::super::*;

async fn ready(w: &World, n: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..n {
        ids.push(w.accept(&format!("t{n}"), &format!("r{n}")).await.id);
        w.later(Duration::from_millis(1));
    }
    ids
}

#[tokio::test]
async fn lost_hints_are_old_stand_before_the_queues_first_and_come_in_batches() {
    for w in worlds().await {
        let ids = ready(&w, 6).await;
        let lost = async |lane, below, hinted_before, batch| -> Vec<Uuid> {
            let now = w.app.clock.now();
            let mut rows = sweep::lost_hints(&w.app.db, lane, below, now, hinted_before, batch).await.unwrap();
            rows.sort_by_key(|r| r.score);
            rows.into_iter().map(|r| r.id).collect()
        };
        let now = w.app.clock.now();
        assert!(lost(Lane::Bulk, i64::MAX, now, 10).await.is_empty(), "{}: another lane", w.name);
        assert!(lost(Lane::Runs, i64::MAX, START, 10).await.is_empty(), "hinted just now");
        let third = w.column(ids[2], "dispatch_score").await.unwrap();
        assert_eq!(lost(Lane::Runs, third, now, 10).await, ids[..2]);
        assert_eq!(lost(Lane::Runs, i64::MAX, now, 3).await, ids[2..5], "those were hinted again");
        w.claim(ids[5]).await;
        assert!(lost(Lane::Runs, i64::MAX, now, 10).await.is_empty());
    }
}

#[tokio::test]
async fn lanes_are_counted_up_to_a_limit_and_know_their_oldest() {
    for w in worlds().await {
        let ids = ready(&w, 5).await;
        w.accept("t0", "behind").await;
        let depth = |lane, most| sweep::depth(&w.app.db, lane, most);
        assert_eq!(depth(Lane::Runs, 100).await.unwrap(), 6, "{}", w.name);
        assert_eq!((depth(Lane::Runs, 4).await.unwrap(), depth(Lane::Media, 4).await.unwrap()), (4, 0));
        w.claim(ids[0]).await;
        assert_eq!(depth(Lane::Runs, 100).await.unwrap(), 5);
        assert_eq!(sweep::oldest(&w.app.db, Lane::Runs).await.unwrap(), Some(START.after(Duration::from_millis(1))));
        assert_eq!(sweep::oldest(&w.app.db, Lane::Media).await.unwrap(), None);
        let first: Vec<_> = sweep::ready(&w.app.db, Lane::Runs, 2).await.unwrap().into_iter().map(|r| r.id).collect();
        assert_eq!(first, ids[1..3], "in the order of the queue, without what waits behind another");
    }
}

#[tokio::test]
async fn what_a_session_held_goes_back_in_batches() {
    for w in worlds().await {
        let (dead, live) = (w.session().await, w.session().await);
        let ids = ready(&w, 6).await;
        for (n, id) in ids.iter().enumerate() {
            w.try_claim(*id, if n < 5 { dead } else { live }).await.unwrap();
        }
        assert_eq!(sweep::still_mine(&w.app.db, dead).await.unwrap().len(), 5, "{}", w.name);
        let take = || sweep::orphaned(&w.app.db, dead, w.app.clock.now(), 3);
        let sizes = [take().await.unwrap().len(), take().await.unwrap().len(), take().await.unwrap().len()];
        assert_eq!(sizes, [3, 2, 0]);
        for id in &ids[..5] {
            assert!(w.is_ready(*id).await);
            assert_eq!((w.column(*id, "fence").await, w.column(*id, "crashes").await), (Some(2), Some(1)));
        }
        assert_eq!(w.state(ids[5]).await, RunState::Running);
        assert_eq!(sweep::still_mine(&w.app.db, live).await.unwrap()[0].held.id, ids[5]);
    }
}

#[tokio::test]
async fn ended_runs_and_old_keys_are_forgotten_in_batches_with_all_that_hangs_on_them() {
    for w in worlds().await {
        for n in 0..4 {
            let keyed = Work { idempotency_key: Some(format!("k{n}")), ..work(&format!("t{n}"), &format!("r{n}")) };
            let id = accept(&w.app, &owner(), &keyed).await.unwrap().id;
            if n > 0 {
                let run = w.claim(id).await;
                step(&w.app, &run).await;
                w.finish(&run).await;
            }
        }
        let later = START.after(MINUTE);
        assert_eq!(w.count("run_steps").await, 3);
        assert_eq!(sweep::forget_runs(&w.app.db, START, 10).await.unwrap(), 0, "{}", w.name);
        assert_eq!(sweep::forget_runs(&w.app.db, later, 2).await.unwrap(), 2);
        assert_eq!(sweep::forget_runs(&w.app.db, later, 10).await.unwrap(), 1, "one has not ended");
        assert_eq!((w.count("runs").await, w.count("idempotency_keys").await, w.count("run_steps").await), (1, 1, 0));
        assert_eq!(sweep::forget_keys(&w.app.db, START, 10).await.unwrap(), 0);
        assert_eq!(sweep::forget_keys(&w.app.db, later, 10).await.unwrap(), 1);
        assert_eq!((w.count("runs").await, w.count("idempotency_keys").await), (1, 0));
    }
}
