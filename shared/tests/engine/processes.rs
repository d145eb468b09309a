//! Two processes on one Postgres and one Redis. Needs both; `scripts/with-services.sh` starts them.
use runmill_shared::{
    config::Secret,
    domain::Lane,
    events::live::Order,
    services::stream::{self, From, Item},
};

use super::{log::append_silently, *};

/// A world and a second process on the same services.
async fn two_processes() -> Option<(World, App)> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests and not of the product")]
    let redis = std::env::var("RUNMILL_TEST_REDIS_URL").ok().filter(|url| !url.is_empty())?;
    let database = TestDatabase::postgres_from_env().await?;
    let prefix = format!("test-{}", new_id());
    let settings = |c: &mut Config| (c.redis.url, c.redis.prefix) = (Secret::new(redis.clone()), prefix.clone());
    let w = World::open(database, &settings).await;
    let mut config = w.database.config();
    settings(&mut config);
    let mut second = App::open(config).await.unwrap();
    second.clock = w.app.clock.clone();
    Some((w, second))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_another_process_gets_the_log_once() {
    let Some((w, second)) = two_processes().await else { return };
    let run = w.started("t", "a").await;
    let mut follow = stream::follow(&second, &Caller::local(), "t", From::After(0)).await.unwrap();
    stream::watch(&second);
    let writer = async {
        for n in 0..100 {
            let unit = unit(&run, vec![delta(&format!("{n}")), delta("more")]);
            execution::flush(&w.app, vec![unit], &mut execution::Doubt::default()).await.unwrap();
            if n % 10 == 3 {
                append_silently(&w, &run).await;
            }
        }
        w.finish(&run).await;
    };
    let reader = async {
        let mut seen = Vec::new();
        while let Some(item) = tokio::time::timeout(LIMIT, follow.next()).await.expect("more, or the end").unwrap() {
            let Item::Event(event) = item else { panic!("a gap") };
            seen.push(event.seq);
        }
        seen
    };
    let ((), seen) = tokio::join!(writer, reader);
    assert_eq!(seen, (1..=212).collect::<Vec<_>>());
    w.check().await;
}

#[tokio::test]
async fn a_last_event_whose_message_was_lost_is_found_within_seconds() {
    let Some((w, second)) = two_processes().await else { return };
    let run = w.started("t", "a").await;
    let mut follow = stream::follow(&second, &Caller::local(), "t", From::After(1)).await.unwrap();
    stream::watch(&second);
    assert!(futures::poll!(Box::pin(follow.next())).is_pending());
    append_silently(&w, &run).await;
    let found = tokio::time::timeout(Duration::from_secs(5), follow.next()).await.expect("it is found");
    assert!(matches!(found.unwrap(), Some(Item::Event(e)) if e.seq == 2));
}

#[tokio::test]
async fn a_cancel_here_stops_the_worker_there_and_hints_are_shared() {
    let Some((w, second)) = two_processes().await else { return };
    let accepted = w.accept("t", "a").await;
    until("its hint is there", async || second.queue.depth(Lane::Runs).await.unwrap() == 1).await;
    let run = claimed_by(&second, accepted.id, w.session().await).await.unwrap();
    let mut stopped = second.live.orders();
    let stop = async {
        // The subscription is made in the background: until it stands, a stop is lost, as any message may be.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            w.app.live.order(Order::Stop(run.id));
        }
    };
    control::cancel(&w.app, &Caller::local(), run.id).await.unwrap();
    tokio::select! {
        told = stopped.recv() => assert_eq!(told.unwrap(), Order::Stop(run.id)),
        () = stop => {}
        () = tokio::time::sleep(LIMIT) => panic!("the other process was never told"),
    }
    assert_eq!(finish(&second, &run).await.unwrap_err().code, execution::LOST);
    until("its hint is gone", async || w.app.queue.depth(Lane::Runs).await.unwrap() == 0).await;
}
