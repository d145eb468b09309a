//! What every queue does.
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use runmill_shared::{
    domain::{Lane, new_id},
    queue::{Hint, Queue},
};
use tokio::{join, sync::oneshot, time::timeout};
use uuid::Uuid;

use super::{Fixture, LANE, LIMIT, hint};

const NOW: i64 = 1_795_000_000_000_000;

async fn pop(queue: &Queue, max: usize) -> Vec<Hint> {
    queue.consumer(LANE).await.pop(max).await.unwrap()
}

pub async fn hints_come_by_score_then_by_id(f: Fixture) {
    let tied = |text| Hint { run_id: Uuid::parse_str(text).unwrap(), score: NOW };
    let (a, b, c) = (
        tied("0a000000-0000-7000-8000-000000000001"),
        tied("9f000000-0000-7000-8000-000000000000"),
        tied("ab000000-0000-7000-8000-000000000000"),
    );
    let (first, last) = (hint(NOW - 1), hint(NOW + 1));
    f.queue.push(LANE, &[c, last, a]).await.unwrap();
    f.queue.push(LANE, &[b, first]).await.unwrap();
    assert_eq!(pop(&f.queue, 10).await, [first, a, b, c, last]);
}

pub async fn pushing_twice_is_pushing_once(f: Fixture) {
    let one = hint(NOW);
    f.queue.push(LANE, &[one, one]).await.unwrap();
    f.queue.push(LANE, &[Hint { score: NOW - 50, ..one }]).await.unwrap();
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 1);
    assert_eq!(pop(&f.queue, 10).await, [one], "the first score stays");
    f.queue.push(LANE, &[one]).await.unwrap();
    assert_eq!(pop(&f.queue, 10).await, [one], "once popped it may come again");
}

pub async fn a_removed_hint_does_not_come(f: Fixture) {
    let (gone, stays) = (hint(NOW), hint(NOW + 1));
    f.queue.push(LANE, &[gone, stays]).await.unwrap();
    assert!(f.queue.remove(LANE, gone.run_id).await.unwrap());
    assert!(!f.queue.remove(LANE, gone.run_id).await.unwrap());
    assert!(!f.queue.remove(Lane::Bulk, stays.run_id).await.unwrap());
    assert_eq!(pop(&f.queue, 10).await, [stays]);
}

pub async fn depth_place_and_minimum(f: Fixture) {
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 0);
    assert_eq!(f.queue.min_score(LANE).await.unwrap(), None);
    let hints: Vec<_> = (0..20).map(|n| hint(NOW + n)).collect();
    f.queue.push(LANE, &hints).await.unwrap();
    f.queue.push(LANE, &[]).await.unwrap();
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 20);
    assert_eq!(f.queue.min_score(LANE).await.unwrap(), Some(NOW));
    assert_eq!(f.queue.place(LANE, hints[0].run_id).await.unwrap(), Some(0));
    assert_eq!(f.queue.place(LANE, hints[19].run_id).await.unwrap(), Some(19));
    assert_eq!(f.queue.place(LANE, new_id()).await.unwrap(), None);
    f.queue.ping().await.unwrap();
}

pub async fn a_pop_takes_no_more_than_asked(f: Fixture) {
    let hints: Vec<_> = (0..10).map(|n| hint(NOW + n)).collect();
    f.queue.push(LANE, &hints).await.unwrap();
    let mut consumer = f.queue.consumer(LANE).await;
    assert_eq!(consumer.pop(0).await.unwrap(), []);
    assert_eq!(consumer.pop(3).await.unwrap(), hints[..3]);
    assert_eq!(consumer.pop(1).await.unwrap(), hints[3..4]);
    assert_eq!(consumer.pop(100).await.unwrap(), hints[4..]);
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 0);
}

pub async fn lanes_are_apart(f: Fixture) {
    for (n, lane) in (1..).zip(Lane::ALL) {
        f.queue.push(lane, &[hint(NOW + n)]).await.unwrap();
    }
    for (n, lane) in (1..).zip(Lane::ALL) {
        let popped = f.queue.consumer(lane).await.pop(10).await.unwrap();
        assert_eq!(popped.iter().map(|h| h.score).collect::<Vec<_>>(), [NOW + n]);
    }
}

pub async fn scores_are_exact(f: Fixture) {
    let hints = [-3, 0, NOW, NOW + 1, (1 << 53) - 1].map(hint);
    f.queue.push(LANE, &hints).await.unwrap();
    assert_eq!(f.queue.min_score(LANE).await.unwrap(), Some(-3));
    assert_eq!(pop(&f.queue, 10).await, hints);
}

pub async fn an_empty_pop_ends_after_its_time(f: Fixture) {
    let start = Instant::now();
    assert_eq!(pop(&f.queue, 10).await, []);
    assert!(start.elapsed() >= Duration::from_millis(100), "it waited {:?}", start.elapsed());
}

pub async fn a_waiting_pop_wakes_at_once(f: Fixture) {
    let late = hint(NOW);
    let push = async {
        f.waiting(1).await;
        f.queue.push(LANE, &[late]).await.unwrap();
    };
    // `join` polls the pop first, so it waits before anything is pushed.
    let (popped, ()) = timeout(LIMIT, async { join!(pop(&f.queue, 10), push) }).await.unwrap();
    assert_eq!(popped, [late]);
}

pub async fn every_waiting_consumer_is_woken(f: Fixture) {
    let hints = [NOW, NOW + 1, NOW + 2].map(hint);
    let push = async {
        f.waiting(3).await;
        f.queue.push(LANE, &hints).await.unwrap();
    };
    let pops = join_all((0..3).map(|_| pop(&f.queue, 1)));
    let (popped, ()) = timeout(LIMIT, async { join!(pops, push) }).await.unwrap();
    let ids: HashSet<_> = popped.iter().flatten().map(|h| h.run_id).collect();
    assert_eq!(ids, hints.map(|h| h.run_id).into());
}

pub async fn a_stopped_pop_ends_at_once_and_loses_nothing(f: Fixture) {
    let mut consumer = f.queue.consumer(LANE).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let stopping = async {
        f.waiting(1).await;
        stop.send(()).unwrap();
    };
    let pop = consumer.pop_until(10, async { stopped.await.unwrap() });
    let (popped, ()) = timeout(LIMIT, async { join!(pop, stopping) }).await.unwrap();
    assert_eq!(popped.unwrap(), []);
    // Stopped before it began: it ends all the same, and either has the hint or left it.
    let one = hint(NOW);
    f.queue.push(LANE, &[one]).await.unwrap();
    let popped = timeout(LIMIT, consumer.pop_until(10, async {})).await.unwrap().unwrap();
    assert_eq!(popped.len() as u64 + f.queue.depth(LANE).await.unwrap(), 1);
    f.queue.push(LANE, &[one]).await.unwrap();
    assert_eq!(timeout(LIMIT, consumer.pop(10)).await.unwrap().unwrap(), [one], "the consumer is still good");
}

pub async fn a_hundred_thousand_hints_come_once_each(f: Fixture) {
    let hints: Vec<_> = (0..100_000).map(|n| hint(NOW + n / 10)).collect();
    f.queue.push(LANE, &hints).await.unwrap();
    f.queue.push(LANE, &hints[..10_000]).await.unwrap();
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 100_000);
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let drain = |max| {
        let (queue, seen) = (f.queue.clone(), Arc::clone(&seen));
        async move {
            let mut consumer = queue.consumer(LANE).await;
            loop {
                let popped = consumer.pop(max).await.unwrap();
                if popped.is_empty() {
                    return;
                }
                assert!(popped.len() <= max && popped.is_sorted_by_key(|h| h.score));
                let mut seen = seen.lock().unwrap();
                popped.iter().for_each(|h| assert!(seen.insert(h.run_id), "{h:?} came twice"));
            }
        }
    };
    timeout(LIMIT, join_all([64, 8, 64, 17].map(drain))).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 100_000);
}
