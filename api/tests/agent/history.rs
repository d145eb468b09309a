use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{TestApi, each, read};

const HOUR: Duration = Duration::from_secs(3600);

async fn history(api: &TestApi, query: &str) -> Value {
    let (status, body) = read(api.get(&format!("/history?{query}"))).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

fn brief(body: &Value) -> (Option<&str>, bool, usize) {
    (body["day"].as_str(), body["hasMore"].as_bool().unwrap(), body["messages"].as_array().unwrap().len())
}

#[tokio::test]
async fn messages_have_the_documented_shape() {
    for api in each(|_| {}).await {
        let nothing = json!({ "scope": "history_day", "threadId": null, "day": null, "hasMore": false, "messages": [] });
        assert_eq!(history(&api, "").await, nothing);
        assert_eq!(read(api.get("/history?threadId=t1")).await.0, 404);
        let body = json!({ "threadId": "t1", "runId": "r1", "messages": [
            { "id": "m1", "role": "user", "content": [
                { "type": "text", "text": "Look:" }, { "type": "image", "source": { "type": "url", "value": "https://x.test/a.png" } },
            ] },
            { "id": "m2", "role": "assistant", "toolCalls": [
                { "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{}" } },
            ] },
            { "id": "m3", "role": "tool", "toolCallId": "c1", "content": "a cat" },
        ] });
        assert_eq!(read(api.post("/runs").json(&body)).await.0, 200);
        let timestamp = "2026-03-16T10:00:00.000000Z";
        let call = json!({ "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{}" } });
        let expected = json!({
            "scope": "history_day", "threadId": "t1", "day": "2026-03-16", "hasMore": false, "messages": [
                { "id": "m1", "seq": 1, "role": "user", "content": "Look:", "url": "https://x.test/a.png", "timestamp": timestamp },
                { "id": "m2", "seq": 2, "role": "assistant", "content": "", "url": null, "toolCalls": [call], "timestamp": timestamp },
                { "id": "m3", "seq": 3, "role": "tool", "content": "a cat", "url": null, "toolCallId": "c1", "timestamp": timestamp },
            ],
        });
        assert_eq!(history(&api, "").await, expected, "{}", api.name());
    }
}

#[tokio::test]
async fn days_are_utc_unless_a_time_zone_moves_them() {
    for api in each(|_| {}).await {
        // 10:00 and 23:00 on the 16th, 02:00 on the 18th, UTC.
        api.complete("t1", "r1", "a").await;
        api.app.clock.advance(HOUR * 13);
        api.complete("t1", "r2", "b").await;
        api.app.clock.advance(HOUR * 27);
        api.complete("t1", "r3", "c").await;
        let cases = [
            ("", Some("2026-03-18"), true, 2),
            ("before=2026-03-18", Some("2026-03-16"), false, 4),
            ("before=2026-03-17", Some("2026-03-16"), false, 4),
            ("before=2026-03-16", None, false, 0),
            ("tz=Europe/Zurich", Some("2026-03-18"), true, 2),
            ("tz=Europe/Zurich&before=2026-03-18", Some("2026-03-17"), true, 2),
            ("tz=Europe/Zurich&before=2026-03-17", Some("2026-03-16"), false, 2),
            ("tz=America/New_York", Some("2026-03-17"), true, 2),
        ];
        for (query, day, more, count) in cases {
            assert_eq!(brief(&history(&api, &format!("threadId=t1&{query}")).await), (day, more, count), "{query}");
        }
        api.complete("t2", "r4", "d").await;
        assert_eq!(history(&api, "").await["threadId"], json!("t2"), "the latest thread");
        for bad in ["2026-02-30", "2026-3-1", "today", "2026-03-16T00:00:00Z", "+026-03-16"] {
            assert_eq!(read(api.get("/history").query(&[("before", bad)])).await.0, 400, "{bad}");
        }
        assert_eq!(read(api.get("/history?tz=CEST2")).await.0, 400);
    }
}
