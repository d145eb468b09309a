//! Results flow along the plan, as many run at once as may, and what fails is tried again.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn results_flow_along_the_plan() {
    for database in databases().await {
        let b = bench(database, says).await;
        let w = b.work(NewGoal::default(), &["a", "b", "c: a b", "d: c"]).await;
        let run = b.ended(&w, GoalStatus::Completed).await;
        assert_eq!(run.state, RunState::Succeeded, "{}", b.app.name());
        assert_eq!(run.result, Some(json!({ "status": "completed", "done": 4, "total": 4 })));
        let requests = b.model.requests();
        let order: Vec<_> = requests.iter().map(title).collect();
        assert_eq!((order.len(), &order[2], &order[3]), (4, &"c".to_owned(), &"d".to_owned()));
        let told = requests[2].user();
        assert!(told.contains("# Goal: Paint the fence\nAll of it.") && told.contains("Do c."), "{told}");
        for key in ["a", "b"] {
            assert!(told.contains(&format!("<result of=\"{key}\">\nresult of {key}\n</result>")), "{told}");
        }
        assert!(!requests[3].user().contains("result of a"), "it depends on c alone");
        assert_eq!(b.task(w.tasks["d"]).await.result.unwrap()["content"], "result of d");
        let usage = run.usage.unwrap();
        assert!(usage.input_tokens > 0 && usage.output_tokens > 0, "{usage:?}");
        let events = b.app.events(&thread_name(w.id)).await.unwrap();
        for (key, id) in &w.tasks {
            let mine: Vec<_> =
                of_kind(&events, kind::TASK_CHANGED).into_iter().filter(|e| e.data["taskId"] == json!(id)).collect();
            let statuses: Vec<_> = mine.iter().map(|e| e.data["status"].as_str().unwrap()).collect();
            assert_eq!(statuses[statuses.len() - 3..], ["ready", "running", "completed"], "{key}");
        }
        let last = of_kind(&events, kind::GOAL_CHANGED).into_iter().last().unwrap();
        assert_eq!((&last.data["status"], &last.data["progress"]["percent"]), (&json!("completed"), &json!(100)));
        assert_eq!(of_kind(&events, kind::RUN_STARTED).len(), 1);
    }
}

struct Lease(bool);

impl FromRow for Lease {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        Ok(Self(row.get::<i64>("held")? == 1))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_run_at_once_as_may_and_the_goal_waits_without_a_worker() {
    const HELD: Sql = Sql::both(
        "UPDATE runs SET wake_seq = wake_seq WHERE id = $1 RETURNING CAST(CASE WHEN lease_owner IS NULL THEN 0 ELSE 1 END AS BIGINT) AS held",
    );
    for database in databases().await {
        let gate = Gate::new();
        let held = gate.clone();
        let b = bench(database, move |r| says(r).hold_until(&held)).await;
        let w = b.work(parallel(2), &["a", "b", "c", "d", "e", "f"]).await;
        b.model.until(|c| c.open == 2).await.unwrap();
        let run = until_state(&b.app, w.run, RunState::Waiting).await;
        assert_eq!(run.waiting, Some(Waiting::Tasks { until: None }), "{}", b.app.name());
        let lease = query(HELD).bind(w.run).write::<Lease>(&b.app.app.db, Class::Request).await.unwrap();
        assert!(!lease[0].0);
        let statuses = b.statuses(&w).await;
        assert_eq!(statuses.values().filter(|s| **s == TaskStatus::Running).count(), 2, "{statuses:?}");
        gate.open();
        b.ended(&w, GoalStatus::Completed).await;
        assert_eq!((b.model.counts().most_open, b.model.counts().received), (2, 6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_then_what_depends_on_it_is_given_up() {
    for database in databases().await {
        let fails = |r: &Request| if title(r) == "a" { Reply::status(503) } else { says(r) };
        let b = bench(database, fails).await;
        let w = b.work(NewGoal::default(), &["a", "b: a", "c: b", "d"]).await;
        let run = b.ended(&w, GoalStatus::Failed).await;
        let error = run.error.unwrap();
        assert_eq!((run.state, error.code.as_str()), (RunState::Failed, "TASKS_FAILED"), "{}", b.app.name());
        assert_eq!(b.of(w.id).await.error.unwrap(), error);
        assert!(error.message.starts_with("3 of 4 tasks were not completed: a ("), "{}", error.message);
        assert_eq!((b.asked("a"), b.asked("b"), b.asked("c"), b.asked("d")), (2, 0, 0, 1));
        let failed = b.task(w.tasks["a"]).await;
        assert_eq!((failed.status, failed.attempt), (TaskStatus::Failed, 2));
        assert_eq!(b.task(w.tasks["d"]).await.status, TaskStatus::Completed, "the rest is done");
        let starved = b.task(w.tasks["c"]).await;
        assert_eq!((starved.status, starved.error.unwrap().code.as_str()), (TaskStatus::Failed, "DEPENDENCY_FAILED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_failed_goes_on_when_it_is_executed_again() {
    for database in databases().await {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let respond =
            move |r: &Request| if title(r) == "a" && !is_mended.load(Ordering::Relaxed) { Reply::status(503) } else { says(r) };
        let b = bench(database, respond).await;
        let once = Settings { task_attempts: 1, ..Settings::default() };
        let w = b.work(NewGoal { settings: once, ..NewGoal::default() }, &["a", "b: a", "c"]).await;
        b.ended(&w, GoalStatus::Failed).await;
        mended.store(true, Ordering::Relaxed);
        let run = goals::execute_async(&b.app.app, &b.app.caller, w.id, None).await.unwrap().run_id;
        assert_ne!(run, w.run);
        let w = Working { run, ..w };
        b.ended(&w, GoalStatus::Completed).await;
        assert_eq!((b.asked("a"), b.asked("b"), b.asked("c")), (2, 1, 1), "{}: what was done stays", b.app.name());
        let again = b.model.requests().into_iter().rfind(|r| title(r) == "a").unwrap();
        assert!(again.user().contains("# An earlier try was not accepted"), "{}", again.user());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_goal_is_executed_too() {
    for database in databases().await {
        let b = bench(database, says).await;
        let task = NewTask {
            id: new_id(),
            owner: b.app.caller.can(Scope::Write).unwrap().as_str().to_owned(),
            goal_id: None,
            parent_id: None,
            key: "alone".into(),
            title: "alone".into(),
            description: String::new(),
            status: TaskStatus::Ready,
            priority: 0,
            position: 0,
            assignee: None,
            requires_approval: true,
            depends_on: Vec::new(),
            max_attempts: 1,
        };
        let mut tx = b.app.app.db.begin().await.unwrap();
        store::insert_many(&mut tx, std::slice::from_ref(&task), b.app.app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let accepted = tasks::execute(&b.app.app, &b.app.caller, task.id, None).await.unwrap();
        let done = b.until_task(task.id, TaskStatus::InReview).await;
        assert_eq!(done.result.unwrap(), json!({ "content": "result of alone" }), "{}", b.app.name());
        assert_eq!(done.run_id, Some(accepted.id));
        let stranger = Caller::user(new_id(), Role::User);
        let refused = tasks::execute(&b.app.app, &stranger, task.id, None).await.unwrap_err();
        assert_eq!(refused.code, "TASK_NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_fails_the_task_and_says_so() {
    for database in databases().await {
        let b = bench(database, says).await;
        let (id, ids) = b.goal(NewGoal::default(), &["a"]).await;
        let task = b.task(ids["a"]).await;
        let gone = Task { assignee: Some(Assignee::Agent(new_id().to_string())), ..task };
        let mut tx = b.app.app.db.begin().await.unwrap();
        assert!(store::update(&mut tx, &gone, b.app.app.clock.now()).await.unwrap());
        tx.commit().await.unwrap();
        let run = goals::execute_async(&b.app.app, &b.app.caller, id, None).await.unwrap().run_id;
        let w = Working { id, run, tasks: ids };
        b.ended(&w, GoalStatus::Failed).await;
        let failed = b.task(w.tasks["a"]).await;
        assert_eq!((failed.attempt, failed.error.unwrap().code.as_str()), (1, "AGENT_NOT_FOUND"), "{}", b.app.name());
        assert_eq!(b.model.counts().received, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_is_fired_again_does_all_its_tasks_anew() {
    for database in databases().await {
        let b = bench(database, says).await;
        let w = b.work(NewGoal::default(), &["a", "b: a"]).await;
        b.ended(&w, GoalStatus::Completed).await;
        let app = &b.app.app;
        let mut after = After::default();
        let mut tx = app.db.begin().await.unwrap();
        let goal = goals::hold(&mut tx, w.id).await.unwrap().unwrap();
        let fire = Fire { fresh: true, ..Fire::default() };
        let run = goals::begin_run(app, &mut tx, &mut after, &goal, fire, app.clock.now()).await.unwrap().id;
        tx.commit().await.unwrap();
        after.apply(app);
        let w = Working { run, ..w };
        let ended = b.ended(&w, GoalStatus::Completed).await;
        assert_eq!(ended.result, Some(json!({ "status": "completed", "done": 2, "total": 2 })), "{}", b.app.name());
        assert_eq!((b.asked("a"), b.asked("b")), (2, 2));
        let second = b.model.requests().into_iter().rfind(|r| title(r) == "a").unwrap();
        assert!(!second.user().contains("earlier try"), "{}", second.user());
    }
}
