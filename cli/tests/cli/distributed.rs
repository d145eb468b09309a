//! The two halves on Postgres and Redis, where `make test` has started a Postgres.
use runmill_testkit::{database::TestDatabase, services::RedisServer};
use tempfile::tempdir;

use super::{
    dev::get,
    process::{Running, runmill},
};

/// The address that a line of the log gives as `name=…`.
fn logged(log: &str, name: &str) -> String {
    let value = log.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("no {name} in {log}"));
    value.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn api_and_worker_start_serve_and_stop() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = runtime.block_on(TestDatabase::postgres_from_env()) else { return };
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let dir = tempdir().unwrap();
    let config = database.config();
    let start = |half: &str| {
        let mut command = runmill(&dir, &[half]);
        command.env("RUNMILL_DATABASE_URL", config.database.url.expose()).env("RUNMILL_REDIS_URL", redis.url());
        Running::start(&mut command)
    };
    let (mut api, mut worker) = (start("api"), start("worker"));
    let (api_log, worker_log) = (api.until("the API is starting"), worker.until("a worker is starting"));
    for log in [&api_log, &worker_log] {
        let ops = logged(log, "ops");
        assert_eq!(get(&ops, "/livez").0, 200);
        assert_eq!(get(&ops, "/readyz").0, 200);
        assert!(log.contains("no bucket is set"), "{log}");
    }
    assert_eq!(get(&logged(&api_log, "platform"), "/health").0, 200);
    for half in [api, worker] {
        half.signal("-TERM");
        let ended = half.wait();
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
}
