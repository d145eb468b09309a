use std::time::Duration;

use futures::future::join_all;
use runmill_shared::domain::run_input::RunInput;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestApi, each, read, run_body};

async fn post(api: &TestApi, body: &Value) -> (u16, Value) {
    read(api.post("/runs").json(body)).await
}

async fn post_with(api: &TestApi, body: &Value, key: &str) -> (u16, Value) {
    read(api.post("/runs").header("Idempotency-Key", key).json(body)).await
}

fn with(mut body: Value, props: Value) -> Value {
    body["forwardedProps"] = props;
    body
}

#[tokio::test]
async fn a_run_is_accepted_at_once_and_can_be_looked_at() {
    for api in each(|_| {}).await {
        let mut body = run_body("t1", "r1");
        body["state"] = json!({ "n": 1 });
        let (status, accepted) = post(&api, &body).await;
        let task: Uuid = accepted["taskId"].as_str().unwrap().parse().unwrap();
        let expected = json!({ "taskId": task, "threadId": "t1", "runId": "r1", "created": "2026-03-16T10:00:00.000000Z" });
        assert_eq!((status, accepted), (200, expected), "{}", api.name());

        let (status, run) = read(api.get(&format!("/runs/{task}"))).await;
        let expected = json!({
            "taskId": task, "threadId": "t1", "runId": "r1", "kind": "agent", "status": "queued", "attempt": 0,
            "priority": "normal", "agentId": "demo", "created": "2026-03-16T10:00:00.000000Z",
        });
        assert_eq!((status, run), (200, expected));

        let claimed = api.claim(task).await;
        let input: RunInput = serde_json::from_value(claimed.input.clone()).unwrap();
        assert_eq!((input.messages.len(), input.state), (0, Some(json!({ "n": 1 }))), "the thread has the messages");
        api.answer(&claimed, "m1", "Sunny.").await;
        api.finish(&claimed, "m1", "Sunny.").await;
        let run = read(api.get(&format!("/runs/{task}"))).await.1;
        assert_eq!((&run["status"], &run["result"]), (&json!("succeeded"), &json!("Sunny.")));
        assert_eq!(run["usage"], json!({ "inputTokens": 3, "outputTokens": 5 }));
        assert_eq!((&run["started"], &run["finished"]), (&run["created"], &run["created"]));
    }
}

#[tokio::test]
async fn the_same_request_is_accepted_once() {
    for api in each(|_| {}).await {
        let body = run_body("t1", "r1");
        let first = post(&api, &body).await;
        assert_eq!(first.0, 200);
        assert_eq!(post(&api, &body).await, first, "the same runId, the same body");
        let other = with(body.clone(), json!({ "own": 1 }));
        assert_eq!(post(&api, &other).await.0, 409, "the same runId, another body");
        let mut moved = body.clone();
        moved["threadId"] = json!("t2");
        assert_eq!(post(&api, &moved).await.0, 409, "the same runId in another thread");

        let keyed = run_body("t3", "k1");
        let first = post_with(&api, &keyed, "key 1").await;
        assert_eq!(first.0, 200);
        let mut again = keyed.clone();
        again["runId"] = json!("k2");
        assert_eq!(post_with(&api, &again, "key 1").await, first, "the same key, otherwise the same body");
        assert_eq!(post_with(&api, &run_body("t3", "k3"), "key 1").await.0, 409, "the same key, another body");
        let second = post_with(&api, &again, "key 2").await;
        assert!(second.0 == 200 && second != first, "another key is another run");
        api.app.clock.advance(Duration::from_secs(86_401));
        let mut late = keyed;
        late["runId"] = json!("k4");
        let third = post_with(&api, &late, "key 1").await;
        assert!(third.0 == 200 && third != first, "keys are kept for a day");
        assert_eq!(post_with(&api, &run_body("t", "x"), &"k".repeat(256)).await.0, 400);
        let runs = read(api.get("/runs?threadId=t1")).await.1;
        assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn requests_that_come_together_start_one_run() {
    for api in each(|_| {}).await {
        let body = run_body("t1", "r1");
        let answers = join_all((0..12).map(|_| post(&api, &body))).await;
        assert!(answers.iter().all(|a| a.0 == 200 && *a == answers[0]), "{answers:?}");
        let keyed = |i: usize| {
            let mut body = run_body("t1", "k");
            body["runId"] = json!(format!("k{i}"));
            body
        };
        let bodies: Vec<_> = (0..12).map(keyed).collect();
        let answers = join_all(bodies.iter().map(|body| post_with(&api, body, "key"))).await;
        assert!(answers.iter().all(|a| a.0 == 200 && *a == answers[0]), "{answers:?}");
        let runs = read(api.get("/runs?threadId=t1")).await.1;
        assert_eq!(runs["runs"].as_array().unwrap().len(), 2, "{}", api.name());
        let mut stream = api.events("t1", "Last-Event-ID=0").await;
        assert_eq!(stream.take(2).await, ["1 run.queued", "2 run.queued"]);
    }
}

#[tokio::test]
async fn a_run_keeps_its_options_and_its_trace() {
    for api in each(|_| {}).await {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let props = json!({ "model": "openai:x", "priority": "high", "agentId": "demo" });
        let request = api.post("/runs").header("traceparent", trace).json(&with(run_body("t1", "r1"), props));
        let task: Uuid = read(request).await.1["taskId"].as_str().unwrap().parse().unwrap();
        let run = read(api.get(&format!("/runs/{task}"))).await.1;
        assert_eq!((&run["model"], &run["priority"]), (&json!("openai:x"), &json!("high")));
        assert_eq!(api.claim(task).await.trace.as_deref(), Some(trace));

        let props = json!({ "runAt": "2026-03-16T12:00:00+01:00" });
        let (status, body) = post(&api, &with(run_body("t2", "r2"), props)).await;
        assert_eq!(status, 200);
        let run = read(api.get(&format!("/runs/{}", body["taskId"].as_str().unwrap()))).await.1;
        assert_eq!((&run["status"], &run["runAt"]), (&json!("queued"), &json!("2026-03-16T11:00:00.000000Z")));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_named_all_at_once() {
    for api in each(|_| {}).await {
        let cases = [
            (json!([]), 422, "body: must be a JSON object"),
            (
                json!({ "runId": "", "messages": {} }),
                422,
                "threadId: is required; runId: must be 1 to 128 characters, none of them a control character; messages: must be a list",
            ),
            (with(run_body("t", "r"), json!({ "agentId": "nobody" })), 422, "forwardedProps.agentId: there is no such agent"),
            (
                with(run_body("t", "r"), json!({ "model": "gpt" })),
                422,
                "forwardedProps.model: must be provider:name, as openai:gpt-4.1-mini",
            ),
            (
                with(run_body("t", "r"), json!({ "priority": "x", "runAt": "soon" })),
                422,
                "forwardedProps.priority: must be high, normal or low; forwardedProps.runAt: must be an RFC 3339 time, as 2026-03-16T10:00:00Z",
            ),
        ];
        for (body, status, detail) in cases {
            assert_eq!(post(&api, &body).await, (status, json!({ "detail": detail })));
        }
        let mut clash = run_body("t", "r");
        clash["tools"] = json!([{ "name": "calculator", "description": "mine" }]);
        let detail = "tools.0.name: the agent has a tool of its own named calculator";
        assert_eq!(post(&api, &clash).await, (422, json!({ "detail": detail })));
        let (status, body) = read(api.post("/runs").header("Content-Type", "application/json").body("{\"threadId\": ")).await;
        assert_eq!(status, 400);
        assert!(body["detail"].as_str().unwrap().starts_with("the body is no JSON: "), "{body}");
        let (status, _) = read(api.post("/runs").body(vec![b' '; 2_097_153])).await;
        assert_eq!(status, 413);
        let (status, listed) = read(api.get("/runs")).await;
        assert_eq!((status, listed), (200, json!({ "runs": [], "nextBefore": null })), "nothing was accepted");
    }
}

#[tokio::test]
async fn one_run_of_a_thread_at_a_time_and_four_ways_to_deal_with_it() {
    for api in each(|_| {}).await {
        let multitask = |how: &str, run: &str| with(run_body("t1", run), json!({ "multitask": how }));
        let first = api.post_run("t1", "r1").await;
        let reject = multitask("reject", "r2");
        assert_eq!(post(&api, &reject).await.0, 409);
        // The retry of an accepted run never meets itself.
        let alone = with(run_body("t2", "alone"), json!({ "multitask": "reject" }));
        let accepted = post(&api, &alone).await;
        assert_eq!((accepted.0, post(&api, &alone).await), (200, accepted));

        let second = api.post_run("t1", "r3").await;
        let status = |task: Uuid| {
            let request = api.get(&format!("/runs/{task}"));
            async move { read(request).await.1["status"].as_str().unwrap().to_owned() }
        };
        api.claim(first).await;
        assert_eq!(post(&api, &multitask("interrupt", "r4")).await.0, 200);
        assert_eq!((status(first).await, status(second).await), ("cancelled".into(), "queued".into()));

        let ids = |history: Value| -> Vec<String> {
            history["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(api.history("t1").await), ["r1-question", "r3-question", "r4-question"]);
        assert_eq!(post(&api, &multitask("rollback", "r5")).await.0, 200);
        assert_eq!(status(second).await, "cancelled");
        assert_eq!(ids(api.history("t1").await), ["r1-question", "r4-question", "r5-question"]);
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    for api in each(|config| config.runs.max_queued = 1).await {
        let body = run_body("t1", "r1");
        let accepted = post(&api, &body).await;
        assert_eq!(accepted.0, 200);
        let refused = api.post("/runs").json(&run_body("t2", "r2")).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "5"));
        assert_eq!(post(&api, &body).await, accepted, "an accepted run is answered whatever the queue's state");
    }
}

#[tokio::test]
async fn runs_are_cancelled_and_tried_again() {
    for api in each(|_| {}).await {
        let task = api.post_run("t1", "r1").await;
        let at = |what: &str| format!("/runs/{task}{what}");
        assert_eq!(read(api.post(&at("/retry"))).await.0, 409, "it has not ended");
        let (status, run) = read(api.post(&at("/cancel"))).await;
        assert_eq!((status, &run["status"]), (200, &json!("cancelled")));
        assert_eq!(read(api.post(&at("/cancel"))).await, (200, run), "it stays as it is");
        let (status, again) = read(api.post(&at("/retry"))).await;
        assert_eq!((status, &again["threadId"]), (200, &json!("t1")));
        assert_ne!(again["taskId"], json!(task));
        let run = read(api.get(&format!("/runs/{}", again["taskId"].as_str().unwrap()))).await.1;
        assert_eq!((&run["retryOf"], &run["status"]), (&json!(task), &json!("queued")));
        for unknown in [Uuid::nil().to_string(), "no-uuid".into()] {
            for (path, is_get) in [("", true), ("/cancel", false), ("/retry", false)] {
                let path = format!("/runs/{unknown}{path}");
                let request = if is_get { api.get(&path) } else { api.post(&path) };
                assert_eq!(read(request).await.0, 404, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages() {
    for api in each(|_| {}).await {
        for (thread, run) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")] {
            api.post_run(thread, run).await;
        }
        let list = async |query: &str| {
            let (status, body) = read(api.get(&format!("/runs?{query}"))).await;
            assert_eq!(status, 200, "{query}: {body}");
            let ids: Vec<_> = body["runs"].as_array().unwrap().iter().map(|r| r["runId"].as_str().unwrap().to_owned()).collect();
            (ids.join(" "), body["nextBefore"].as_str().map(str::to_owned))
        };
        assert_eq!(list("").await, ("4 3 2 1".into(), None));
        assert_eq!(list("threadId=a&status=queued").await.0, "4 3 1");
        assert_eq!(list("status=failed").await.0, "");
        let (page, next) = list("limit=3").await;
        assert_eq!(page, "4 3 2");
        assert_eq!(list(&format!("limit=3&before={}", next.unwrap())).await, ("1".into(), None));
        let bad = [
            ("limit=0", 400),
            ("limit=101", 400),
            ("limit=x", 400),
            ("before=x", 400),
            ("status=done", 400),
            ("threadId=c", 404),
        ];
        for (query, expected) in bad {
            assert_eq!(read(api.get(&format!("/runs?{query}"))).await.0, expected, "{query}");
        }
    }
}

/// What the stock client sends back is everything that it was shown.
#[tokio::test]
async fn the_clients_copy_of_a_history_does_not_double_it() {
    for api in each(|_| {}).await {
        api.complete("t1", "r1", "Hello.").await;
        let copy = json!([
            { "id": "r1-question", "role": "user", "content": "question of r1" },
            { "id": "r1-answer-reasoning", "role": "reasoning", "content": "Hm." },
            { "id": "r1-answer", "role": "assistant", "content": "Hello." },
            { "id": "lost", "role": "assistant", "content": "half an answer that was disc" },
            { "id": "plan", "role": "activity", "activityType": "PLAN", "content": {} },
            { "id": "c1-result", "role": "tool", "toolCallId": "c1", "content": "42" },
            { "id": "next", "role": "user", "content": "And?" },
        ]);
        let mut body = run_body("t1", "r2");
        body["messages"] = copy.clone();
        assert_eq!(post(&api, &body).await.0, 200);
        let ids = |history: Value| -> Vec<String> {
            let messages = history["messages"].as_array().unwrap().clone();
            messages.iter().map(|m| format!("{} {}", m["role"].as_str().unwrap(), m["id"].as_str().unwrap())).collect()
        };
        let expected = ["user r1-question", "assistant r1-answer", "tool c1-result", "user next"];
        assert_eq!(ids(api.history("t1").await), expected);

        // A conversation that began elsewhere is taken over.
        let mut imported = run_body("t2", "r3");
        imported["messages"] = copy;
        assert_eq!(post(&api, &imported).await.0, 200);
        let expected = ["user r1-question", "assistant r1-answer", "assistant lost", "tool c1-result", "user next"];
        assert_eq!(ids(api.history("t2").await), expected);
    }
}
