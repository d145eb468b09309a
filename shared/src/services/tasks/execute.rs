//! An agent is given a task: by the goal's run, or because somebody wants so.
use serde_json::Value;
use uuid::Uuid;

use super::{brief::brief, not_found};
use crate::{
    app::App,
    domain::{
        agent::Agent,
        caller::{Caller, Owner, Scope},
        goal::Goal,
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{RunKind, Watcher},
        run_input::{RunInput, RunOptions},
        task::{Assignee, Task},
    },
    error::{ErrorKind, Result},
    jobs::TaskRun,
    services::{
        agents, goals,
        runs::{
            accept::{self, Accepted, Work},
            after::After,
            execution::Child,
        },
        tasks,
    },
    store::{goals as goal_store, tasks as store},
};

/// A task as an agent gets it.
struct Order {
    task_id: Uuid,
    agent_id: Option<String>,
    /// 0 of one that cannot be executed by: its run says why.
    agent_version: i64,
    message: String,
}

impl Order {
    /// Who executes it: whom it is assigned to, else the goal's agent, else its owner's.
    fn new(app: &App, goal: Option<&Goal>, task: &Task, all: &[Task], agent: Option<Agent>) -> Self {
        let needed: Vec<_> = all.iter().filter(|t| task.depends_on.contains(&t.id)).collect();
        let named = || named(goal, task).map(str::to_owned);
        Self {
            task_id: task.id,
            agent_version: agent.as_ref().map_or(0, |a| a.version),
            agent_id: agent.map(|a| a.id).or_else(named),
            message: brief(goal, task, &needed, app.config.goals.max_result_bytes),
        }
    }

    /// JSON, for a run and a thread of that name.
    fn input(&self, name: &str, parent: Option<&str>) -> Result<String> {
        let options = RunOptions { agent_id: self.agent_id.clone(), agent_version: self.agent_version, ..RunOptions::default() };
        let agent = RunInput {
            thread_id: name.to_owned(),
            run_id: name.to_owned(),
            messages: Vec::new(),
            state: None,
            tools: Vec::new(),
            context: Vec::new(),
            forwarded_props: Value::Null,
            parent_run_id: parent.map(str::to_owned),
            options,
        };
        Ok(serde_json::to_string(&TaskRun { task_id: self.task_id, agent })?)
    }

    fn message(&self, id: Uuid) -> NewMessage {
        NewMessage { id: format!("{id}-task"), role: MessageRole::User, body: MessageBody::text(&*self.message) }
    }
}

fn named<'a>(goal: Option<&'a Goal>, task: &'a Task) -> Option<&'a str> {
    match &task.assignee {
        Some(Assignee::Agent(id)) => Some(id),
        _ => goal.and_then(|g| g.agent_id.as_deref()),
    }
}

/// The run by which the goal's run has a task executed; `parent` is its name. An agent that is gone or stopped fails that run, and by
/// that the task.
pub async fn child(app: &App, parent: &str, goal: &Goal, task: &Task, all: &[Task]) -> Result<Child> {
    let owner = Owner::of_row(&task.owner);
    let agent = match agents::runnable(app, &owner, named(Some(goal), task)).await {
        Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Conflict) => None,
        outcome => Some(outcome?),
    };
    let order = Order::new(app, Some(goal), task, all, agent);
    let id = new_id();
    Ok(Child {
        id,
        kind: RunKind::Task,
        input: order.input(&format!("child-{id}"), Some(parent))?,
        messages: vec![order.message(id)],
        agent_id: order.agent_id,
        model: None,
        watcher: Some(Watcher::Task),
    })
}

/// Has an agent execute a task that is ready, or claimed by the caller; its goal need not be executed, and there need not be one.
///
/// # Errors
/// `TASK_NOT_FOUND`; `TASK_NOT_READY`; `GOAL_STATE` when its goal has ended; `AGENT_NOT_FOUND`, `AGENT_STOPPED`; `Limited` when the lane
/// is full.
pub async fn execute(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    let task = store::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    let (goal, all) = match task.goal_id {
        Some(goal) => (goal_store::any_by_id(&app.db, goal).await?, store::of_goal(&app.db, goal).await?),
        None => (None, Vec::new()),
    };
    let agent = agents::runnable(app, owner, named(goal.as_ref(), &task)).await?;
    let order = Order::new(app, goal.as_ref(), &task, &all, Some(agent));
    let (now, name) = (app.clock.now(), format!("task-{}", new_id()));
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let goal = match task.goal_id {
        Some(goal) => goals::hold(&mut tx, goal).await?,
        None => None,
    };
    if let Some(goal) = goal.as_ref().filter(|g| g.status.is_ended()) {
        return Err(goals::forbids(goal.status, "that its tasks are executed"));
    }
    let work = Work {
        messages: vec![order.message(new_id())],
        agent_id: order.agent_id.clone(),
        watcher: Some(Watcher::Task),
        trace,
        ..Work::alone(RunKind::Task, name.clone(), order.input(&name, None)?)
    };
    let accepted = accept::within(app, &mut tx, &mut after, owner, &work, now).await?;
    tasks::start(&mut tx, &mut after, goal.as_ref(), id, accepted.id, now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(accepted)
}
