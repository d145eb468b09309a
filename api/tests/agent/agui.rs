use reqwest::RequestBuilder;
use runmill_shared::domain::event::{NewEvent, kind};
use serde_json::{Value, json};

use crate::{
    support::{Sse, TestApi, each, read, run_body, soon},
    verifier::Verifier,
};

/// The stream to its end, as the stock client's verifier takes it: the types.
async fn verified(stream: &mut Sse) -> Vec<String> {
    let (mut verifier, mut types) = (Verifier::default(), Vec::new());
    while let Some(frame) = stream.frame().await {
        let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        verifier.take(&event).unwrap_or_else(|e| panic!("{e}: {event}"));
        types.push(event["type"].as_str().unwrap().to_owned());
    }
    types
}

const ANSWER: [&str; 5] = ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"];

async fn only_task(api: &TestApi, thread: &str) -> uuid::Uuid {
    let runs = read(api.get(&format!("/runs?threadId={thread}"))).await.1;
    runs["runs"][0]["taskId"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_run_is_posted_and_streamed_as_the_stock_client_wants_it() {
    for api in each(|_| {}).await {
        let post = |run: &str| api.post("/agui").header("Accept", "text/event-stream").json(&run_body("t1", run));
        let mut stream = api.open(post("r1")).await;
        assert_eq!(stream.response.headers()["content-type"], "text/event-stream");
        let run = api.claim(only_task(&api, "t1").await).await;
        api.answer(&run, "m1", "Sunny.").await;
        let first = stream.data().await;
        assert_eq!((&first["type"], &first["threadId"], &first["runId"]), (&json!("RUN_STARTED"), &json!("t1"), &json!("r1")));
        // A run that waits behind it is not in this stream, and does not keep it open.
        let behind = api.post_run("t1", "r2").await;
        api.finish(&run, "m1", "Sunny.").await;
        let mut rest = Vec::new();
        while let Some(frame) = stream.frame().await {
            rest.push(frame);
        }
        assert!(rest.last().unwrap().contains("RUN_FINISHED") && rest.len() == 4, "{rest:?}");

        let again = api.open(post("r1"));
        assert_eq!(verified(&mut again.await).await, ANSWER, "posted again: the same run, from its beginning");
        // Enqueued: the stream waits through the other run.
        let mut third = api.open(post("r3")).await;
        for (task, id) in [(behind, "m2"), (only_task(&api, "t1").await, "m3")] {
            let run = api.claim(task).await;
            api.answer(&run, id, "x").await;
            api.finish(&run, id, "x").await;
        }
        assert_eq!(verified(&mut third).await, ANSWER);
    }
}

#[tokio::test]
async fn the_run_goes_on_when_its_client_is_gone() {
    for api in each(|_| {}).await {
        let stream = api.open(api.post("/agui").json(&run_body("t1", "r1"))).await;
        drop(stream);
        let run = api.claim(only_task(&api, "t1").await).await;
        api.answer(&run, "m1", "Still here.").await;
        api.finish(&run, "m1", "Still here.").await;
        assert_eq!(api.history("t1").await["messages"][1]["content"], json!("Still here."));
    }
}

#[tokio::test]
async fn the_same_refusals_as_of_a_run() {
    for api in each(|_| {}).await {
        let body = json!({ "threadId": "t1" });
        let refused = read(api.post("/agui").json(&body)).await;
        assert_eq!(refused, (422, json!({ "detail": "runId: is required; messages: is required" })));
        assert_eq!(read(api.post("/runs").json(&run_body("t1", "r1"))).await.0, 200);
        let mut other = run_body("t1", "r1");
        other["state"] = json!(1);
        assert_eq!(read(api.post("/agui").json(&other)).await.0, 409);
        let mut reject = run_body("t1", "r2");
        reject["forwardedProps"] = json!({ "multitask": "reject" });
        assert_eq!(read(api.post("/agui").json(&reject)).await.0, 409);
    }
}

#[tokio::test]
async fn a_log_is_read_as_ag_ui_from_any_point() {
    for api in each(|config| config.events.page = 2).await {
        api.complete("t1", "r0", "Old").await;
        let task = api.post_run("t1", "r1").await;
        let run = api.claim(task).await;
        api.answer(&run, "m1", "Sun").await;
        let waiting = api.post_run("t1", "r2").await;
        api.tell(&run, vec![NewEvent::new(kind::TEXT_DELTA, json!({ "messageId": "m1", "delta": "ny." }))]).await;
        let asked = |query: &str, accept: &'static str| -> RequestBuilder {
            api.get(&format!("/runs/t1/events?{query}")).header("Accept", accept)
        };
        // 7 queued, 8 started, 9 message, 10 delta, 11 r2 queued, 12 delta.
        let mut resumed = Vec::new();
        for after in 7..=12 {
            resumed.push(api.open(asked(&format!("format=agui&Last-Event-ID={after}"), "*/*")).await);
        }
        let mut by_accept = api.open(asked("", "text/event-stream; profile=\"ag-ui\"")).await;
        api.finish(&run, "m1", "Sunny.").await;
        let run = api.claim(waiting).await;
        api.answer(&run, "m2", "x").await;
        api.finish(&run, "m2", "x").await;
        for stream in &mut resumed {
            let types = soon("the end", verified(stream)).await;
            assert_eq!((types.first().unwrap().as_str(), types.last().unwrap().as_str()), ("RUN_STARTED", "RUN_FINISHED"));
            assert_eq!(types.iter().filter(|t| *t == "RUN_FINISHED").count(), 2);
        }
        let types = verified(&mut by_accept).await;
        assert_eq!(types.len(), 11, "{types:?}");
        assert_eq!(read(asked("format=agui&Last-Event-ID=19", "*/*")).await.0, 204);
    }
}
