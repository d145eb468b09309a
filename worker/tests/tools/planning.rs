//! Tasks, as agents change them.
use runmill_shared::{
    domain::{caller::Caller, goal::NewGoal},
    services::{goals, tasks},
};
use runmill_worker::tools::{ToolContext, ToolScope};
use serde_json::{Value, json};

use crate::support::{context, tools};

/// The context of a run that is about a goal.
async fn about_a_goal() -> ToolContext {
    let cx = context().await;
    let new = NewGoal { title: "a goal".into(), ..NewGoal::default() };
    let goal = goals::create(&cx.app, &Caller::run_of(&cx.scope.owner), new).await.unwrap().goal.id;
    ToolContext { scope: ToolScope { goal_id: Some(goal), ..cx.scope.clone() }, ..cx }
}

fn at(cx: &ToolContext, step: &str) -> ToolContext {
    ToolContext { step_key: step.to_owned(), ..cx.clone() }
}

async fn create(cx: &ToolContext, arguments: Value) -> Value {
    let step = arguments["title"].as_str().unwrap().to_owned();
    tools(&[]).call("task_create", &at(cx, &step), arguments).await.unwrap()
}

async fn update(cx: &ToolContext, arguments: Value) -> Result<Value, String> {
    let outcome = tools(&[]).call("task_update", cx, arguments).await;
    outcome.map(|task| task["status"].clone()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_task_is_made_once_however_often_the_call_is() {
    let cx = about_a_goal().await;
    let a = create(&cx, json!({"title": "Find it", "key": "find"})).await;
    assert_eq!(a["goal_id"], json!(cx.scope.goal_id));
    assert_eq!((&a["key"], &a["status"], &a["depends_on"]), (&json!("find"), &json!("ready"), &json!([])));
    let again = create(&cx, json!({"title": "Find it", "key": "find"})).await;
    assert_eq!(again, a, "the same call");
    let b = create(&cx, json!({"title": "Write it", "depends_on": ["find"], "priority": 2, "requires_approval": true})).await;
    assert_eq!((&b["key"], &b["status"], &b["depends_on"]), (&json!("task-2"), &json!("pending"), &json!(["find"])));
    let listed = tools(&[]).call("task_list", &cx, json!({})).await.unwrap();
    assert_eq!(listed, json!({ "tasks": [a, b], "total": 2 }));
    let ready = tools(&[]).call("task_list", &cx, json!({"status": "ready"})).await.unwrap();
    assert_eq!(ready, json!({ "tasks": [a], "total": 1 }));
    let e = tools(&[]).call("task_create", &at(&cx, "x"), json!({"title": "x", "depends_on": ["gone"]})).await.unwrap_err();
    assert_eq!((&*e.code, e.message.as_str()), ("TASK_NOT_FOUND", "there is no task \"gone\"; there are: find, task-2"));
    let taken = tools(&[]).call("task_create", &at(&cx, "y"), json!({"title": "y", "key": "find"})).await.unwrap_err();
    assert_eq!(taken.code, "TASK_EXISTS");
    // Without a goal it stands by itself.
    let alone = ToolContext { scope: ToolScope { goal_id: None, ..cx.scope.clone() }, ..cx };
    assert_eq!(create(&alone, json!({"title": "Alone"})).await.get("goal_id"), None);
    let listed = tools(&[]).call("task_list", &alone, json!({})).await.unwrap();
    assert_eq!(listed["total"], 3);
}

#[tokio::test]
async fn a_task_is_changed_and_ended_where_nobody_executes_it() {
    let cx = about_a_goal().await;
    for (title, on) in [("a", json!([])), ("b", json!(["a"])), ("c", json!(["b"]))] {
        create(&cx, json!({"title": title, "key": title, "depends_on": on})).await;
    }
    let of = |task: &str, status: &str| json!({"task": task, "status": status});
    let cycle = update(&cx, json!({"task": "a", "depends_on": ["c"]})).await.unwrap_err();
    assert!(cycle.starts_with("INVALID_ARGUMENTS") && cycle.contains("a → c → b → a"), "{cycle}");
    let early = update(&cx, of("b", "completed")).await.unwrap_err();
    assert_eq!(early, "TASK_STATE: the task is pending; only a claimed or running task can be completed");
    assert_eq!(update(&cx, json!({"task": "a", "status": "completed", "result": {"n": 1}})).await, Ok(json!("completed")));
    assert_eq!(update(&cx, of("a", "completed")).await, Ok(json!("completed")), "the same again");
    assert!(update(&cx, of("a", "failed")).await.unwrap_err().starts_with("TASK_STATE"));
    assert_eq!(
        update(&cx, json!({"task": "b", "title": "B", "status": "failed", "reason": "no way"})).await,
        Ok(json!("failed"))
    );
    let listed = tools(&[]).call("task_list", &cx, json!({})).await.unwrap();
    assert_eq!((&listed["tasks"][1]["title"], &listed["tasks"][1]["error"]), (&json!("B"), &json!("no way")));
    assert_eq!(listed["tasks"][2]["status"], "failed", "what depends on it cannot be done");
    let caller = Caller::run_of(&cx.scope.owner);
    let board = goals::tree(&cx.app, &caller, cx.scope.goal_id.unwrap()).await.unwrap();
    assert_eq!(board[0].result, Some(json!({"n": 1})));
    tasks::retry(&cx.app, &caller, board[1].id).await.unwrap();
    assert_eq!(update(&cx, of("b", "cancelled")).await, Ok(json!("cancelled")));

    let other = context().await;
    let foreign = json!({"goal_id": cx.scope.goal_id, "title": "x"});
    let e = tools(&[]).call("task_create", &other, foreign).await.unwrap_err();
    assert_eq!(e.code, "GOAL_NOT_FOUND");
}

#[tokio::test]
async fn a_goal_is_made_and_started_once_however_often_the_call_is() {
    let cx = context().await;
    let wanted = json!({"title": "Learn Rust", "description": "well", "start": true});
    let made = tools(&[]).call("goal_create", &cx, wanted.clone()).await.unwrap();
    assert_eq!((&made["title"], &made["status"]), (&json!("Learn Rust"), &json!("active")));
    assert_eq!(tools(&[]).call("goal_create", &cx, wanted).await.unwrap(), made, "the same call");
    let caller = Caller::run_of(&cx.scope.owner);
    let goal = goals::get(&cx.app, &caller, made["id"].as_str().unwrap().parse().unwrap()).await.unwrap().goal;
    assert_eq!(made["execution_id"], json!(goal.run_id));
    let draft = tools(&[]).call("goal_create", &at(&cx, "another"), json!({"title": "Rest"})).await.unwrap();
    assert_eq!((draft["status"].as_str(), draft.get("execution_id")), (Some("draft"), None));
    let e = tools(&[]).call("goal_create", &at(&cx, "bad"), json!({"title": " "})).await.unwrap_err();
    assert!(e.code == "INVALID_ARGUMENTS" && e.message.contains("title"), "{e}");
}
