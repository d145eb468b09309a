//! A task that somebody has an agent execute.
use runmill_testkit::http_client::soon;
use serde_json::json;

use crate::support::each;

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_task_is_executed_once_and_its_answer_is_its_result() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let task = bob.create("/tasks", json!({ "title": "count the sheep", "description": "All of them." })).await;
        let path = format!("/tasks/{}", task["id"].as_str().unwrap());
        let (status, started) = bob.act(&format!("{path}/execute")).await;
        assert_eq!((status, &started["status"]), (202, &json!("queued")), "{}: {started}", platform.name());
        assert_eq!(started["execution_id"], started["task_id"]);
        let execution = started["execution_id"].as_str().unwrap().parse().unwrap();
        platform.ended("bob", execution).await;
        // What the run's end makes of the task follows in a transaction of its own.
        let completed = async {
            loop {
                let (_, task) = bob.get(&path).await;
                if task["status"] == "completed" {
                    break task;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let done = soon("the task is completed", completed).await;
        assert_eq!((&done["result"]["content"], &done["execution_id"]), (&json!("ok"), &started["execution_id"]));
        let asked = platform.model.requests()[0].user();
        assert!(asked.starts_with("# Your task: count the sheep\nAll of them.\n"), "{asked}");
        let (status, refused) = bob.act(&format!("{path}/execute")).await;
        assert_eq!((status, &refused["error"]), (409, &json!("TASK_NOT_READY")), "{refused}");
        let (status, execution) = bob.get(&format!("/executions/{execution}")).await;
        assert_eq!((status, &execution["kind"]), (200, &json!("task")), "{execution}");
    }
}
