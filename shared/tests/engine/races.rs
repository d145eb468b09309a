//! Many at once on one row: one wins, and the rest are told.
use futures::future::join_all;
use runmill_shared::store::runs::Fenced;

use super::*;

#[tokio::test]
async fn of_twenty_claimers_one_wins() {
    for w in worlds().await {
        for n in 0..5 {
            let id = w.accept(&format!("t{n}"), &format!("r{n}")).await.id;
            let sessions = join_all((0..20).map(|_| w.session())).await;
            let claims = join_all(sessions.into_iter().map(|session| w.try_claim(id, session))).await;
            assert_eq!(claims.into_iter().filter(|c| c.is_some()).count(), 1, "{}", w.name);
            assert_eq!(w.column(id, "fence").await, Some(1));
        }
    }
}

#[tokio::test]
async fn ends_hand_the_thread_on_in_order_while_more_is_accepted() {
    for w in worlds().await {
        for n in 0..10 {
            w.accept("t", &format!("r{n}")).await;
        }
        let thread = w.thread_of(w.accept("t", "r0").await.id).await;
        let more = async {
            for n in 10..20 {
                w.accept("t", &format!("r{n}")).await;
            }
        };
        let ended = async {
            let mut order = Vec::new();
            while order.len() < 20 {
                let head = "runs WHERE ready";
                until("a run is ready", async || w.count(head).await == 1).await;
                let id: Uuid =
                    query(sql("SELECT id FROM runs WHERE ready".into())).one(&w.app.db).await.unwrap().get("id").unwrap();
                let run = w.claim(id).await;
                order.push(w.column(id, "thread_order").await.unwrap());
                w.finish(&run).await;
            }
            order
        };
        let (order, ()) = tokio::join!(ended, more);
        assert_eq!(order, (1..=20).collect::<Vec<_>>(), "{}", w.name);
        assert_eq!(w.log(thread).await.len(), 40);
        w.check().await;
    }
}

#[tokio::test]
async fn an_end_and_a_cancel_at_once_are_one_end() {
    for w in worlds().await {
        for n in 0..20 {
            let (run, me) = (w.started("t", &format!("r{n}")).await, Caller::local());
            let (ended, cancelled) = tokio::join!(finish(&w.app, &run), control::cancel(&w.app, &me, run.id));
            let expected = if ended.is_ok() { RunState::Succeeded } else { RunState::Cancelled };
            assert_eq!(cancelled.unwrap().state, expected, "{}", w.name);
            let kinds = w.kinds(run.id).await;
            assert_eq!(kinds.len(), 2, "one terminal event: {kinds:?}");
        }
        w.check().await;
    }
}

#[tokio::test]
async fn accepts_that_interrupt_each_other_leave_one_active() {
    for w in worlds().await {
        let all: Vec<_> = (0..20)
            .map(|n| {
                let multitask = if n % 2 == 0 { Multitask::Interrupt } else { Multitask::Rollback };
                Work { multitask, ..work("t", &format!("r{n}")) }
            })
            .collect();
        let me = owner();
        for answer in join_all(all.iter().map(|work| accept(&w.app, &me, work))).await {
            answer.unwrap();
        }
        assert_eq!(
            (w.count("runs WHERE state = 'queued'").await, w.count("runs WHERE state = 'cancelled'").await),
            (1, 19),
            "{}",
            w.name
        );
        w.check().await;
    }
}

#[tokio::test]
async fn a_run_that_was_lost_and_claimed_again_may_be_in_one_flush_twice() {
    for w in worlds().await {
        let old = w.started("t", "a").await;
        execution::release(&w.app, &old).await.unwrap();
        let new = w.claim(old.id).await;
        let units = vec![unit(&old, vec![delta("old")]), unit(&new, vec![delta("new")])];
        let flushed = tokio::time::timeout(LIMIT, execution::flush(&w.app, units, &mut execution::Doubt::default()))
            .await
            .expect("it ends");
        assert_eq!(flushed.unwrap(), [Fenced { id: old.id, fence: old.fence }], "{}", w.name);
        assert_eq!(w.log(old.thread_id).await[1].data["delta"], "new");
        w.check().await;
    }
}

/// Requests that go away while they wait, begin, write or commit: the next one must find a connection that works.
#[tokio::test]
async fn a_request_that_goes_away_at_any_moment_breaks_nothing() {
    for w in worlds().await {
        let me = owner();
        for polls in 0..120 {
            let work = work("t", &format!("gone{polls}"));
            let mut asked = Box::pin(accept(&w.app, &me, &work));
            for _ in 0..polls {
                if futures::poll!(&mut asked).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(asked);
        }
        let all: Vec<_> = (0..10).map(|n| self::work("t", &format!("r{n}"))).collect();
        for answer in join_all(all.iter().map(|work| accept(&w.app, &me, work))).await {
            answer.unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
        w.check().await;
    }
}
