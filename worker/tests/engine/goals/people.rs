//! Plans: made by people, with people, and by a model that is asked again when a task has failed.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn people_approve_each_task_before_it_is_executed() {
    for database in databases().await {
        let mut b = bench(database, says).await;
        let w = b.work(NewGoal { autonomy: Autonomy::ApproveEach, ..NewGoal::default() }, &["a", "b: a", "c: a"]).await;
        let approval = b.approval_of(w.tasks["a"]).await;
        let run = until_state(&b.app, w.run, RunState::Waiting).await;
        let Some(Waiting::Approval { approvals, until: Some(_) }) = run.waiting else { panic!("{:?}", run.waiting) };
        assert_eq!(approvals, [approval]);
        // Nobody executes it meanwhile, and nobody forgets it.
        b.app.kill_worker().await;
        b.resolve(approval, Decision::Approve, None).await;
        b.app.start_worker();
        b.until_task(w.tasks["a"], TaskStatus::Completed).await;
        let (of_b, of_c) = (b.approval_of(w.tasks["b"]).await, b.approval_of(w.tasks["c"]).await);
        b.resolve(of_b, Decision::Reject, Some("too dear")).await;
        let refused = b.until_task(w.tasks["b"], TaskStatus::Rejected).await;
        assert!(refused.error.unwrap().message.ends_with("too dear"), "{}", b.app.name());
        b.resolve(of_c, Decision::Approve, None).await;
        let run = b.ended(&w, GoalStatus::Failed).await;
        assert_eq!(run.error.unwrap().code, "TASKS_FAILED");
        assert_eq!((b.asked("a"), b.asked("b"), b.asked("c")), (1, 0, 1));
        let events = b.app.events(&thread_name(w.id)).await.unwrap();
        assert_eq!((of_kind(&events, kind::APPROVAL_REQUESTED).len(), of_kind(&events, kind::APPROVAL_RESOLVED).len()), (3, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_goal_waits_for_people_and_is_completed_with_them() {
    for database in databases().await {
        let b = bench(database, says).await;
        let w = b.work(NewGoal { autonomy: Autonomy::PlanOnly, ..NewGoal::default() }, &["a", "b: a"]).await;
        until_state(&b.app, w.run, RunState::Waiting).await;
        for key in ["a", "b"] {
            b.until_task(w.tasks[key], TaskStatus::Ready).await;
            let (one, two) = tokio::join!(
                tasks::execute(&b.app.app, &b.app.caller, w.tasks[key], None),
                tasks::execute(&b.app.app, &b.app.caller, w.tasks[key], None),
            );
            let [refused] = <[Error; 1]>::try_from([one, two].into_iter().filter_map(Result::err).collect::<Vec<_>>()).unwrap();
            assert_eq!(refused.code, "TASK_NOT_READY", "{}: {refused}", b.app.name());
        }
        b.ended(&w, GoalStatus::Completed).await;
        assert_eq!((b.asked("a"), b.asked("b")), (1, 1));
    }
}

/// A planner that is asked for a plan, and, when a task has failed, for another.
fn plans(request: &Request) -> Option<Value> {
    let task = |key: &str, on: &[&str]| json!({ "key": key, "title": key, "description": "", "depends_on": on });
    if !title(request).is_empty() {
        return None;
    }
    let anew = request.messages().iter().any(|m| m.to_string().contains("broken"));
    Some(if anew {
        json!({ "tasks": [task("good", &[]), task("mended", &["good"])] })
    } else {
        json!({ "tasks": [task("good", &[]), task("broken", &["good"])] })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_planned_first_and_anew_when_a_task_has_failed() {
    for database in databases().await {
        let respond = |r: &Request| match plans(r) {
            Some(plan) => Reply::text(&plan.to_string()),
            None if title(r) == "broken" => Reply::status(503),
            None => says(r),
        };
        let b = bench(database, respond).await;
        let settings = Settings { on_failure: OnFailure::Replan, task_attempts: 1, ..Settings::default() };
        let w = b.work(NewGoal { settings, ..NewGoal::default() }, &[]).await;
        b.ended(&w, GoalStatus::Completed).await;
        let goal = b.of(w.id).await;
        assert_eq!(goal.plan_version, 2, "{}", b.app.name());
        assert_eq!((b.asked("good"), b.asked("broken"), b.asked("mended")), (1, 1, 1), "what is done stays");
        let events = b.app.events(&thread_name(w.id)).await.unwrap();
        let planned = of_kind(&events, kind::GOAL_PLANNED);
        assert_eq!((planned.len(), &planned[1].data["removed"]), (2, &json!(["broken"])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_cannot_be_planned_fails_and_says_why() {
    for database in databases().await {
        let b = bench(database, |_| Reply::text("I would rather not")).await;
        let w = b.work(NewGoal::default(), &[]).await;
        let run = b.ended(&w, GoalStatus::Failed).await;
        assert_eq!(run.error.unwrap().code, "PLAN_INVALID", "{}", b.app.name());
    }
}
