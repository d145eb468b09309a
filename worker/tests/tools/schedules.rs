//! `schedule_create`: what an agent schedules is its owner's, and made once.
use runmill_shared::store::schedules;
use serde_json::json;

use crate::support::{call, context};

#[tokio::test]
async fn a_schedule_is_made_once_however_often_the_call_is() {
    let cx = context().await;
    let arguments =
        json!({"name": "daily", "cron": "0 9 * * *", "timezone": "Europe/Vienna", "message": "report", "agent_id": "demo"});
    let made = call(&cx, "schedule_create", arguments.clone()).await.unwrap();
    assert_eq!(made["next_fire_times"][0], "2026-03-17T08:00:00.000000Z");
    assert_eq!(call(&cx, "schedule_create", arguments).await.unwrap()["schedule_id"], made["schedule_id"], "the same step");
    let id = made["schedule_id"].as_str().unwrap().parse().unwrap();
    let stored = schedules::owned(&cx.app.db, id, &cx.scope.owner).await.unwrap().unwrap();
    assert_eq!((stored.target.id.as_str(), stored.spec.input), ("demo", json!("report")));
}

#[tokio::test]
async fn what_it_is_refused_for_the_model_is_told() {
    let cx = context().await;
    let nobody = call(&cx, "schedule_create", json!({"name": "n", "cron": "@daily", "message": "m"})).await.unwrap_err();
    assert_eq!(nobody.code, "INVALID_ARGUMENTS");
    let bad = json!({"name": "n", "cron": "61 * * * *", "timezone": "Mars/Olympus", "message": "m", "agent_id": "demo"});
    let bad = call(&cx, "schedule_create", bad).await.unwrap_err();
    assert!(bad.code == "INVALID_ARGUMENTS" && bad.message.contains("cron") && bad.message.contains("timezone"), "{bad}");
    let unknown = json!({"name": "n", "cron": "@daily", "message": "m", "agent_id": "nobody"});
    assert_eq!(call(&cx, "schedule_create", unknown).await.unwrap_err().code, "AGENT_NOT_FOUND");
}
