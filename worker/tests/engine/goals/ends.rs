//! What holds a goal and what ends it: a pause, its deadline, its budget, the end of its run.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_goal_lets_tasks_end_and_starts_none() {
    for database in databases().await {
        let gate = Gate::new();
        let held = gate.clone();
        let b = bench(database, move |r| says(r).hold_until(&held)).await;
        let w = b.work(NewGoal::default(), &["a", "b: a"]).await;
        b.model.until(|c| c.open == 1).await.unwrap();
        goals::pause(&b.app.app, &b.app.caller, w.id).await.unwrap();
        gate.open();
        b.until_task(w.tasks["b"], TaskStatus::Ready).await;
        until(&b.app, w.run, |run| run.waiting == Some(Waiting::Paused { until: None })).await;
        assert_eq!((b.asked("a"), b.asked("b")), (1, 0), "{}", b.app.name());
        goals::resume(&b.app.app, &b.app.caller, w.id).await.unwrap();
        b.ended(&w, GoalStatus::Completed).await;
        assert_eq!(b.asked("b"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_goal_and_what_runs() {
    for database in databases().await {
        let never = Gate::new();
        let b = bench(database, move |r| says(r).hold_until(&never)).await;
        let w = b.work(NewGoal::default(), &["a", "b: a"]).await;
        b.model.until(|c| c.open == 1).await.unwrap();
        // It is set while the goal's run waits, which heeds it.
        let goal = b.of(w.id).await;
        let deadline = Some(b.app.app.clock.now().after(Duration::from_millis(500)));
        let new = NewGoal { title: goal.title, description: goal.description, deadline, ..NewGoal::default() };
        goals::update(&b.app.app, &b.app.caller, w.id, goal.version, new).await.unwrap();
        let run = b.ended(&w, GoalStatus::Failed).await;
        assert_eq!(run.error.unwrap().code, "DEADLINE_EXCEEDED", "{}", b.app.name());
        let task = b.task(w.tasks["a"]).await;
        assert_eq!(task.status, TaskStatus::Cancelled);
        until_state(&b.app, task.run_id.unwrap(), RunState::Cancelled).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_has_used_its_budget_begins_nothing() {
    for database in databases().await {
        let b = bench(database, |r| says(r).usage(60, 40)).await;
        let mut new = parallel(1);
        new.settings.budget.max_tokens = Some(150);
        let w = b.work(new, &["a", "b", "c"]).await;
        let run = b.ended(&w, GoalStatus::Failed).await;
        assert_eq!(run.error.unwrap().code, "BUDGET_EXHAUSTED", "{}", b.app.name());
        assert_eq!((b.model.counts().received, run.usage.unwrap().input_tokens), (2, 120));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_the_run_ends_the_goal() {
    for database in databases().await {
        let never = Gate::new();
        let b = bench(database, move |r| says(r).hold_until(&never)).await;
        let w = b.work(NewGoal::default(), &["a", "b: a"]).await;
        b.model.until(|c| c.open == 1).await.unwrap();
        control::cancel(&b.app.app, &b.app.caller, w.run).await.unwrap();
        b.ended(&w, GoalStatus::Cancelled).await;
        let run = b.task(w.tasks["a"]).await.run_id.unwrap();
        until_state(&b.app, run, RunState::Cancelled).await;
        assert_eq!(b.task(w.tasks["a"]).await.status, TaskStatus::Cancelled, "{}", b.app.name());
    }
}
