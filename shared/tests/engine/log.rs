//! The event log under concurrent writers, and its readers.
use std::collections::HashSet;

use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use runmill_shared::{
    error::ErrorKind,
    services::stream::{self, From, Item},
    store::{
        runs::Fenced,
        threads::{self, Advance},
    },
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_flushes_leave_no_hole_no_double_and_nothing_of_the_lost() {
    for w in worlds().await {
        let mut runs = Vec::new();
        for n in 0..12 {
            let run = w.started(&format!("t{n}"), &format!("r{n}")).await;
            runs.push(Claimed { fence: run.fence - 1, ..run.clone() });
            runs.push(run);
        }
        let flushers = (0..5).map(|flusher| {
            let (w, runs) = (&w, &runs);
            async move {
                let mut rng = StdRng::seed_from_u64(flusher);
                let (mut kept, mut lost) = (Vec::new(), Vec::new());
                for round in 0..12 {
                    let mut units = Vec::new();
                    for run in runs.choose_multiple(&mut rng, 7) {
                        let text = |n| format!("{flusher}/{round}/{}/{}/{n}", run.id, run.fence);
                        let texts: Vec<_> = (0..rng.random_range(1..4)).map(text).collect();
                        units.push((run, texts));
                    }
                    let events = |texts: &[String]| texts.iter().map(|t| delta(t)).collect();
                    let asked = units.iter().map(|(run, texts)| unit(run, events(texts))).collect();
                    let refused = execution::flush(&w.app, asked).await.unwrap();
                    for (run, texts) in units {
                        let is_lost = refused.contains(&Fenced { id: run.id, fence: run.fence });
                        if is_lost { lost.extend(texts) } else { kept.extend(texts) }
                    }
                }
                (kept, lost)
            }
        });
        let others = (0..24).map(|n| {
            let w = &w;
            async move { w.accept(&format!("t{}", n % 12), &format!("more{n}")).await }
        });
        let (flushed, _) = tokio::join!(join_all(flushers), join_all(others));
        let mut stored = HashSet::new();
        for run in &runs {
            for event in w.log(run.thread_id).await.into_iter().filter(|_| run.fence > 0) {
                if let Some(text) = event.data["delta"].as_str() {
                    assert!(stored.insert(text.to_owned()), "{}: {text} is there twice", w.name);
                }
            }
        }
        let kept: HashSet<_> = flushed.iter().flat_map(|(kept, _)| kept.clone()).collect();
        assert!(flushed.iter().all(|(_, lost)| !lost.is_empty()));
        assert_eq!(stored, kept, "{}", w.name);
        w.check().await;
    }
}

/// Everything a reader gets until its stream ends.
async fn read(app: &App, from: From, seed: u64) -> Vec<i64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut follow = stream::follow(app, &Caller::local(), "t", from).await.unwrap();
    let mut seen = Vec::new();
    loop {
        // A reader may be asked and not waited for, at any await.
        if rng.random_bool(0.3) {
            let mut asked = Box::pin(follow.next());
            for _ in 0..rng.random_range(0..3) {
                if let std::task::Poll::Ready(item) = futures::poll!(&mut asked) {
                    match item.unwrap() {
                        Some(Item::Event(event)) => seen.push(event.seq),
                        other => return ended(seen, other.as_ref()),
                    }
                    break;
                }
                tokio::task::yield_now().await;
            }
            continue;
        }
        match tokio::time::timeout(LIMIT, follow.next()).await.expect("more, or the end").unwrap() {
            Some(Item::Event(event)) => seen.push(event.seq),
            other => return ended(seen, other.as_ref()),
        }
        while rng.random_bool(0.5)
            && let Some(event) = follow.try_next()
        {
            seen.push(event.seq);
        }
    }
}

fn ended(seen: Vec<i64>, item: Option<&Item>) -> Vec<i64> {
    assert_eq!(item, None, "nothing is past retention here");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_start_anywhere_get_the_rest_of_the_log_once() {
    for w in worlds_with(|c| (c.events.buffer, c.events.page) = (2, 7)).await {
        let run = w.started("t", "a").await;
        let writer = async {
            let mut rng = StdRng::seed_from_u64(7);
            for _ in 0..60 {
                let events = (0..rng.random_range(1..5)).map(|n| delta(&format!("{n}"))).collect();
                assert_eq!(execution::flush(&w.app, vec![unit(&run, events)]).await.unwrap(), []);
            }
            w.finish(&run).await;
        };
        let readers = (0..8).map(|n| {
            let (w, thread) = (&w, run.thread_id);
            async move {
                let after = [0, 0, 1, 3, 10, 25, 40, 55][n];
                until("the log is that long", async || {
                    threads::head(&w.app.db, thread).await.unwrap().unwrap().last_seq >= after
                })
                .await;
                let from = if n == 0 { From::Natural } else { From::After(after) };
                (after, read(&w.app, from, n as u64).await)
            }
        });
        let ((), read) = tokio::join!(writer, join_all(readers));
        let last = w.log(run.thread_id).await.last().unwrap().seq;
        for (after, seen) in read {
            assert_eq!(seen, (after + 1..=last).collect::<Vec<_>>(), "{}: after {after}", w.name);
        }
        assert!(w.app.live.followed().is_empty(), "a reader that is gone leaves nothing behind");
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_last_active_run_and_not_before() {
    for w in worlds().await {
        let a = w.started("t", "a").await;
        let b = w.accept("t", "b").await.id;
        let mut follow = stream::follow(&w.app, &Caller::local(), "t", From::Natural).await.unwrap();
        for seq in [1, 2] {
            let Some(Item::Event(event)) = follow.next().await.unwrap() else { panic!("an event is next") };
            assert_eq!(event.seq, seq, "{}", w.name);
        }
        let mut waits = Box::pin(follow.next());
        w.finish(&a).await;
        assert!(matches!(waits.as_mut().await.unwrap(), Some(Item::Event(e)) if e.is_terminal()));
        drop(waits);
        let mut waits = Box::pin(follow.next());
        let b = w.claim(b).await;
        tokio::select! {
            item = &mut waits => panic!("b has not ended: {item:?}"),
            () = until("", async || w.column(b.id, "fence").await == Some(1)) => {}
        }
        w.finish(&b).await;
        assert!(matches!(waits.as_mut().await.unwrap(), Some(Item::Event(e)) if e.seq == 4));
        drop(waits);
        assert_eq!(follow.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_reader_begins_within_the_log_of_its_own_thread() {
    for w in worlds().await {
        w.accept("t", "a").await;
        let ask =
            async |caller: &Caller, thread: &str, from| stream::follow(&w.app, caller, thread, from).await.map(|f| f.cursor());
        let me = Caller::local();
        assert_eq!(ask(&me, "t", From::After(1)).await.unwrap(), 1, "{}", w.name);
        for past in [2, -1, i64::MAX] {
            assert_eq!(ask(&me, "t", From::After(past)).await.unwrap_err().kind, ErrorKind::Malformed);
        }
        assert_eq!(ask(&me, "unknown", From::Natural).await.unwrap_err().kind, ErrorKind::NotFound);
        let other = Caller::user(new_id(), runmill_shared::domain::caller::Role::User);
        assert_eq!(ask(&other, "t", From::Natural).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(ask(&Caller::reader("local", "u"), "t", From::Natural).await.unwrap_err().kind, ErrorKind::Forbidden);
        assert_eq!(ask(&Caller::reader("local", "t"), "t", From::Natural).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn events_that_nobody_told_of_are_found_by_the_watch() {
    for w in worlds().await {
        let run = w.started("t", "a").await;
        let mut follow = stream::follow(&w.app, &Caller::local(), "t", From::After(1)).await.unwrap();
        stream::watch(&w.app);
        assert!(futures::poll!(Box::pin(follow.next())).is_pending());
        append_silently(&w, &run).await;
        let found = tokio::time::timeout(Duration::from_secs(5), follow.next()).await.expect("it is found");
        assert!(matches!(found.unwrap(), Some(Item::Event(e)) if e.seq == 2), "{}", w.name);
    }
}

/// As a process that dies between its commit and its publishing.
pub async fn append_silently(w: &World, run: &Claimed) {
    let mut tx = w.tx().await;
    let head = threads::advance(&mut tx, run.thread_id, Advance { events: 1, ..Advance::default() }).await.unwrap();
    let row = events::Append {
        thread_id: run.thread_id,
        seq: head.last_seq,
        run_id: run.id,
        fence: run.fence,
        kind: "text.delta",
        data: "{}".into(),
        created_at: START.0,
    };
    events::append(&mut tx, &[row]).await.unwrap();
    tx.commit().await.unwrap();
}
