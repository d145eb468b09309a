use std::fs;

use tempfile::tempdir;

use super::process::{done, runmill};

/// (value, origin) of a key in what `runmill config` prints.
fn setting<'a>(printed: &'a str, key: &str) -> (&'a str, &'a str) {
    let line = printed
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key))
        .unwrap_or_else(|| panic!("no {key} in {printed}"));
    let rest = line[key.len()..].trim();
    let (value, from) = rest.split_once("  ").unwrap_or(("", rest));
    (value.trim(), from.trim())
}

#[test]
fn every_setting_is_printed_with_who_set_it() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("my.toml"), "[runs]\nmax_queued = 7\nmax_attempts = 5\n[worker]\ndrain = \"3s\"\n").unwrap();
    let mut command = runmill(&dir, &["config", "--config", "my.toml", "--set", "runs.max_attempts=9", "--log", "debug"]);
    command.env("RUNMILL_WORKER__DRAIN", "4s").env("OPENAI_API_KEY", "1234567890").env("RUNMILL_LANES__RUNS", "3");
    let printed = done(command);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let all = &printed.out;
    assert_eq!(setting(all, "events.page"), ("500", "default"));
    assert_eq!(setting(all, "runs.max_queued"), ("7", "file my.toml"));
    assert_eq!(setting(all, "worker.drain"), ("4s", "env RUNMILL_WORKER__DRAIN"));
    assert_eq!(setting(all, "lanes.runs"), ("3", "env RUNMILL_LANES__RUNS"));
    assert_eq!(setting(all, "data_dir"), ("data", "env RUNMILL_DATA_DIR"));
    assert_eq!(setting(all, "runs.max_attempts"), ("9", "flag --set"));
    assert_eq!(setting(all, "telemetry.log"), ("debug", "flag --log"));
    // A secret of digits is a text, and no secret is ever printed.
    assert_eq!(setting(all, "models.openai_api_key"), ("(set)", "env OPENAI_API_KEY"));
    assert_eq!(setting(all, "auth.jwt_secret"), ("(not set)", "default"));
    assert!(!all.contains("1234567890"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("my.toml"), "data_folder = \"x\"\n[runs]\nmax_queued = \"many\"\nbackoff = \"soon\"\n").unwrap();
    let mut command = runmill(&dir, &["--config", "my.toml", "--set", "worker.lease=1s"]);
    command.env("RUNMILL_PLATFORM_ADDR", "everywhere").env("RUNMILL_DATABASE_URL", "mysql://u:hidden@h/db");
    command.env("RUNMILL_AUTH", "sometimes");
    let refused = done(command);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""));
    for expected in [
        "data_folder: there is no such setting (file my.toml)",
        "runs.max_queued: a text is given where u64 is expected (file my.toml)",
        "runs.backoff: \"soon\" is no duration",
        "listen.platform: invalid socket address syntax (env RUNMILL_PLATFORM_ADDR)",
        "auth.mode: \"sometimes\" is none of open, required (env RUNMILL_AUTH)",
        "worker.lease: at least three heartbeats (flag --set)",
        "database.url: postgres://… or empty for SQLite (env RUNMILL_DATABASE_URL)",
    ] {
        assert!(refused.err.contains(expected), "{expected:?} is missing in\n{}", refused.err);
    }
    assert!(!refused.err.contains("hidden"));
}

#[test]
fn an_open_or_secretless_start_is_for_loopback_only() {
    let dir = tempdir().unwrap();
    let mut open = runmill(&dir, &[]);
    open.env("RUNMILL_PLATFORM_ADDR", "0.0.0.0:0");
    let refused = done(open);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("RUNMILL_AUTH=required"), "{}", refused.err);

    let mut secretless = runmill(&dir, &[]);
    secretless.env("RUNMILL_PLATFORM_ADDR", "0.0.0.0:0").env("RUNMILL_AUTH", "required");
    let refused = done(secretless);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("RUNMILL_JWT_SECRET"), "{}", refused.err);
}

#[test]
fn halves_of_a_distributed_start_name_both_servers_that_they_need() {
    let dir = tempdir().unwrap();
    for half in ["api", "worker"] {
        let refused = done(runmill(&dir, &[half]));
        assert_eq!(refused.code, 2);
        for expected in ["RUNMILL_DATABASE_URL", "RUNMILL_REDIS_URL", half] {
            assert!(refused.err.contains(expected), "{expected} is missing in {}", refused.err);
        }
    }
}

#[test]
fn a_flag_that_is_no_setting_is_a_usage_error() {
    let dir = tempdir().unwrap();
    assert_eq!(done(runmill(&dir, &["config", "--set", "nonsense"])).code, 2);
    assert_eq!(done(runmill(&dir, &["config", "--config", "missing.toml"])).code, 2);
    let unknown = done(runmill(&dir, &["config", "--set", "runs.speed=9"]));
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("runs.speed: there is no such setting (flag --set)"), "{}", unknown.err);
}
