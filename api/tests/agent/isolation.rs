use reqwest::{RequestBuilder, multipart};
use serde_json::json;

use crate::support::{TestApi, each, read, required, run_body};

/// Every route that names a thing, and what it answers when the thing is there.
fn routes(api: &TestApi, task: &str, path: &str) -> Vec<(&'static str, RequestBuilder)> {
    let with_attachment = json!({
        "threadId": "mine", "runId": "r-other", "messages": [{ "id": "m", "role": "user", "content": [
            { "type": "document", "source": { "bucket": "attachments", "path": path } },
        ] }],
    });
    let signed = [("bucket", "attachments"), ("path", path)];
    vec![
        ("get run", api.get(&format!("/runs/{task}"))),
        ("list", api.get("/runs?threadId=t1")),
        ("events", api.get("/runs/t1/events?Last-Event-ID=0&idle_limit=1")),
        ("events as AG-UI", api.get("/runs/t1/events?format=agui&idle_limit=1")),
        ("stream token", api.post("/runs/t1/stream-token")),
        ("history", api.get("/history?threadId=t1")),
        ("signed URL", api.get("/attachments/signed-url").query(&signed)),
        ("run with an attachment", api.post("/runs").json(&with_attachment)),
        ("cancel", api.post(&format!("/runs/{task}/cancel"))),
        ("retry", api.post(&format!("/runs/{task}/retry"))),
    ]
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_there() {
    for mut api in each(required).await {
        let ann = api.sign_in("ann").await;
        let task = api.post_run("t1", "r1").await.to_string();
        let (_, uploaded) = api.upload("t1", "a.txt", b"words").await;
        let path = uploaded["attachment"]["path"].as_str().unwrap().to_owned();

        let ben = api.sign_in("ben").await;
        for (route, request) in routes(&api, &task, &path) {
            let (status, body) = read(request).await;
            assert_eq!(status, 404, "{} {route}: {body}", api.name());
        }
        assert_eq!(read(api.get(&format!("/transcribe/{task}"))).await.0, 404);
        assert_eq!(read(api.get("/runs")).await.1["runs"], json!([]));
        assert_eq!(read(api.get("/history")).await.1["threadId"], json!(null));
        // A thread of the same name is another thread, a run of the same name another run.
        assert_eq!(read(api.post("/runs").json(&run_body("t1", "r1"))).await.0, 200);
        assert_eq!(api.events("t1", "idle_limit=1").await.take(1).await, ["1 run.queued"]);
        let form = multipart::Form::new().text("threadId", "t1").part("file", crate::support::file("b.txt", b"x"));
        let theirs = read(api.post("/attachments").multipart(form)).await.1["attachment"]["path"].as_str().unwrap().to_owned();
        assert_ne!(theirs.split('/').next(), path.split('/').next());

        api.be(Some(&ann));
        for (route, request) in routes(&api, &task, &path) {
            let status = request.send().await.unwrap().status();
            assert_eq!(status, 200, "{} {route}", api.name());
        }
        api.be(None);
        for (route, request) in routes(&api, &task, &path) {
            assert_eq!(read(request).await.0, 401, "{} {route}", api.name());
        }
        drop(ben);
    }
}
