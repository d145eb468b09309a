//! What only a server can suffer. Each failure is met by an error, and the same queue and the same consumer work again afterwards.
use std::time::{Duration, Instant};

use runmill_shared::{
    ErrorKind,
    queue::{Consumer, Hint, Queue},
};
use runmill_testkit::services::RedisServer;
use tokio::join;

use super::{Fixture, LANE, LIMIT, LONG, hint, settings};

const SHORT: Duration = Duration::from_millis(300);

/// Pops until something comes; errors on the way are the outage.
async fn pop_at_last(consumer: &mut Consumer) -> Vec<Hint> {
    let start = Instant::now();
    loop {
        if let Ok(popped) = consumer.pop(10).await
            && !popped.is_empty()
        {
            return popped;
        }
        assert!(start.elapsed() < LIMIT, "nothing came");
    }
}

async fn push_at_last(queue: &Queue, hint: Hint) {
    let start = Instant::now();
    while let Err(e) = queue.push(LANE, &[hint]).await {
        assert_eq!(e.kind, ErrorKind::Unavailable);
        assert!(start.elapsed() < LIMIT, "never pushed: {e}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_severed_connection_is_made_again() {
    let f = Fixture::redis(LONG).await;
    let mut consumer = f.queue.consumer(LANE).await;
    let sever = async {
        f.waiting(1).await;
        f.server.as_ref().unwrap().command(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    };
    let (popped, ()) = join!(consumer.pop(1), sever);
    assert_eq!(popped.unwrap_err().kind, ErrorKind::Unavailable);
    let one = hint(1);
    f.queue.push(LANE, &[one]).await.unwrap();
    assert_eq!(consumer.pop(1).await.unwrap(), [one]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_costs_time_and_nothing_else() {
    let f = Fixture::redis(SHORT).await;
    let mut consumer = f.queue.consumer(LANE).await;
    let (before, during) = (hint(1), hint(2));
    f.queue.push(LANE, &[before]).await.unwrap();
    f.server.as_ref().unwrap().command(&["CLIENT", "PAUSE", "1500", "ALL"]).await.unwrap();
    let start = Instant::now();
    assert_eq!(f.queue.depth(LANE).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_millis(1400), "the response timeout did not end it");
    push_at_last(&f.queue, during).await;
    assert_eq!(pop_at_last(&mut consumer).await, [before, during]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_leaves_a_working_queue() {
    let f = Fixture::redis(LONG).await;
    let one = hint(1);
    f.queue.push(LANE, &[one]).await.unwrap();
    f.server.as_ref().unwrap().command(&["FLUSHALL"]).await.unwrap();
    assert_eq!(f.queue.depth(LANE).await.unwrap(), 0);
    assert_eq!(f.queue.min_score(LANE).await.unwrap(), None, "how the reconciler sees that the hints are lost");
    f.queue.push(LANE, &[one]).await.unwrap();
    assert_eq!(f.queue.consumer(LANE).await.pop(1).await.unwrap(), [one]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_is_found_again() {
    let mut f = Fixture::redis(SHORT).await;
    let mut consumer = f.queue.consumer(LANE).await;
    f.queue.push(LANE, &[hint(1)]).await.unwrap();
    assert_eq!(consumer.pop(1).await.unwrap().len(), 1);
    let server = f.server.as_mut().unwrap();
    server.kill().unwrap();
    assert_eq!(f.queue.ping().await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(consumer.pop(1).await.unwrap_err().kind, ErrorKind::Unavailable);
    server.restart().await.unwrap();
    let one = hint(2);
    push_at_last(&f.queue, one).await;
    assert_eq!(pop_at_last(&mut consumer).await, [one]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_come_after_us() {
    let mut server = RedisServer::start().await.unwrap();
    server.kill().unwrap();
    let queue = Queue::connect(&settings(server.url(), SHORT)).await.unwrap();
    assert_eq!(queue.ping().await.unwrap_err().kind, ErrorKind::Unavailable);
    server.restart().await.unwrap();
    let one = hint(1);
    push_at_last(&queue, one).await;
    assert_eq!(pop_at_last(&mut queue.consumer(LANE).await).await, [one]);
}

#[tokio::test]
async fn a_bad_url_is_named_at_once() {
    let refused = Queue::connect(&settings("http://127.0.0.1".to_owned(), SHORT)).await.err().unwrap();
    assert_eq!((refused.kind, refused.fields[0].field.as_str()), (ErrorKind::Invalid, "redis.url"));
}
