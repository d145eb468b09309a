//! Schedules: made, changed, fired by the worker and by hand, and their history.
use std::time::Duration;

use runmill_testkit::http_client::soon;
use serde_json::{Value, json};

use crate::support::{Session, TestPlatform, each};

/// The bad fields that an answer names, in order.
fn fields(answer: &Value) -> Vec<&str> {
    let mut all: Vec<_> = answer["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect();
    all.sort_unstable();
    all
}

async fn deployed(ann: &Session<'_>) -> String {
    let agent = ann.create("/agents", json!({ "name": "nightly" })).await["id"].as_str().unwrap().to_owned();
    let (status, told) = ann.act(&format!("/agents/{agent}/deploy")).await;
    assert_eq!(status, 200, "{told}");
    agent
}

async fn made(platform: &TestPlatform, body: Value) -> (Value, String) {
    let made = platform.as_("ann").create("/agent-schedules", body).await;
    let path = format!("/agent-schedules/{}", made["id"].as_str().unwrap());
    (made, path)
}

#[tokio::test]
async fn a_schedule_is_kept_changed_and_deleted() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let agent = deployed(&ann).await;
        let body = json!({ "name": "nightly", "agent_id": agent, "cron": "30 2 * * *", "timezone": "America/New_York",
            "input": { "task": "report" }, "overlap": "buffer_one", "catch_up": { "max": 3 }, "jitter_seconds": 60,
            "starts_at": "2030-03-09T00:00:00-05:00" });
        let (schedule, path) = made(&platform, body).await;
        assert_eq!((&schedule["version"], &schedule["enabled"], &schedule["failures"]), (&json!(1), &json!(true), &json!(0)));
        assert_eq!(schedule["catch_up"], json!({ "window_seconds": 3600, "max": 3 }), "what is not said is as the settings say");
        // The clocks of New York skip 02:30 on the tenth.
        let expected = json!([
            "2030-03-09T07:30:00+00:00",
            "2030-03-10T07:00:00+00:00",
            "2030-03-11T06:30:00+00:00",
            "2030-03-12T06:30:00+00:00",
            "2030-03-13T06:30:00+00:00"
        ]);
        assert_eq!(schedule["next_fire_times"], expected, "{schedule}");
        assert_eq!((&schedule["input"], &schedule["last_runs"]), (&json!({ "task": "report" }), &json!([])));
        let (status, changed) = ann.put(&path, json!({ "version": 1, "enabled": false, "starts_at": null })).await;
        assert_eq!((status, &changed["version"], &changed["next_fire_times"]), (200, &json!(2), &json!([])), "{changed}");
        assert_eq!((&changed["starts_at"], &changed["cron"]), (&Value::Null, &json!("30 2 * * *")));
        let (status, conflict) = ann.put(&path, json!({ "version": 1, "name": "other" })).await;
        assert_eq!((status, &conflict["error"]), (409, &json!("VERSION_CONFLICT")));
        let goal = json!({ "goal_id": "00000000-0000-0000-0000-000000000000" });
        let (status, gone) = ann.put(&path, goal).await;
        assert_eq!((status, &gone["error"]), (404, &json!("GOAL_NOT_FOUND")));
        let (_, list) = ann.get("/agent-schedules?status=paused&search=NIGHT&sort=-name").await;
        assert_eq!((&list["total"], &list["items"][0]), (&json!(1), &changed), "{list}");
        assert_eq!(ann.get("/agent-schedules?status=enabled").await.1["total"], 0);
        assert_eq!(ann.get(&path).await.1, changed);
        assert_eq!((ann.delete(&path).await.0, ann.delete(&path).await.0, ann.get(&path).await.0), (204, 404, 404));
    }
}

#[tokio::test]
async fn every_bad_field_is_named() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let agent = deployed(&ann).await;
        let bad = json!({ "agent_id": agent, "goal_id": "00000000-0000-0000-0000-000000000000", "cron": "61 * * * *",
            "timezone": "Mars/Olympus", "overlap": "maybe", "starts_at": "2031-01-01T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z",
            "catch_up": { "window_seconds": 1, "max": 0 }, "max_failures": 0, "jitter_seconds": 100_000 });
        let (status, answer) = ann.post("/agent-schedules", bad).await;
        let all = [
            "agent_id",
            "catch_up.max",
            "catch_up.window_seconds",
            "cron",
            "ends_at",
            "input",
            "jitter_seconds",
            "max_failures",
            "name",
            "overlap",
            "timezone",
        ];
        assert_eq!((status, fields(&answer)), (422, all.to_vec()), "{answer}");
        let body = |change: Value| {
            let mut body = json!({ "name": "n", "agent_id": agent, "cron": "*/5 * * * *", "input": "go" });
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            body
        };
        for (change, field) in [
            (json!({ "cron": "0 0 30 2 *" }), "cron"),
            (json!({ "jitter_seconds": 300 }), "jitter_seconds"),
            (json!({ "ends_at": "2020-01-01T00:00:00Z" }), "ends_at"),
            (json!({ "enabled": "yes" }), "enabled"),
            (json!({ "workflow_id": "no id" }), "workflow_id"),
        ] {
            let (status, answer) = ann.post("/agent-schedules", body(change)).await;
            assert_eq!((status, answer["details"][0]["field"].as_str()), (422, Some(field)), "{answer}");
        }
        let unknown = json!({ "agent_id": "00000000-0000-0000-0000-000000000000" });
        let (status, answer) = ann.post("/agent-schedules", body(unknown)).await;
        assert_eq!((status, &answer["error"]), (404, &json!("AGENT_NOT_FOUND")));
        let (_, path) = made(&platform, body(json!({}))).await;
        let (status, answer) = ann.get(&format!("{path}/fires?cursor=x&limit=0")).await;
        assert_eq!((status, fields(&answer)), (422, vec!["cursor", "limit"]));
    }
    let few = |c: &mut runmill_shared::config::Config| {
        (c.schedules.max_per_user, c.schedules.min_interval) = (1, Duration::from_secs(60));
    };
    for platform in each(few).await {
        let ann = platform.as_("ann");
        let body = |cron: &str| json!({ "name": "n", "agent_id": "demo", "cron": cron, "input": "go" });
        let (status, answer) = ann.post("/agent-schedules", body("*/30 * * * * *")).await;
        assert_eq!((status, fields(&answer)), (422, vec!["cron"]));
        made(&platform, body("* * * * *")).await;
        let (status, answer) = ann.post("/agent-schedules", body("* * * * *")).await;
        assert_eq!((status, &answer["error"]), (409, &json!("TOO_MANY_SCHEDULES")));
        platform.as_("bob").create("/agent-schedules", body("* * * * *")).await;
    }
}

#[tokio::test]
async fn it_is_fired_and_what_came_of_it_is_shown() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let agent = deployed(&ann).await;
        let body = json!({ "name": "often", "agent_id": agent, "cron": "* * * * * *", "input": "what is new?" });
        let (_, path) = made(&platform, body).await;
        let schedule = soon("two runs have ended", async {
            loop {
                let (_, schedule) = ann.get(&path).await;
                let runs = schedule["last_runs"].as_array().unwrap();
                if runs.iter().filter(|run| run["status"] == "completed").count() >= 2 {
                    return schedule;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let last = &schedule["last_runs"].as_array().unwrap().iter().find(|run| run["status"] == "completed").unwrap();
        let (status, run) = ann.get(&format!("/executions/{}", last["execution_id"].as_str().unwrap())).await;
        assert_eq!(
            (status, &run["kind"], &run["agent_id"], &run["input"]),
            (200, &json!("agent"), &json!(agent), &json!({ "message": "what is new?" }))
        );
        // A whole second.
        let instant = last["scheduled_for"].as_str().unwrap();
        assert!(instant.ends_with("+00:00") && !instant.contains('.'), "{instant}");
        assert_eq!(ann.put(&path, json!({ "enabled": false })).await.0, 200);
        let (status, fired) = ann.act(&format!("{path}/trigger")).await;
        assert_eq!((status, &fired["status"]), (202, &json!("queued")), "{fired}");
        assert_eq!(fired["execution_id"], fired["task_id"]);
        let (_, history) = ann.get(&format!("{path}/fires?limit=1")).await;
        let (first, cursor) = (&history["items"][0], history["next_cursor"].as_str().unwrap());
        assert_eq!((&first["by_hand"], &first["execution_id"]), (&json!(true), &fired["execution_id"]));
        let (_, rest) = ann.get(&format!("{path}/fires?cursor={cursor}")).await;
        let rest = rest["items"].as_array().unwrap();
        assert!(
            rest.len() >= 2
                && rest.iter().all(|fire| fire["by_hand"] == false && fire["scheduled_for"] != first["scheduled_for"])
        );
        // Draining answers for the run by hand, too.
        platform.ended("ann", fired["execution_id"].as_str().unwrap().parse().unwrap()).await;
        let bob = platform.as_("bob");
        for (status, answer) in [bob.get(&path).await, bob.delete(&path).await, bob.act(&format!("{path}/trigger")).await] {
            assert_eq!((status, &answer["error"]), (404, &json!("SCHEDULE_NOT_FOUND")));
        }
        assert_eq!(ann.delete(&path).await.0, 204);
        assert_eq!(ann.get(&format!("/executions/{}", fired["execution_id"].as_str().unwrap())).await.0, 200, "its runs stay");
    }
}

#[tokio::test]
async fn what_cannot_be_fired_by_hand_says_why() {
    for platform in each(|_| {}).await {
        let ann = platform.as_("ann");
        let agent = ann.create("/agents", json!({ "name": "draft" })).await["id"].clone();
        let (_, path) = made(&platform, json!({ "name": "d", "agent_id": agent, "cron": "@yearly", "input": "go" })).await;
        let (status, answer) = ann.act(&format!("{path}/trigger")).await;
        assert_eq!((status, &answer["error"]), (409, &json!("AGENT_NOT_PUBLISHED")));
        let workflow = json!({ "name": "w", "workflow_id": "00000000-0000-0000-0000-000000000000", "cron": "@yearly" });
        let (_, path) = made(&platform, workflow).await;
        let (status, answer) = ann.act(&format!("{path}/trigger")).await;
        assert_eq!((status, &answer["error"]), (409, &json!("WORKFLOWS_UNAVAILABLE")));
        assert_eq!(ann.get(&format!("{path}/fires")).await.1["items"], json!([]));
    }
}
