//! The limiter over a real Redis: counted across processes, exact at the boundary, and still a limit while Redis is away.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use runmill_shared::{
    ErrorKind,
    clock::{Clock, Timestamp},
    config::{Config, Secret},
    limits::{Limiter, Parallel},
};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

struct RedisServer {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl RedisServer {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        Self { process: Self::run(port, &dir), port, _dir: dir }
    }

    fn run(port: u16, dir: &TempDir) -> Child {
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        let deadline = Instant::now() + Duration::from_secs(10);
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        while client.get_connection().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::yield_now();
        }
        process
    }

    fn config(&self) -> Config {
        let mut config = Config::defaults().unwrap();
        config.redis.url = Secret::new(format!("redis://127.0.0.1:{}", self.port));
        config.redis.prefix = "test".into();
        config
    }

    fn stop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn two_processes_share_one_count_and_a_place_comes_back_on_time() {
    let server = RedisServer::start();
    let (one, two) = (Limiter::open(&server.config()).unwrap(), Limiter::open(&server.config()).unwrap());
    let clock = Clock::manual(Timestamp(1_800_000_000_000_000));
    one.take("k", 3, MINUTE, &clock).await.unwrap();
    clock.advance(Duration::from_secs(20));
    two.take("k", 3, MINUTE, &clock).await.unwrap();
    one.take("k", 3, MINUTE, &clock).await.unwrap();
    two.take("other", 3, MINUTE, &clock).await.unwrap();
    for limiter in [&one, &two] {
        let refused = limiter.take("k", 3, MINUTE, &clock).await.unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Limited, "RATE_LIMITED"));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(40)));
    }
    clock.advance(Duration::from_secs(40) - Duration::from_micros(1));
    assert_eq!(two.take("k", 3, MINUTE, &clock).await.unwrap_err().retry_after, Some(Duration::from_micros(1)));
    clock.advance(Duration::from_micros(1));
    two.take("k", 3, MINUTE, &clock).await.unwrap();
    assert_eq!(one.take("k", 3, MINUTE, &clock).await.unwrap_err().retry_after, Some(Duration::from_secs(20)));
}

#[tokio::test]
async fn keys_carry_the_prefix_stay_small_and_expire() {
    let server = RedisServer::start();
    let limiter = Limiter::open(&server.config()).unwrap();
    let clock = Clock::manual(Timestamp(1_800_000_000_000_000));
    for _ in 0..50 {
        limiter.take("k", 5, MINUTE, &clock).await.ok();
        clock.advance(Duration::from_secs(7));
    }
    let mut connection = redis::Client::open(server.config().redis.url.expose()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys, ["test:limit:k"]);
    let length: u32 = redis::cmd("LLEN").arg(&keys[0]).query(&mut connection).unwrap();
    assert_eq!(length, 5);
    let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query(&mut connection).unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn while_redis_is_away_each_process_limits_by_itself_and_then_together_again() {
    let mut server = RedisServer::start();
    let limiter = Limiter::open(&server.config()).unwrap();
    let clock = Clock::manual(Timestamp(1_800_000_000_000_000));
    limiter.take("before", 1, MINUTE, &clock).await.unwrap();
    server.stop();
    limiter.take("k", 2, MINUTE, &clock).await.unwrap();
    limiter.take("k", 2, MINUTE, &clock).await.unwrap();
    let refused = limiter.take("k", 2, MINUTE, &clock).await.unwrap_err();
    assert_eq!(refused.retry_after, Some(MINUTE));

    server.process = RedisServer::run(server.port, &server._dir);
    let other = Limiter::open(&server.config()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    for n in 0.. {
        // Once the first limiter counts in Redis again, the second sees the place as taken.
        let key = format!("after {n}");
        limiter.take(&key, 1, MINUTE, &clock).await.unwrap();
        if other.take(&key, 1, MINUTE, &clock).await.is_err() {
            return;
        }
        assert!(Instant::now() < deadline, "it never went back to Redis");
        tokio::task::yield_now().await;
    }
}

/// Whether a place can be had at once.
async fn is_free(parallel: &Parallel, most: u32) -> bool {
    tokio::time::timeout(Duration::from_millis(300), parallel.acquire("openai", most)).await.is_ok()
}

#[tokio::test]
async fn parallel_places_are_shared_through_redis_and_counted_here_while_it_is_away() {
    let mut redis = RedisServer::start();
    let (one, two) = (Parallel::open(&redis.config()).unwrap(), Parallel::open(&redis.config()).unwrap());
    let held = one.acquire("openai", 1).await;
    assert!(!is_free(&two, 1).await, "another process holds it");
    drop(held);
    tokio::time::timeout(Duration::from_secs(60), two.acquire("openai", 1)).await.expect("given back");
    redis.stop();
    let (mine, theirs) = (one.acquire("openai", 1).await, two.acquire("openai", 1).await);
    assert!(!is_free(&one, 1).await, "each process still has its own limit");
    drop((mine, theirs));
    assert!(is_free(&one, 1).await);
}
