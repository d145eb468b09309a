//! Goals at work: results flow along the plan, as many run at once as may, what fails is tried again and then given up, people are asked,
//! and whoever ends the run ends the goal.
mod ends;
mod flow;
mod people;

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
