use std::time::Duration;

use runmill_shared::store::events as log;
use serde_json::{Value, json};

use crate::support::{START, each, read, required, run_body, soon};

/// Seven events: queued, started, message.started, delta, message.finished, finished of r1; then r2 queued.
const FIRST: [&str; 6] =
    ["1 run.queued", "2 run.started", "3 message.started", "4 text.delta", "5 message.finished", "6 run.finished"];

/// A frame up to its event's data, byte by byte, and the data, whose fields have no order.
fn parts(frame: &str) -> (&str, Value) {
    let (envelope, data) = frame.split_once(r#","data":"#).unwrap();
    (envelope, serde_json::from_str(data.strip_suffix('}').unwrap()).unwrap())
}

#[tokio::test]
async fn the_whole_transcript() {
    for api in each(|_| {}).await {
        let task = api.complete("t 1/ü", "r1", "Hi").await;
        let mut stream = api.events("t%201%2F%C3%BC", "").await;
        let head = |name: &str| stream.response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(head("content-type"), "text/event-stream");
        assert_eq!((head("cache-control"), head("x-accel-buffering")), ("no-store".into(), "no".into()));
        let golden = include_str!("golden/events.sse");
        for expected in golden.split_terminator("\n\n") {
            let frame = stream.frame().await.unwrap().replace(&task.to_string(), "TASK");
            assert_eq!(parts(&frame), parts(expected), "{}", api.name());
        }
        assert_eq!(stream.frame().await, None);
    }
}

#[tokio::test]
async fn a_stream_resumes_after_any_id() {
    for api in each(|_| {}).await {
        api.complete("t1", "r1", "Hi").await;
        let rest = |n: usize| FIRST[n..].to_vec();
        assert_eq!(api.events("t1", "").await.rest().await, FIRST, "the latest run when nothing is active");
        for n in 0..6 {
            assert_eq!(api.events("t1", &format!("Last-Event-ID={n}")).await.rest().await, rest(n));
        }
        let (status, body) = read(api.get("/runs/t1/events?Last-Event-ID=6")).await;
        assert_eq!((status, body), (204, json!(null)), "an id at the end of a thread with nothing active");
        for bad in ["7", "-1", "x", "", "1.0", "+1", "99999999999999999999"] {
            assert_eq!(read(api.get("/runs/t1/events").query(&[("Last-Event-ID", bad)])).await.0, 400, "{bad}");
            let header = api.get("/runs/t1/events").header("Last-Event-ID", bad);
            assert_eq!(read(header).await.0, 400, "{bad}");
        }
        let both = api.get("/runs/t1/events?Last-Event-ID=1").header("Last-Event-ID", "4");
        assert_eq!(api.open(both).await.rest().await, rest(4), "the header wins");
        for (query, status) in [("idle_limit=0", 400), ("idle_limit=3601", 400), ("idle_limit=x", 400), ("format=x", 400)] {
            assert_eq!(read(api.get(&format!("/runs/t1/events?{query}"))).await.0, status, "{query}");
        }
        assert_eq!(read(api.get("/runs/nowhere/events")).await.0, 404);
    }
}

#[tokio::test]
async fn a_stream_starts_where_the_work_does_and_ends_with_the_last_active_run() {
    for api in each(|_| {}).await {
        api.complete("t1", "r0", "Old").await;
        let (first, second) = (api.post_run("t1", "r1").await, api.post_run("t1", "r2").await);
        let mut stream = api.events("t1", "").await;
        assert_eq!(stream.take(2).await, ["7 run.queued", "8 run.queued"], "from the oldest run that has not ended");
        let mut at_end = api.events("t1", "Last-Event-ID=8").await;
        for (task, from) in [(first, 9), (second, 14)] {
            let run = api.claim(task).await;
            api.answer(&run, &format!("m{from}"), "a").await;
            // Live: the fragment is there before the run goes on.
            assert_eq!(stream.take(3).await.last().unwrap(), &format!("{} text.delta", from + 2));
            api.finish(&run, &format!("m{from}"), "a").await;
            assert_eq!(stream.take(2).await.last().unwrap(), &format!("{} run.finished", from + 4));
        }
        assert_eq!(stream.frame().await, None);
        assert_eq!(at_end.rest().await.len(), 10, "one that waited at the end had all of it");
    }
}

#[tokio::test]
async fn an_idle_stream_pings_and_closes() {
    for api in each(|config| config.events.ping = Duration::from_millis(200)).await {
        api.post_run("t1", "r1").await;
        let mut stream = api.events("t1", "idle_limit=1").await;
        assert_eq!(stream.take(1).await, ["1 run.queued"]);
        let mut pings = 0;
        while let Some(frame) = stream.frame().await {
            assert_eq!(frame, ": ping");
            pings += 1;
        }
        assert!(pings >= 3, "{pings} pings in a second");
    }
}

#[tokio::test]
async fn a_stopping_server_tells_its_readers_to_come_back() {
    for mut api in each(|_| {}).await {
        api.post_run("t1", "r1").await;
        let mut stream = api.events("t1", "").await;
        assert_eq!(stream.take(1).await, ["1 run.queued"]);
        api.stop.cancel();
        assert_eq!(stream.frame().await.as_deref(), Some("retry: 1000"));
        assert_eq!(stream.frame().await, None);
        soon("the end", api.stopped.take().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_past_retention_is_a_gap_that_is_said() {
    for api in each(|_| {}).await {
        api.complete("t1", "r1", "Hi").await;
        api.app.clock.advance(Duration::from_secs(3600));
        api.post_run("t1", "r2").await;
        log::forget(&api.app.db, START.after(Duration::from_secs(60)), 500).await.unwrap();
        let mut stream = api.events("t1", "Last-Event-ID=2").await;
        let frame = stream.frame().await.unwrap();
        let expected = concat!(
            "id: 6\nevent: stream.gap\n",
            r#"data: {"id":6,"type":"stream.gap","threadId":"t1","runId":null,"taskId":null,"#,
            r#""timestamp":"2026-03-16T11:00:00.000000Z","data":{"from":3,"to":6}}"#
        );
        assert_eq!(frame, expected);
        assert_eq!(stream.take(1).await, ["7 run.queued"]);
        assert_eq!(api.events("t1", "Last-Event-ID=6").await.take(1).await, ["7 run.queued"], "the gap's id resumes after it");
    }
}

#[tokio::test]
async fn a_stream_token_reads_one_thread_for_five_minutes() {
    for mut api in each(required).await {
        api.sign_in("ann").await;
        api.complete("t1", "r1", "Hi").await;
        api.complete("t2", "r2", "Ho").await;
        let (status, body) = read(api.post("/runs/t1/stream-token")).await;
        assert_eq!((status, &body["expiresIn"]), (200, &json!(300)));
        assert_eq!(read(api.post("/runs/t9/stream-token")).await.0, 404);
        let token = body["token"].as_str().unwrap().to_owned();
        api.be(None);
        let query = format!("access_token={token}");
        assert_eq!(api.events("t1", &query).await.rest().await, FIRST);
        assert_eq!(read(api.get(&format!("/runs/t2/events?{query}"))).await.0, 403);
        assert_eq!(read(api.get("/runs/t1/events")).await.0, 401);
        assert_eq!(read(api.get("/runs/t1/events?access_token=x")).await.0, 401);
        api.be(Some(&token));
        for request in [api.get("/runs"), api.get("/history"), api.post("/runs").json(&run_body("t1", "r3"))] {
            assert_eq!(read(request).await.0, 401, "it is no user's token");
        }
        api.be(None);
        api.app.clock.advance(Duration::from_secs(300));
        assert_eq!(read(api.get(&format!("/runs/t1/events?{query}"))).await.0, 401);
    }
}
