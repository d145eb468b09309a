use std::sync::{Condvar, Mutex};

use runmill_testkit::http_server::{HttpServer, Request, Response};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::process::{Done, Running, done, runmill};

const TASK: &str = "task-1";

/// One frame of our run.
fn frame(id: u64, kind: &str, data: Value) -> String {
    framed(id, kind, TASK, data)
}

fn framed(id: u64, kind: &str, task: &str, data: Value) -> String {
    let time = "2026-01-01T00:00:00Z";
    let envelope =
        json!({ "id": id, "type": kind, "threadId": "t", "runId": "r", "taskId": task, "timestamp": time, "data": data });
    format!("id: {id}\nevent: {kind}\ndata: {envelope}\n\n")
}

fn text(id: u64, delta: &str) -> String {
    frame(id, "text.delta", json!({ "messageId": "m1", "delta": delta }))
}

fn stream(frames: &[String]) -> Response {
    Response::new(200, format!("retry: 20\n\n: ping\n\n{}", frames.concat())).with("content-type", "text/event-stream")
}

fn accepted() -> Response {
    Response::json(200, &json!({ "taskId": TASK, "threadId": "t", "runId": "r", "created": "2026-01-01T00:00:00Z" }))
}

/// A server that accepts every run and answers the connections for events one after the other.
fn server(connections: Vec<Response>) -> HttpServer {
    scripted(connections, |request| panic!("{} {} is not expected", request.method, request.path))
}

fn scripted(connections: Vec<Response>, other: impl Fn(&Request) -> Response + Send + Sync + 'static) -> HttpServer {
    let left = Mutex::new(connections.into_iter());
    HttpServer::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/v1/agent/runs") => accepted(),
        ("GET", path) if path.ends_with("/events") => left.lock().unwrap().next().unwrap_or_else(|| Response::new(204, "")),
        _ => other(request),
    })
}

fn run(server: &HttpServer, args: &[&str]) -> Done {
    let dir = tempdir().unwrap();
    done(runmill(&dir, &[&["run", "--server", &server.url], args].concat()))
}

#[test]
fn an_answer_is_streamed_and_the_request_says_what_was_asked_for() {
    let server = server(vec![stream(&[
        frame(1, "run.queued", json!({})),
        frame(2, "run.started", json!({ "model": "offline:scripted-demo" })),
        frame(3, "tool.started", json!({ "toolCallId": "c", "name": "now" })),
        frame(4, "tool.finished", json!({ "toolCallId": "c", "name": "now", "result": "noon", "durationMs": 12 })),
        // Another run of this thread, which is none of our business.
        framed(5, "text.delta", "task-2", json!({ "messageId": "x", "delta": "someone else's" })),
        text(6, "It is "),
        text(7, "noön."),
        frame(8, "message.finished", json!({ "messageId": "m1", "role": "assistant", "content": "It is noön." })),
        frame(9, "run.finished", json!({ "result": null, "usage": { "inputTokens": 1, "outputTokens": 2 } })),
    ])]);
    let args =
        ["What time is it?", "--thread", "my thread", "--agent", "demo", "--model", "offline:scripted-demo", "--token", "tok"];
    let answered = run(&server, &args);
    assert_eq!((answered.code, answered.out.as_str()), (0, "It is noön.\n"), "{}", answered.err);
    assert!(answered.err.contains("→ now") && answered.err.contains("✓ now (12 ms)"), "{}", answered.err);

    let requests = server.requests();
    let input: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(input["threadId"], "my thread");
    assert_eq!(input["messages"][0]["content"], "What time is it?");
    assert_eq!(input["forwardedProps"], json!({ "agentId": "demo", "model": "offline:scripted-demo" }));
    assert!(requests.iter().all(|r| r.header("authorization") == Some("Bearer tok")));
    assert_eq!(requests[1].path, "/api/v1/agent/runs/my%20thread/events");
    assert_eq!(requests[1].header("last-event-id"), None);
}

#[test]
fn a_connection_that_drops_is_made_again_after_the_last_id() {
    let mut torn = stream(&[frame(1, "run.queued", json!({})), text(2, "one ")]);
    // Half a frame is nothing yet.
    torn.body.extend_from_slice(b"id: 3\ndata: {\"type\":\"text.del");
    let server = server(vec![
        torn,
        Response::json(503, &json!({ "detail": "restarting" })),
        stream(&[text(3, "two ")]),
        stream(&[text(4, "three"), frame(5, "run.finished", json!({}))]),
    ]);
    let answered = run(&server, &["count"]);
    assert_eq!((answered.code, answered.out.as_str()), (0, "one two three\n"), "{}", answered.err);
    let ids: Vec<_> = server.requests()[1..].iter().map(|r| r.header("last-event-id").map(str::to_owned)).collect();
    assert_eq!(ids, [None, Some("2".to_owned()), Some("2".to_owned()), Some("3".to_owned())]);
}

#[test]
fn the_exit_code_says_how_the_run_ended() {
    let failed = |will_retry: bool| json!({ "error": { "code": "MODEL", "message": "no luck", "retryable": true }, "willRetry": will_retry });
    let ends = [
        (vec![frame(1, "run.finished", json!({}))], 0, ""),
        (vec![frame(1, "run.failed", failed(true)), frame(2, "run.finished", json!({}))], 0, "another follows: no luck"),
        (vec![frame(1, "run.failed", failed(false))], 1, "failed: no luck"),
        (vec![frame(1, "run.cancelled", json!({ "reason": "by the user" }))], 3, "cancelled: by the user"),
    ];
    for (frames, code, said) in ends {
        let ended = run(&server(vec![stream(&frames)]), &["go"]);
        assert_eq!(ended.code, code, "{}", ended.err);
        assert!(ended.err.contains(said), "{said:?} is missing in {}", ended.err);
    }
}

#[test]
fn a_stream_that_is_over_asks_how_the_run_ended() {
    for (status, code) in [("succeeded", 0), ("failed", 1), ("cancelled", 3)] {
        let server = scripted(vec![stream(&[text(1, "x")])], move |request| {
            assert_eq!(request.path, format!("/api/v1/agent/runs/{TASK}"));
            Response::json(200, &json!({ "status": status }))
        });
        assert_eq!(run(&server, &["go"]).code, code);
    }
}

#[test]
fn what_cannot_be_asked_or_reached_has_codes_of_its_own() {
    let dir = tempdir().unwrap();
    assert_eq!(done(runmill(&dir, &["run"])).code, 2, "neither message nor thread");
    assert_eq!(done(runmill(&dir, &["run", "hi", "--resume-from", "3"])).code, 2, "an id is one of a thread");
    assert_eq!(done(runmill(&dir, &["run", "hi", "--server", "ftp://x"])).code, 2);
    let away = done(runmill(&dir, &["run", "hi", "--server", "http://127.0.0.1:1"]));
    assert_eq!(away.code, 4);
    assert!(away.err.contains("cannot reach the server"), "{}", away.err);

    let refusing =
        |status: u16| HttpServer::start(move |_| Response::json(status, &json!({ "detail": "messages: at least one" })));
    let refused = run(&refusing(422), &["hi"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("messages: at least one"), "{}", refused.err);
    assert_eq!(run(&refusing(401), &["hi"]).code, 2);
    assert_eq!(run(&refusing(429), &["hi"]).code, 4);
}

#[test]
fn a_thread_is_followed_from_an_id_without_a_new_run() {
    let server = server(vec![stream(&[
        frame(8, "stream.gap", json!({ "from": 5, "to": 8 })),
        text(9, "the rest"),
        frame(10, "run.cancelled", json!({ "reason": "enough" })),
    ])]);
    let followed = run(&server, &["--thread", "t", "--resume-from", "4"]);
    assert_eq!((followed.code, followed.out.as_str()), (3, "the rest\n"), "{}", followed.err);
    assert!(followed.err.contains("5 to 8"), "{}", followed.err);
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.method == "GET"), "a run was started");
    assert_eq!(requests[0].header("last-event-id"), Some("4"));
    assert_eq!(requests[1].header("last-event-id"), Some("10"), "it is followed until the server says that there is no more");
}

#[test]
fn as_json_every_event_is_one_line() {
    let server = server(vec![stream(&[text(1, "a\nb"), frame(2, "run.finished", json!({ "result": 1 }))])]);
    let printed = run(&server, &["go", "--json"]);
    let events: Vec<Value> = printed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().map(|e| e["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((events[0]["data"]["delta"].as_str(), printed.code), (Some("a\nb"), 0));
}

#[test]
fn an_answer_whose_worker_died_is_said_to_be_discarded() {
    let retried = json!({ "messageId": "m2", "role": "assistant", "content": "whole" });
    let server = server(vec![stream(&[
        text(1, "hal"),
        frame(2, "message.finished", json!({ "messageId": "m1", "discarded": true })),
        frame(3, "message.finished", retried),
        frame(4, "run.finished", json!({})),
    ])]);
    let answered = run(&server, &["go"]);
    assert_eq!(answered.out, "hal\nwhole\n");
    assert!(answered.err.contains("cut off"), "{}", answered.err);
}

#[test]
fn ctrl_c_detaches_and_says_how_to_come_back() {
    let mut held = stream(&[text(7, "so far")]);
    held.hold = true;
    let server = server(vec![held]);
    let dir = tempdir().unwrap();
    let mut running = Running::start(&mut runmill(&dir, &["run", "go", "--thread", "t", "--server", &server.url]));
    running.until("so far");
    running.signal("-INT");
    let left = running.wait();
    assert_eq!(left.code, 130);
    let expected = format!("runmill run --server {} --thread t --resume-from 7", server.url);
    assert!(left.err.contains(&expected), "{}", left.err);
    assert!(server.requests().iter().all(|r| !r.path.ends_with("/cancel")));
}

#[test]
fn ctrl_c_cancels_when_that_is_wanted() {
    let (flag, changed) = (Mutex::new(false), Condvar::new());
    let server = HttpServer::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/v1/agent/runs") => accepted(),
        ("POST", path) => {
            assert_eq!(path, format!("/api/v1/agent/runs/{TASK}/cancel"));
            *flag.lock().unwrap() = true;
            changed.notify_all();
            Response::json(200, &json!({}))
        }
        ("GET", _) if request.header("last-event-id").is_none() => stream(&[text(1, "so far")]),
        _ => {
            let mut done = flag.lock().unwrap();
            while !*done {
                done = changed.wait(done).unwrap();
            }
            stream(&[frame(2, "run.cancelled", json!({ "reason": "by the user" }))])
        }
    });
    let dir = tempdir().unwrap();
    let mut running = Running::start(&mut runmill(&dir, &["run", "go", "--cancel-on-interrupt", "--server", &server.url]));
    running.until("so far");
    running.signal("-INT");
    let ended = running.wait();
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("cancelled: by the user"), "{}", ended.err);
}
