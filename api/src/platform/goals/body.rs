//! Goals as they come in and go out.
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use poem_openapi::{Enum, Object, types::ToJSON};
use runmill_shared::{
    Result,
    domain::{
        goal::{Autonomy, Goal, GoalStatus, NewGoal, OnFailure, Settings},
        run::RunError,
        task::Task,
    },
    services::goals::Standing,
};
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    agents::body::{BudgetBody, merge},
    tasks::body::TaskBody,
};
use crate::http::body::checked;

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum GoalStatusName {
    Draft,
    /// a plan is being made
    Planning,
    Active,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl From<GoalStatus> for GoalStatusName {
    fn from(status: GoalStatus) -> Self {
        match status {
            GoalStatus::Draft => Self::Draft,
            GoalStatus::Planning => Self::Planning,
            GoalStatus::Active => Self::Active,
            GoalStatus::Paused => Self::Paused,
            GoalStatus::Completed => Self::Completed,
            GoalStatus::Failed => Self::Failed,
            GoalStatus::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
pub enum GoalAutonomy {
    /// it is planned; people claim its tasks, or have each executed
    PlanOnly,
    /// a person approves each task before an agent executes it
    ApproveEach,
    Auto,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum GoalOnFailure {
    /// what depends on a failed task fails too, and so does the goal
    Fail,
    /// what is not done is planned anew, a bounded number of times
    Replan,
}

#[derive(Object)]
pub struct GoalSettingsBody {
    #[oai(validator(max_length = 20000))]
    description: Option<String>,
    /// who plans it and does its tasks; your main agent when left out
    #[oai(validator(min_length = 1, max_length = 128))]
    agent_id: Option<String>,
    /// auto when left out
    autonomy: Option<GoalAutonomy>,
    /// the goal fails when it is not completed by then
    deadline: Option<DateTime<Utc>>,
    /// tasks that agents execute at once; 4 when left out
    #[oai(validator(minimum(value = "1")))]
    max_parallel: Option<u32>,
    /// how often a planned task is tried; 2 when left out
    #[oai(validator(minimum(value = "1"), maximum(value = "10")))]
    task_attempts: Option<u32>,
    /// fail when left out
    on_failure: Option<GoalOnFailure>,
    /// of all its tasks together
    budget: Option<BudgetBody>,
}

#[derive(Object)]
pub struct GoalInput {
    #[oai(validator(min_length = 1, max_length = 200))]
    title: String,
    #[oai(flatten)]
    settings: GoalSettingsBody,
}

/// What is left out stays as it is; within `budget` too. `null` sets a field back to its default.
#[derive(Object)]
pub struct GoalPatch {
    #[oai(validator(min_length = 1, max_length = 200))]
    title: Option<String>,
    /// the version that you have read; 409 when it is no longer in force
    version: Option<i64>,
    #[oai(flatten)]
    settings: GoalSettingsBody,
}

#[derive(Object)]
pub struct GoalProgress {
    /// completed tasks
    done: i64,
    /// without those that are cancelled
    total: i64,
    percent: i64,
}

#[derive(Object)]
pub struct GoalError {
    code: String,
    message: String,
    /// whether another try may succeed
    retryable: bool,
}

impl From<RunError> for GoalError {
    fn from(e: RunError) -> Self {
        Self { code: e.code, message: e.message, retryable: e.retryable }
    }
}

#[derive(Object)]
pub struct GoalBody {
    id: Uuid,
    title: String,
    #[oai(flatten)]
    settings: GoalSettingsBody,
    status: GoalStatusName,
    progress: GoalProgress,
    /// counts plans
    plan_version: i64,
    /// the run that makes the next plan, or made the last
    plan_execution_id: Option<Uuid>,
    /// the run that executes it, or did so last
    execution_id: Option<Uuid>,
    /// why it failed, or why it could not be planned
    error: Option<GoalError>,
    /// from 1; each PUT adds one
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<NewGoal> for GoalSettingsBody {
    fn from(g: NewGoal) -> Self {
        Self {
            description: Some(g.description),
            agent_id: g.agent_id,
            autonomy: Some(match g.autonomy {
                Autonomy::PlanOnly => GoalAutonomy::PlanOnly,
                Autonomy::ApproveEach => GoalAutonomy::ApproveEach,
                Autonomy::Auto => GoalAutonomy::Auto,
            }),
            deadline: g.deadline.map(|t| t.utc()),
            max_parallel: Some(g.settings.max_parallel),
            task_attempts: Some(g.settings.task_attempts),
            on_failure: Some(match g.settings.on_failure {
                OnFailure::Fail => GoalOnFailure::Fail,
                OnFailure::Replan => GoalOnFailure::Replan,
            }),
            budget: Some(g.settings.budget.into()),
        }
    }
}

impl From<GoalInput> for NewGoal {
    fn from(input: GoalInput) -> Self {
        let (s, default) = (input.settings, Settings::default());
        let settings = Settings {
            max_parallel: s.max_parallel.unwrap_or(default.max_parallel),
            task_attempts: s.task_attempts.unwrap_or(default.task_attempts),
            on_failure: match s.on_failure {
                Some(GoalOnFailure::Replan) => OnFailure::Replan,
                Some(GoalOnFailure::Fail) | None => OnFailure::Fail,
            },
            budget: s.budget.map(Into::into).unwrap_or_default(),
        };
        let autonomy = match s.autonomy {
            Some(GoalAutonomy::PlanOnly) => Autonomy::PlanOnly,
            Some(GoalAutonomy::ApproveEach) => Autonomy::ApproveEach,
            Some(GoalAutonomy::Auto) | None => Autonomy::Auto,
        };
        let (agent_id, deadline) = (s.agent_id, s.deadline.map(Into::into));
        Self { title: input.title, description: s.description.unwrap_or_default(), agent_id, autonomy, deadline, settings }
    }
}

impl From<Standing> for GoalBody {
    fn from(Standing { goal, progress }: Standing) -> Self {
        Self {
            id: goal.id,
            status: goal.status.into(),
            progress: GoalProgress { done: progress.done, total: progress.total, percent: progress.percent() },
            plan_version: goal.plan_version,
            plan_execution_id: goal.plan_run_id,
            execution_id: goal.run_id,
            error: goal.error.clone().map(Into::into),
            version: goal.version,
            created_at: goal.created_at.utc(),
            updated_at: goal.updated_at.utc(),
            started_at: goal.started_at.map(|t| t.utc()),
            finished_at: goal.finished_at.map(|t| t.utc()),
            title: goal.title.clone(),
            settings: NewGoal::from(goal).into(),
        }
    }
}

impl GoalInput {
    /// The goal as it is once the patch is on it, and the version that the patch is for.
    pub fn patched(current: Goal, patch: Value) -> Result<(Self, i64)> {
        let version = checked::<GoalPatch>(patch.clone())?.version.unwrap_or(current.version);
        let current = NewGoal::from(current);
        let mut merged = Self { title: current.title.clone(), settings: current.into() }.to_json().unwrap_or_default();
        if let (Some(whole), Value::Object(patch)) = (merged.as_object_mut(), patch) {
            merge(whole, patch, &["budget"]);
        }
        Ok((checked(merged)?, version))
    }
}

/// A task and those that are parts of it.
#[derive(Object)]
pub struct GoalTaskBody {
    #[oai(flatten)]
    task: TaskBody,
    /// what it depends on, by the names in the plan
    depends_on_keys: Vec<String>,
    children: Vec<GoalTaskBody>,
}

/// Each below the one that it is a part of, in their order.
pub fn tree(tasks: Vec<Task>) -> Vec<GoalTaskBody> {
    let keys: HashMap<Uuid, String> = tasks.iter().map(|t| (t.id, t.key.clone())).collect();
    let mut below: HashMap<Option<Uuid>, Vec<Task>> = HashMap::new();
    for task in tasks {
        below.entry(task.parent_id.filter(|parent| keys.contains_key(parent))).or_default().push(task);
    }
    level(None, &mut below, &keys)
}

fn level(parent: Option<Uuid>, below: &mut HashMap<Option<Uuid>, Vec<Task>>, keys: &HashMap<Uuid, String>) -> Vec<GoalTaskBody> {
    let tasks = below.remove(&parent).unwrap_or_default();
    let shown = |task: Task| GoalTaskBody {
        children: level(Some(task.id), below, keys),
        depends_on_keys: task.depends_on.iter().filter_map(|id| keys.get(id).cloned()).collect(),
        task: task.into(),
    };
    tasks.into_iter().map(shown).collect()
}
