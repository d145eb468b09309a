//! Goals at work: results flow along the plan, as many run at once as may, what fails is tried again and then given up, people are asked,
//! and whoever ends the run ends the goal.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runmill_shared::{
    Error,
    config::Config,
    domain::{
        approval::{ApprovalKind, Decision},
        caller::{Caller, Role, Scope},
        event::kind,
        goal::{Autonomy, Goal, GoalStatus, NewGoal, OnFailure, Settings, thread_name},
        new_id,
        page::PageRequest,
        run::{Run, RunState, Waiting},
        task::{Assignee, Task, TaskStatus},
    },
    services::{
        approvals,
        goals::{self, Fire},
        runs::{after::After, control},
        tasks,
    },
    store::{
        db::{Class, FromRow, Row, Sql, query},
        tasks::{self as store, NewTask},
    },
};
use runmill_testkit::{
    app::{TestApp, quick_recovery},
    database::{TestDatabase, databases},
    model_server::{Gate, ModelServer, Reply, Request},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::told::{of_kind, until, until_state};

/// The title of the task that an agent is asked to do; of another request nothing.
fn title(request: &Request) -> String {
    request.user().lines().find_map(|line| line.strip_prefix("# Your task: ")).unwrap_or_default().to_owned()
}

fn says(request: &Request) -> Reply {
    Reply::text(&format!("result of {}", title(request)))
}

struct Bench {
    app: TestApp,
    model: Arc<ModelServer>,
}

async fn bench(database: TestDatabase, respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Bench {
    let model = ModelServer::with(respond).await.unwrap();
    let quick = |config: &mut Config| {
        quick_recovery(config);
        // What fails is tried again as a task, and not as a run.
        config.runs.max_attempts = 1;
    };
    let app = TestApp::with_model(database, &model, quick).await.unwrap();
    Bench { app, model: Arc::new(model) }
}

/// A goal that is being executed.
struct Working {
    id: Uuid,
    run: Uuid,
    tasks: HashMap<&'static str, Uuid>,
}

/// The tasks as `"c: a b"`: what comes after the colon it depends on.
type Plan = &'static [&'static str];

impl Bench {
    async fn goal(&self, new: NewGoal, plan: Plan) -> (Uuid, HashMap<&'static str, Uuid>) {
        let app = &self.app.app;
        let new = NewGoal { title: "Paint the fence".into(), description: "All of it.".into(), ..new };
        let attempts = i64::from(new.settings.task_attempts);
        let goal = goals::create(app, &self.app.caller, new).await.unwrap().goal;
        let mut ids = HashMap::new();
        let mut rows = Vec::new();
        for (position, line) in plan.iter().enumerate() {
            let (key, on) = line.split_once(':').unwrap_or((line, ""));
            let id = new_id();
            ids.insert(key, id);
            rows.push(NewTask {
                id,
                owner: goal.owner.clone(),
                goal_id: Some(goal.id),
                parent_id: None,
                key: key.to_owned(),
                title: key.to_owned(),
                description: format!("Do {key}."),
                status: TaskStatus::Pending,
                priority: 0,
                position: i64::try_from(position).unwrap(),
                assignee: None,
                requires_approval: false,
                depends_on: on.split_whitespace().map(|key| ids[key]).collect(),
                max_attempts: attempts,
            });
        }
        self.keep(goal.id, &rows).await;
        (goal.id, ids)
    }

    async fn keep(&self, goal: Uuid, rows: &[NewTask]) {
        let app = &self.app.app;
        let now = app.clock.now();
        let mut after = After::default();
        let mut tx = app.db.begin().await.unwrap();
        let goal = goals::hold(&mut tx, goal).await.unwrap().unwrap();
        if !rows.is_empty() {
            store::insert_many(&mut tx, rows, now).await.unwrap();
        }
        tasks::settle(&mut tx, &mut after, &goal, now).await.unwrap();
        tx.commit().await.unwrap();
        after.apply(app);
    }

    async fn work(&self, new: NewGoal, plan: Plan) -> Working {
        let (id, tasks) = self.goal(new, plan).await;
        let run = goals::execute_async(&self.app.app, &self.app.caller, id, None).await.unwrap().run_id;
        Working { id, run, tasks }
    }

    async fn of(&self, id: Uuid) -> Goal {
        goals::get(&self.app.app, &self.app.caller, id).await.unwrap().goal
    }

    async fn task(&self, id: Uuid) -> Task {
        store::any_by_id(&self.app.app.db, id).await.unwrap().unwrap()
    }

    /// Waits until the task is as wanted.
    async fn until_task(&self, id: Uuid, status: TaskStatus) -> Task {
        let begun = std::time::Instant::now();
        loop {
            let task = self.task(id).await;
            if task.status == status {
                return task;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}: it stays {task:?}", self.app.name());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the goal's run has ended; the goal has ended with it.
    async fn ended(&self, working: &Working, wanted: GoalStatus) -> Run {
        let run = until(&self.app, working.run, |run| run.state.is_ended()).await;
        let goal = self.of(working.id).await;
        let tasks = goals::tree(&self.app.app, &self.app.caller, working.id).await.unwrap();
        let all: Vec<_> = tasks.iter().map(|t| (&t.key, t.status, &t.error)).collect();
        assert_eq!(goal.status, wanted, "{}: {:?} {all:?}", self.app.name(), run.error);
        assert!(all.iter().all(|(_, status, _)| status.is_ended()), "{all:?}");
        assert_eq!((run.attempt, run.crashes), (0, 0), "waking burns no attempt");
        run
    }

    async fn statuses(&self, working: &Working) -> HashMap<&'static str, TaskStatus> {
        let mut all = HashMap::new();
        for (key, id) in &working.tasks {
            all.insert(*key, self.task(*id).await.status);
        }
        all
    }

    /// How often the task was asked of the model.
    fn asked(&self, task: &str) -> usize {
        self.model.requests().iter().filter(|r| title(r) == task).count()
    }

    async fn approval_of(&self, task: Uuid) -> Uuid {
        let begun = std::time::Instant::now();
        let page = PageRequest { number: 1, size: 20, search: None, status: Some("pending".into()), sort: None };
        loop {
            let listed = approvals::list(&self.app.app, &self.app.caller, &page).await.unwrap();
            if let Some(found) = listed.items.iter().find(|a| a.subject["taskId"] == json!(task)) {
                assert_eq!(found.kind, ApprovalKind::Task);
                return found.id;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}: nobody is asked: {:?}", self.app.name(), listed.items);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn resolve(&self, approval: Uuid, decision: Decision, comment: Option<&str>) {
        approvals::resolve(&self.app.app, &self.app.caller, approval, decision, comment).await.unwrap();
    }
}

fn parallel(max_parallel: u32) -> NewGoal {
    NewGoal { settings: Settings { max_parallel, ..Settings::default() }, ..NewGoal::default() }
}

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
