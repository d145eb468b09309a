//! One suite for both queues, and what only Redis can suffer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod outages;

use std::time::{Duration, Instant};

use runmill_shared::{
    config::{self, Secret},
    domain::{Lane, new_id},
    queue::{Hint, Queue},
};
use runmill_testkit::services::RedisServer;
use tokio::time::sleep;

const LANE: Lane = Lane::Runs;
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than any test may take: a pop that returns earlier was woken.
const LONG: Duration = Duration::from_secs(60);

/// A queue, and the server behind it when it has one.
struct Fixture {
    queue: Queue,
    server: Option<RedisServer>,
}

impl Fixture {
    async fn memory(block: Duration) -> Self {
        Self { queue: Queue::connect(&settings(String::new(), block)).await.unwrap(), server: None }
    }

    async fn redis(block: Duration) -> Self {
        let server = RedisServer::start().await.unwrap();
        Self { queue: Queue::connect(&settings(server.url(), block)).await.unwrap(), server: Some(server) }
    }

    /// Returns when `n` consumers wait in Redis; in memory whoever was polled once waits.
    async fn waiting(&self, n: usize) {
        let Some(server) = &self.server else { return };
        let mut connection = server.connection().await.unwrap();
        let start = Instant::now();
        loop {
            let info: String = redis::cmd("INFO").arg("clients").query_async(&mut connection).await.unwrap();
            if info.lines().any(|line| line == format!("blocked_clients:{n}")) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "no {n} consumers wait: {info}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn settings(url: String, block: Duration) -> config::Redis {
    config::Redis { url: Secret::new(url), prefix: "test".to_owned(), block, response_timeout: Duration::from_millis(500) }
}

fn hint(score: i64) -> Hint {
    Hint { run_id: new_id(), score }
}

/// Makes each test of the suite twice, as `memory::name` and `redis::name`.
macro_rules! on_both {
    ($($name:ident($block:expr)),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::conformance::$name(super::Fixture::memory($block).await).await;
            })*
        }
        mod redis_server {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::conformance::$name(super::Fixture::redis($block).await).await;
            })*
        }
    };
}

on_both! {
    hints_come_by_score_then_by_id(super::LONG),
    pushing_twice_is_pushing_once(super::LONG),
    a_removed_hint_does_not_come(super::LONG),
    depth_place_and_minimum(super::LONG),
    a_pop_takes_no_more_than_asked(super::LONG),
    lanes_are_apart(super::LONG),
    scores_are_exact(super::LONG),
    an_empty_pop_ends_after_its_time(std::time::Duration::from_millis(100)),
    a_waiting_pop_wakes_at_once(super::LONG),
    every_waiting_consumer_is_woken(super::LONG),
    a_stopped_pop_ends_at_once_and_loses_nothing(super::LONG),
    a_hundred_thousand_hints_come_once_each(std::time::Duration::from_millis(100)),
}
