//! Tasks, as services move them.
use futures::future::join_all;
use runmill_shared::{
    domain::{
        goal::{Autonomy, Goal, GoalStatus, Settings},
        run::{RunError, Watcher},
        task::{Task, TaskStatus},
    },
    services::{goals as goals_service, runs::after::After, tasks},
    store::{
        goals,
        tasks::{self as store, NewTask},
        threads,
    },
};

use super::*;

/// A goal of the owner's, in a thread of its own.
pub async fn goal(w: &World) -> Goal {
    let id = new_id();
    let mut tx = w.tx().await;
    let name = runmill_shared::domain::goal::thread_name(id);
    let thread_id = threads::ensure(&mut tx, new_id(), &owner(), &name, false, START).await.unwrap();
    let goal = Goal {
        id,
        owner: owner().as_str().to_owned(),
        thread_id,
        title: "a goal".into(),
        description: String::new(),
        status: GoalStatus::Draft,
        before: None,
        agent_id: None,
        autonomy: Autonomy::Auto,
        deadline: None,
        settings: Settings::default(),
        plan_version: 0,
        plan_run_id: None,
        run_id: None,
        error: None,
        version: 1,
        created_at: START,
        updated_at: START,
        started_at: None,
        finished_at: None,
    };
    goals::insert(&mut tx, &goal).await.unwrap();
    tx.commit().await.unwrap();
    goal
}

/// A ready task of the owner's.
pub fn task(goal_id: Option<Uuid>, key: &str) -> NewTask {
    NewTask {
        id: new_id(),
        owner: owner().as_str().to_owned(),
        goal_id,
        parent_id: None,
        key: key.to_owned(),
        title: format!("do {key}"),
        description: String::new(),
        status: TaskStatus::Ready,
        priority: 0,
        position: 0,
        assignee: None,
        requires_approval: false,
        depends_on: Vec::new(),
        max_attempts: 2,
    }
}

async fn add(w: &World, new: &[NewTask]) {
    let mut tx = w.tx().await;
    store::insert_many(&mut tx, new, START).await.unwrap();
    tx.commit().await.unwrap();
}

async fn read(w: &World, id: Uuid) -> Task {
    store::any_by_id(&w.app.db, id).await.unwrap().unwrap()
}

async fn status(w: &World, id: Uuid) -> TaskStatus {
    read(w, id).await.status
}

/// What the goal's thread says of its tasks: keys and states.
async fn told(w: &World, goal: &Goal) -> Vec<(String, String)> {
    let log = w.log(goal.thread_id).await.into_iter().filter(|e| e.kind == "task.changed");
    let word = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    log.map(|e| (word(&e.data["key"]), word(&e.data["status"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, status)| ((*key).to_owned(), (*status).to_owned())).collect()
}

/// A run that executes the task, held by a worker.
async fn execute(w: &World, goal: Option<&Goal>, id: Uuid) -> Claimed {
    let name = format!("task-run-{}", new_id());
    let mut work = Work::alone(RunKind::Task, name, json!({ "task_id": id, "agent": {} }).to_string());
    work.watcher = Some(Watcher::Task);
    let run = accept(&w.app, &owner(), &work).await.unwrap().id;
    let (mut tx, mut after) = (w.tx().await, After::default());
    if let Some(goal) = goal {
        goals_service::hold(&mut tx, goal.id).await.unwrap().unwrap();
    }
    tasks::start(&mut tx, &mut after, goal, id, run, w.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    after.apply(&w.app);
    w.claim(run).await
}

async fn fail_run(w: &World, run: &Claimed, retryable: bool) {
    let error = RunError::new("MODEL_AWAY", "the model is away", retryable);
    let usage = Some(RunUsage { input_tokens: 1, ..RunUsage::default() });
    let end = End { usage, ..End::failed(error.clone()) };
    let writes = Writes { events: vec![NewEvent::failed(&error, false)], ..Writes::default() };
    execution::end(&w.app, run, end, writes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_claim_at_once_each_task_goes_to_one() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let all: Vec<_> = (0..500).map(|n| task((n % 2 == 0).then_some(goal.id), &format!("t{n}"))).collect();
        add(&w, &all).await;
        let ids: Vec<_> = all.iter().map(|t| t.id).collect();
        let claimer = async |k: usize| {
            let mut won = Vec::new();
            // Each begins elsewhere and goes round, so that they meet.
            for i in 0..ids.len() {
                let id = ids[(k * 10 + i) % ids.len()];
                match tasks::claim(&w.app, &Caller::local(), id).await {
                    Ok(task) => won.push(task.id),
                    Err(e) => assert_eq!((e.code, e.message.contains("claimed; only a ready")), ("TASK_STATE", true), "{e}"),
                }
            }
            won
        };
        let mut won: Vec<_> = join_all((0..50).map(claimer)).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 500, "{}: none twice", w.name);
        won.sort_unstable();
        won.dedup();
        assert_eq!(won.len(), 500, "{}: none left", w.name);
        assert_eq!(w.count("tasks WHERE status = 'claimed' AND claimed_by = 'local'").await, 500);
        assert_eq!(told(&w, &goal).await.len(), 250, "each is told once");
        w.check().await;
    }
}

#[tokio::test]
async fn what_depends_on_a_task_follows_it() {
    for w in worlds().await {
        let (me, goal) = (Caller::local(), goal(&w).await);
        let new = |key: &str, position, on: &[Uuid]| NewTask {
            status: if on.is_empty() { TaskStatus::Ready } else { TaskStatus::Pending },
            depends_on: on.to_vec(),
            position,
            ..task(Some(goal.id), key)
        };
        let a = new("a", 0, &[]);
        let (b, c) = (new("b", 1, &[a.id]), new("c", 2, &[a.id]));
        let d = new("d", 3, &[b.id, c.id]);
        add(&w, &[a.clone(), b.clone(), c.clone(), d.clone()]).await;
        let done = async |id| {
            tasks::claim(&w.app, &me, id).await.unwrap();
            tasks::complete(&w.app, &me, id, Some(&json!("done"))).await.unwrap()
        };
        let finished = done(a.id).await;
        assert_eq!((finished.status, finished.result), (TaskStatus::Completed, Some(json!("done"))), "{}", w.name);
        assert_eq!((status(&w, b.id).await, status(&w, d.id).await), (TaskStatus::Ready, TaskStatus::Pending));
        done(b.id).await;
        tasks::claim(&w.app, &me, c.id).await.unwrap();
        let failed = tasks::fail(&w.app, &me, c.id, "no way").await.unwrap();
        assert_eq!((failed.status, failed.attempt, failed.error.unwrap().message.as_str()), (TaskStatus::Failed, 1, "no way"));
        let starved = read(&w, d.id).await;
        assert_eq!((starved.status, starved.error.unwrap().code.as_str()), (TaskStatus::Failed, "DEPENDENCY_FAILED"));
        let refused = tasks::retry(&w.app, &me, d.id).await.unwrap_err();
        assert_eq!(refused.code, "TASK_BLOCKED", "it would fail again at once");
        assert_eq!(status(&w, d.id).await, TaskStatus::Failed);
        assert_eq!(tasks::retry(&w.app, &me, c.id).await.unwrap().status, TaskStatus::Ready);
        assert_eq!(status(&w, d.id).await, TaskStatus::Pending, "it waits again");
        done(c.id).await;
        done(d.id).await;
        let last = told(&w, &goal).await;
        let expected = [
            ("a", "claimed"),
            ("a", "completed"),
            ("b", "ready"),
            ("c", "ready"),
            ("b", "claimed"),
            ("b", "completed"),
            ("c", "claimed"),
            ("c", "failed"),
            ("d", "failed"),
            ("c", "ready"),
            ("d", "pending"),
            ("c", "claimed"),
            ("c", "completed"),
            ("d", "ready"),
            ("d", "claimed"),
            ("d", "completed"),
        ];
        assert_eq!(last, pairs(&expected), "{}", w.name);
        w.check().await;
    }
}

#[tokio::test]
async fn a_run_makes_of_its_task_what_it_comes_to() {
    for w in worlds().await {
        let goal = goal(&w).await;
        let a = NewTask { requires_approval: true, ..task(Some(goal.id), "a") };
        let b = NewTask { depends_on: vec![a.id], status: TaskStatus::Pending, position: 1, ..task(Some(goal.id), "b") };
        add(&w, &[a.clone(), b.clone()]).await;
        let run = execute(&w, Some(&goal), a.id).await;
        assert_eq!((status(&w, a.id).await, read(&w, a.id).await.run_id), (TaskStatus::Running, Some(run.id)), "{}", w.name);
        fail_run(&w, &run, true).await;
        until("another try", async || status(&w, a.id).await == TaskStatus::Ready).await;
        let again = read(&w, a.id).await;
        assert_eq!((again.attempt, again.error.unwrap().code.as_str(), again.usage.input_tokens), (1, "MODEL_AWAY", 1));

        let run = execute(&w, Some(&goal), a.id).await;
        w.finish(&run).await;
        until("the review", async || status(&w, a.id).await == TaskStatus::InReview).await;
        let done = read(&w, a.id).await;
        assert_eq!(
            (done.result, done.error, done.usage.input_tokens, done.usage.output_tokens),
            (Some(json!("done")), None, 2, 2)
        );
        assert_eq!(w.count("notifications WHERE kind = 'approval_wanted'").await, 1);
        let me = Caller::local();
        let refused = tasks::reject(&w.app, &me, a.id, Some("not so")).await.unwrap();
        assert_eq!((refused.status, refused.attempt), (TaskStatus::Rejected, 2), "no tries are left");
        assert_eq!(status(&w, b.id).await, TaskStatus::Failed, "what depends on it cannot be done");
        tasks::retry(&w.app, &me, a.id).await.unwrap();
        let run = execute(&w, Some(&goal), a.id).await;
        assert_eq!(read(&w, a.id).await.error.unwrap().message, "not so", "the next try sees why");
        w.finish(&run).await;
        until("the review", async || status(&w, a.id).await == TaskStatus::InReview).await;
        assert_eq!(tasks::approve(&w.app, &me, a.id, Some("good")).await.unwrap().status, TaskStatus::Completed);
        let log = w.log(goal.thread_id).await;
        assert!(log.iter().any(|e| e.data["comment"] == "good"), "{log:?}");

        let run = execute(&w, Some(&goal), b.id).await;
        fail_run(&w, &run, false).await;
        until("the failure", async || status(&w, b.id).await == TaskStatus::Failed).await;
        assert_eq!(read(&w, b.id).await.attempt, 1, "what another try does not help is not tried again");
        w.check().await;
    }
}

#[tokio::test]
async fn a_run_whose_task_went_on_without_it_changes_nothing_but_what_was_used() {
    for w in worlds().await {
        let (me, alone) = (Caller::local(), task(None, "a"));
        add(&w, std::slice::from_ref(&alone)).await;
        let run = execute(&w, None, alone.id).await;
        control::cancel(&w.app, &me, run.id).await.unwrap();
        until("the task is there again", async || status(&w, alone.id).await == TaskStatus::Ready).await;
        assert_eq!(read(&w, alone.id).await.attempt, 0, "{}: a stopped run is no failure", w.name);

        let run = execute(&w, None, alone.id).await;
        let done = tasks::complete(&w.app, &me, alone.id, None).await.unwrap();
        assert_eq!(done.status, TaskStatus::Completed);
        until("the run is stopped", async || w.state(run.id).await == RunState::Cancelled).await;
        until("its end was told", async || w.count("outbox").await == 0).await;
        assert_eq!(status(&w, alone.id).await, TaskStatus::Completed);
        let refused = tasks::claim(&w.app, &me, alone.id).await.unwrap_err();
        assert_eq!(refused.message, "the task is completed; only a ready task can be claimed");
        let (mut tx, mut after) = (w.tx().await, After::default());
        let refused = tasks::start(&mut tx, &mut after, None, alone.id, new_id(), START).await.unwrap_err();
        assert_eq!(refused.code, "TASK_NOT_READY");
    }
}

#[tokio::test]
async fn a_claim_lasts_as_long_as_the_settings_say() {
    for w in worlds().await {
        let (me, goal) = (Caller::local(), goal(&w).await);
        let all = [task(Some(goal.id), "a"), task(None, "b")];
        add(&w, &all).await;
        for new in &all {
            let claimed = tasks::claim(&w.app, &me, new.id).await.unwrap();
            assert_eq!(claimed.claim_expires_at, Some(START.after(w.app.config.goals.claim)), "{}", w.name);
        }
        assert_eq!(tasks::lapsed(&w.app).await.unwrap(), 0);
        w.later(w.app.config.goals.claim);
        assert_eq!(tasks::lapsed(&w.app).await.unwrap(), 2);
        assert_eq!((status(&w, all[0].id).await, status(&w, all[1].id).await), (TaskStatus::Ready, TaskStatus::Ready));
        assert_eq!(told(&w, &goal).await, pairs(&[("a", "claimed"), ("a", "ready")]));
        assert_eq!(tasks::release(&w.app, &me, all[0].id).await.unwrap_err().code, "TASK_STATE");
    }
}
