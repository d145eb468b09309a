use std::{fs, process::Command};

use tempfile::tempdir;

use super::process::{Running, done, runmill};

/// The address after `label` in the banner.
pub fn address(banner: &str, label: &str) -> String {
    let line = banner.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
    let url = line.split("http://").nth(1).unwrap();
    url.split([' ', '/']).next().unwrap().to_owned()
}

/// The body of a GET, and its status.
pub fn get(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn it_starts_with_nothing_says_what_it_is_and_stops_in_good_order() {
    let dir = tempdir().unwrap();
    let mut server = Running::start(&mut runmill(&dir, &[]));
    let banner = server.until("/events");
    for expected in
        ["offline:scripted-demo", "OPENAI_API_KEY", "OPENAI_BASE_URL", "runmill models pull whisper-base", "curl", "local"]
    {
        assert!(banner.contains(expected), "{expected} is missing in\n{banner}");
    }
    let (platform, ops) = (address(&banner, "API"), address(&banner, "Operators"));
    assert_eq!(get(&platform, "/health").0, 200);
    assert_eq!(get(&ops, "/readyz").0, 200);
    let metrics = get(&ops, "/metrics").1;
    assert!(metrics.contains("# HELP http_requests_total"), "{metrics}");

    // The container's health check finds it by the settings alone.
    let mut healthy = runmill(&dir, &["doctor", "--live"]);
    assert_eq!(
        done({
            healthy.env("RUNMILL_OPS_ADDR", ops.replace("127.0.0.1", "0.0.0.0"));
            healthy
        })
        .code,
        0
    );

    // A second one on the same data is refused, and says who has it.
    let second = done(runmill(&dir, &[]));
    assert_eq!(second.code, 1);
    assert!(second.err.contains("another Runmill (process "), "{}", second.err);
    assert!(second.err.contains("--data-dir"), "{}", second.err);

    server.signal("-TERM");
    let ended = server.wait();
    assert_eq!(ended.code, 0, "{}", ended.err);
    // The directory is free again, and the schema was brought up to date.
    let checked = done(runmill(&dir, &["migrate", "--check"]));
    assert_eq!(checked.code, 0, "{}", checked.err);
    let mut dead = runmill(&dir, &["doctor", "--live"]);
    assert_eq!(
        done({
            dead.env("RUNMILL_OPS_ADDR", &ops);
            dead
        })
        .code,
        1
    );
}

#[test]
fn a_run_is_answered_followed_and_seen_again_by_id() {
    let dir = tempdir().unwrap();
    let mut server = Running::start(&mut runmill(&dir, &[]));
    let platform = address(&server.until("/events"), "API");
    let client = |args: &[&str]| {
        let mut command = runmill(&dir, args);
        command.env("RUNMILL_PLATFORM_ADDR", &platform);
        done(command)
    };
    let answered = client(&["run", "What can you do?", "--thread", "t1"]);
    assert_eq!(answered.code, 0, "{}{}", answered.out, answered.err);
    assert!(!answered.out.trim().is_empty());

    let again = client(&["run", "--thread", "t1", "--resume-from", "0"]);
    assert_eq!((again.code, &again.out), (0, &answered.out), "{}", again.err);
    let events = client(&["run", "--thread", "t1", "--resume-from", "0", "--json"]).out;
    let ids: Vec<_> =
        events.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].as_u64().unwrap()).collect();
    assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{ids:?}");
    // At its end there is nothing more to say than how it ended.
    let last = ids.len().to_string();
    let nothing = client(&["run", "--thread", "t1", "--resume-from", &last]);
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{}", nothing.err);
    assert_eq!(client(&["run", "--thread", "unknown"]).code, 2);
    server.signal("-TERM");
    assert_eq!(server.wait().code, 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempdir().unwrap();
    let mut server = Running::start(runmill(&dir, &[]).env("RUNMILL_HTTP__SHUTDOWN_GRACE", "1h"));
    let banner = server.until("/events");
    // A request that never ends holds the graceful stop up.
    let platform = address(&banner, "API");
    let mut stuck = std::net::TcpStream::connect(&platform).unwrap();
    std::io::Write::write_all(
        &mut stuck,
        b"POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .unwrap();
    server.signal("-INT");
    server.until("a second signal ends it at once");
    server.signal("-INT");
    assert_eq!(server.wait().code, 130);
    drop(stuck);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let dir = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command: Command = runmill(&dir, &[]);
    command.env("RUNMILL_PLATFORM_ADDR", &address);
    let refused = done(command);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains(&address), "{}", refused.err);
}

#[test]
fn migrations_are_pending_until_they_have_run() {
    let dir = tempdir().unwrap();
    let pending = done(runmill(&dir, &["migrate", "--check"]));
    assert_eq!(pending.code, 1, "{}", pending.err);
    assert!(pending.out.contains("migrations still to run"), "{}", pending.out);
    assert_eq!(done(runmill(&dir, &["migrate"])).code, 0);
    assert_eq!(done(runmill(&dir, &["migrate", "--check"])).code, 0);
    assert!(fs::exists(dir.path().join("data/runmill.db")).unwrap());
}
