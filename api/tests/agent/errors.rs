use reqwest::Method;
use serde_json::json;

use crate::support::{content, each, read, required};

#[tokio::test]
async fn every_refusal_has_the_same_envelope() {
    for mut api in each(required).await {
        let refused = api.get("/runs").send().await.unwrap();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        assert_eq!(refused.headers()["content-type"], "application/json; charset=utf-8");
        let detail = "sign in first: send Authorization: Bearer with a token or an API key";
        assert_eq!(content(refused).await, (401, json!({ "detail": detail })));
        api.sign_in("ann").await;
        let nothing = "nothing is at this address";
        let cases = [
            (Method::GET, "/nowhere", 404, nothing),
            (Method::GET, "/runs/no-uuid", 404, nothing),
            (Method::GET, "/transcribe/no-uuid", 404, nothing),
            (Method::GET, "/runs/00000000-0000-0000-0000-000000000000", 404, "no such run"),
            (Method::GET, "/runs/t1/events", 404, "no such thread"),
            (Method::DELETE, "/runs", 405, "method not allowed"),
            (Method::GET, "/attachments/signed-url", 400, "bucket: is required"),
            (Method::GET, "/history?before=2026-3-1", 400, "before: must be a date, as 2026-03-15"),
            (Method::GET, "/history?tz=Mars/Olympus", 400, "tz: must be an IANA time zone, as Europe/Zurich"),
            (Method::POST, "/runs", 400, "the body is empty; JSON is wanted"),
            (Method::POST, "/agui", 400, "the body is empty; JSON is wanted"),
            (Method::POST, "/attachments", 400, "the body is no form; multipart/form-data is wanted"),
            (Method::POST, "/transcribe", 400, "the body is no form; multipart/form-data is wanted"),
        ];
        for (method, path, status, detail) in cases {
            let answer = read(api.request(method, &format!("/api/v1/agent{path}"))).await;
            assert_eq!(answer, (status, json!({ "detail": detail })), "{path}");
        }
    }
}
