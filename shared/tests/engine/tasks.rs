//! Tasks, as services move them.
use runmill_shared::{
    domain::{
        goal::{Autonomy, Goal, GoalStatus, Settings},
        task::TaskStatus,
    },
    store::{goals, tasks::NewTask, threads},
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
