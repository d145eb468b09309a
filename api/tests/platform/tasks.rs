use futures::future::join_all;
use runmill_shared::{
    domain::{
        caller::{Caller, Role},
        goal::{GoalStatus, NewGoal, Settings},
    },
    services::{goals, runs::after::After},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Session, TestPlatform, each};

async fn caller(platform: &TestPlatform, name: &str) -> Caller {
    let (_, me) = platform.as_(name).get("/auth/me").await;
    Caller::user(me["id"].as_str().unwrap().parse().unwrap(), Role::User)
}

async fn goal(platform: &TestPlatform, name: &str) -> String {
    let new =
        NewGoal { title: "a goal".into(), settings: Settings { task_attempts: 3, ..Settings::default() }, ..NewGoal::default() };
    goals::create(&platform.app, &caller(platform, name).await, new).await.unwrap().goal.id.to_string()
}

async fn task(session: &Session<'_>, body: Value) -> Value {
    session.create("/tasks", body).await
}

fn id(task: &Value) -> &str {
    task["id"].as_str().unwrap()
}

/// The status, and the error or the task's own status.
fn said((status, body): (u16, Value)) -> (u16, String) {
    let word = if status < 300 { &body["status"] } else { &body["error"] };
    (status, word.as_str().unwrap_or_default().to_owned())
}

fn is(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

/// The paths of a refusal's details.
fn named(body: &Value) -> Vec<&str> {
    body["details"].as_array().unwrap().iter().map(|d| d["field"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_claims_at_once_one_wins() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let goal = goal(&platform, "bob").await;
        for body in [json!({ "title": "alone" }), json!({ "title": "of a goal", "goal_id": goal })] {
            let task = task(&bob, body).await;
            let path = format!("/tasks/{}/claim", id(&task));
            let answers = join_all((0..20).map(|_| bob.act(&path))).await;
            let won: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
            assert_eq!(won.len(), 1, "{}: {answers:?}", platform.name());
            assert_eq!(won[0].1["status"], "claimed");
            assert!(won[0].1["claimed_by"].is_string() && won[0].1["claim_expires_at"].is_string());
            for (status, body) in answers.iter().filter(|(status, _)| *status != 200) {
                let message = "the task is claimed; only a ready task can be claimed";
                assert_eq!((*status, &body["error"], &body["message"]), (409, &json!("TASK_STATE"), &json!(message)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_from_hand_to_hand() {
    for platform in each(|_| {}).await {
        let bob = platform.as_("bob");
        let goal = goal(&platform, "bob").await;
        let first = task(&bob, json!({ "title": "first", "goal_id": goal, "key": "first", "requires_approval": true })).await;
        let on = json!({ "title": "then", "goal_id": goal, "depends_on": [id(&first)], "priority": 3 });
        let then = task(&bob, on).await;
        assert_eq!((&first["status"], &then["status"], &then["key"]), (&json!("ready"), &json!("pending"), &json!("task-2")));
        assert_eq!((&then["max_attempts"], &then["depends_on"]), (&json!(3), &json!([id(&first)])), "as the goal says");
        let (a, b) = (format!("/tasks/{}", id(&first)), format!("/tasks/{}", id(&then)));
        let (_, blockers) = bob.get(&format!("{b}/blockers")).await;
        let blocker = json!({ "type": "dependency", "id": id(&first), "title": "first", "status": "ready" });
        assert_eq!(blockers["items"], json!([blocker]), "{}", platform.name());
        let (_, available) = bob.get(&format!("/tasks/available/{goal}")).await;
        assert_eq!((&available["total"], &available["items"][0]["id"]), (&json!(1), &first["id"]));

        assert_eq!(said(bob.act(&format!("{b}/claim")).await), is(409, "TASK_STATE"));
        assert_eq!(said(bob.act(&format!("{a}/release")).await), is(409, "TASK_STATE"));
        assert_eq!(said(bob.act(&format!("{a}/complete")).await), is(409, "TASK_STATE"), "nobody has taken it");
        assert_eq!(said(bob.act(&format!("{a}/claim")).await), is(200, "claimed"));
        assert_eq!(said(bob.delete(&a).await), is(409, "TASK_NEEDED"));
        assert_eq!(said(bob.act(&format!("{a}/release")).await), is(200, "ready"));
        assert_eq!(said(bob.act(&format!("{a}/claim")).await), is(200, "claimed"));
        let result = json!({ "result": { "found": [1, 2] } });
        assert_eq!(said(bob.post(&format!("{a}/complete"), result.clone()).await), is(200, "in_review"));
        let (_, blockers) = bob.get(&format!("{a}/blockers")).await;
        assert_eq!((&blockers["items"][0]["type"], &blockers["items"][0]["status"]), (&json!("approval"), &json!("pending")));

        let (status, again) = bob.post(&format!("{a}/reject"), json!({ "comment": "more" })).await;
        assert_eq!((status, &again["status"], &again["attempt"]), (200, &json!("ready"), &json!(1)), "{again}");
        assert_eq!(again["error"]["message"], "more", "the next try sees it");
        bob.act(&format!("{a}/claim")).await;
        assert_eq!(said(bob.post(&format!("{a}/complete"), result.clone()).await), is(200, "in_review"));
        let (_, done) = bob.act(&format!("{a}/approve")).await;
        assert_eq!((&done["status"], &done["result"], &done["error"]), (&json!("completed"), &result["result"], &Value::Null));
        assert!(done["finished_at"].is_string());
        assert_eq!(said(bob.get(&b).await), is(200, "ready"));
        assert_eq!(said(bob.act(&format!("{a}/retry")).await), is(409, "TASK_STATE"), "what is done stays done");

        bob.act(&format!("{b}/claim")).await;
        assert_eq!(bob.post(&format!("{b}/fail"), json!({ "reason": "" })).await.0, 422);
        let (_, failed) = bob.post(&format!("{b}/fail"), json!({ "reason": "no way" })).await;
        assert_eq!((&failed["status"], &failed["error"]["message"]), (&json!("failed"), &json!("no way")));
        assert_eq!(said(bob.act(&format!("{b}/retry")).await), is(200, "ready"));
        assert_eq!(said(bob.act(&format!("{b}/cancel")).await), is(200, "cancelled"));
        assert_eq!(said(bob.act(&format!("{b}/cancel")).await), is(409, "TASK_STATE"));
        let large = json!({ "result": "x".repeat(platform.app.config.goals.max_result_bytes) });
        let (status, refused) = bob.post(&format!("{b}/complete"), large).await;
        assert_eq!((status, named(&refused)), (422, vec!["result"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_put_where_it_can_stand() {
    for platform in each(|config| config.goals.max_depth = 2).await {
        let (bob, eve) = (platform.as_("bob"), platform.as_("eve"));
        let (goal, other) = (goal(&platform, "bob").await, goal(&platform, "bob").await);
        let new = async |key: &str, on: &[&Value]| {
            let on: Vec<_> = on.iter().map(|t| id(t)).collect();
            task(&bob, json!({ "title": key, "key": key, "goal_id": goal, "depends_on": on })).await
        };
        let (a, far) = (new("a", &[]).await, task(&bob, json!({ "title": "far", "goal_id": other })).await);
        let b = new("b", &[&a]).await;
        let c = new("c", &[&b]).await;
        let at = |t: &Value| format!("/tasks/{}", id(t));

        let (status, refused) = bob.put(&at(&a), json!({ "depends_on": [id(&c)] })).await;
        assert_eq!((status, named(&refused)), (422, vec!["depends_on"]), "{}", platform.name());
        assert!(refused["message"].as_str().unwrap().contains("a → c → b → a"), "{refused}");
        let (status, refused) = bob.put(&at(&a), json!({ "depends_on": [id(&far)], "parent_id": id(&far) })).await;
        assert_eq!((status, named(&refused)), (422, vec!["depends_on.0", "parent_id"]), "of another goal");
        assert_eq!(said(bob.put(&at(&a), json!({ "depends_on": [Uuid::nil()] })).await), is(404, "TASK_NOT_FOUND"));
        let theirs = task(&eve, json!({ "title": "hers" })).await;
        assert_eq!(said(bob.put(&at(&a), json!({ "parent_id": id(&theirs) })).await), is(404, "TASK_NOT_FOUND"));

        assert_eq!(said(bob.put(&at(&b), json!({ "parent_id": id(&a) })).await), is(200, "pending"));
        let (status, refused) = bob.put(&at(&c), json!({ "parent_id": id(&b) })).await;
        assert_eq!((status, named(&refused)), (422, vec!["parent_id"]), "too deep");
        let (status, refused) = bob.put(&at(&a), json!({ "parent_id": id(&a) })).await;
        assert_eq!((status, named(&refused)), (422, vec!["parent_id"]), "below itself");
        let (_, free) = bob.put(&at(&b), json!({ "parent_id": null, "depends_on": [] })).await;
        assert_eq!((&free["status"], &free["parent_id"], &free["version"]), (&json!("ready"), &Value::Null, &json!(4)), "{free}");
        assert_eq!(said(bob.put(&at(&b), json!({ "version": 1, "title": "late" })).await), is(409, "VERSION_CONFLICT"));
        assert_eq!(said(bob.put(&at(&b), json!({ "version": 4, "depends_on": [id(&a)] })).await), is(200, "pending"));
        bob.act(&format!("{}/claim", at(&a))).await;
        let (status, refused) = bob.put(&at(&a), json!({ "depends_on": [id(&c)] })).await;
        assert_eq!((status, &refused["error"]), (409, &json!("TASK_STATE")), "{refused}");
        let (_, renamed) = bob.put(&at(&a), json!({ "title": "A", "depends_on": [] })).await;
        assert_eq!((&renamed["title"], &renamed["status"]), (&json!("A"), &json!("claimed")), "what stays is no change");

        assert_eq!(said(bob.delete(&at(&b)).await), is(409, "TASK_NEEDED"));
        assert_eq!(bob.delete(&at(&c)).await.0, 204);
        assert_eq!(said(bob.delete(&at(&c)).await), is(404, "TASK_NOT_FOUND"));
        assert_eq!(said(bob.delete(&at(&a)).await), is(409, "TASK_NEEDED"));
        assert_eq!(bob.delete(&at(&b)).await.0, 204);
        assert_eq!(said(bob.delete(&at(&a)).await), is(409, "TASK_STATE"), "somebody is at it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tasks_are_refused_with_all_that_is_wrong() {
    for platform in each(|config| config.goals.max_tasks = 2).await {
        let bob = platform.as_("bob");
        let bad =
            json!({ "title": " ", "key": "a b", "max_attempts": 0, "priority": 1_000_000_000, "depends_on": [Uuid::nil()] });
        let (status, refused) = bob.post("/tasks", bad).await;
        assert_eq!((status, named(&refused)), (422, vec!["title", "priority", "max_attempts", "key", "depends_on"]), "{refused}");
        for priority in [i64::MIN, -1_000_001, 1_000_001, i64::MAX] {
            let (status, refused) = bob.post("/tasks", json!({ "title": "t", "priority": priority })).await;
            assert_eq!((status, named(&refused)), (422, vec!["priority"]), "{priority}: {refused}");
        }
        let (status, refused) = bob.post("/tasks", json!({ "assignee": { "kind": "dog" } })).await;
        assert_eq!((status, named(&refused).len()), (422, 3), "{refused}");
        for (kind, error) in [("agent", "AGENT_NOT_FOUND"), ("user", "USER_NOT_FOUND")] {
            let body = json!({ "title": "t", "assignee": { "kind": kind, "id": Uuid::nil() } });
            assert_eq!(said(bob.post("/tasks", body).await), is(404, error));
        }
        let (_, me) = bob.get("/auth/me").await;
        let mine = task(&bob, json!({ "title": "t", "assignee": { "kind": "user", "id": me["id"] } })).await;
        let (_, list) = bob.get(&format!("/tasks?assignee={}&status=ready&sort=-priority", me["id"].as_str().unwrap())).await;
        assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &mine["id"]));
        assert_eq!(bob.get("/tasks?status=lost").await.0, 422);
        let (_, free) = bob.put(&format!("/tasks/{}", id(&mine)), json!({ "assignee": null })).await;
        assert_eq!(free["assignee"], Value::Null);

        let goal = goal(&platform, "bob").await;
        let new = |key: &str| json!({ "title": "t", "goal_id": goal, "key": key });
        task(&bob, new("a")).await;
        assert_eq!(said(bob.post("/tasks", new("a")).await), is(409, "TASK_EXISTS"));
        task(&bob, new("b")).await;
        assert_eq!(said(bob.post("/tasks", new("c")).await), is(409, "TASK_LIMIT"));
        assert_eq!(said(platform.as_("eve").post("/tasks", new("d")).await), is(404, "GOAL_NOT_FOUND"));
        assert_eq!(bob.get(&format!("/tasks?goal_id={goal}")).await.1["total"], 2);
        end(&platform, goal.parse().unwrap()).await;
        assert_eq!(said(bob.post("/tasks", new("e")).await), is(409, "GOAL_STATE"));
    }
}

async fn end(platform: &TestPlatform, goal: Uuid) {
    let (app, mut after) = (&platform.app, After::default());
    let mut tx = app.db.begin().await.unwrap();
    let goal = goals::hold(&mut tx, goal).await.unwrap().unwrap();
    goals::move_to(&mut tx, &mut after, &goal, GoalStatus::Cancelled, None, app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
}
