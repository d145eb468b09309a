//! A goal: what somebody wants to have done, as a tree of tasks that is planned and executed.
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{agent::Budget, run::RunError};
use crate::{clock::Timestamp, error::FieldError};

const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 20_000;
const MAX_ATTEMPTS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoalStatus {
    Draft,
    /// A plan is being made.
    Planning,
    Active,
    /// What runs may end; nothing new is started.
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl GoalStatus {
    pub const ALL: [Self; 7] =
        [Self::Draft, Self::Planning, Self::Active, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Planning => "planning",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How far a goal goes without a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Autonomy {
    /// It is planned; people claim its tasks, or have each executed.
    PlanOnly,
    /// A person approves each task before an agent executes it.
    ApproveEach,
    #[default]
    Auto,
}

impl Autonomy {
    pub const ALL: [Self; 3] = [Self::PlanOnly, Self::ApproveEach, Self::Auto];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlanOnly => "plan_only",
            Self::ApproveEach => "approve_each",
            Self::Auto => "auto",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }
}

/// What happens when a task has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// What depends on it fails too; the rest is done, and the goal fails.
    #[default]
    Fail,
    /// What is not done is planned anew, a bounded number of times.
    Replan,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Tasks that agents execute at once.
    pub max_parallel: u32,
    /// How often a task is tried, where it does not say so itself.
    pub task_attempts: u32,
    pub on_failure: OnFailure,
    /// Of all its tasks together.
    pub budget: Budget,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_parallel: 4, task_attempts: 2, on_failure: OnFailure::Fail, budget: Budget::default() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub id: Uuid,
    pub owner: String,
    pub thread_id: Uuid,
    pub title: String,
    pub description: String,
    pub status: GoalStatus,
    /// While it is planned: what it was before.
    pub before: Option<GoalStatus>,
    /// `None`: the owner's main agent.
    pub agent_id: Option<String>,
    pub autonomy: Autonomy,
    pub deadline: Option<Timestamp>,
    pub settings: Settings,
    /// Counts plans.
    pub plan_version: i64,
    /// The run that makes the next plan, or made the last.
    pub plan_run_id: Option<Uuid>,
    /// The run that executes it.
    pub run_id: Option<Uuid>,
    pub error: Option<RunError>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// A goal as its owner writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGoal {
    pub title: String,
    pub description: String,
    /// `None`: the owner's main agent.
    pub agent_id: Option<String>,
    pub autonomy: Autonomy,
    pub deadline: Option<Timestamp>,
    pub settings: Settings,
}

impl From<Goal> for NewGoal {
    fn from(g: Goal) -> Self {
        let Goal { title, description, agent_id, autonomy, deadline, settings, .. } = g;
        Self { title, description, agent_id, autonomy, deadline, settings }
    }
}

impl NewGoal {
    /// Every field that breaks a rule, by the names of the platform's dialect; none: it may be stored.
    pub fn faults(&self, max_parallel: u32) -> Vec<FieldError> {
        let mut bad = Vec::new();
        let mut rule = |ok: bool, field: &str, message: String| {
            if !ok {
                bad.push(FieldError { field: field.to_owned(), message });
            }
        };
        let title = self.title.trim().chars().count();
        rule((1..=MAX_TITLE).contains(&title), "title", format!("1 to {MAX_TITLE} characters"));
        rule(!self.title.contains(char::is_control), "title", "no control characters".to_owned());
        let short = self.description.chars().count() <= MAX_DESCRIPTION;
        rule(short, "description", format!("at most {MAX_DESCRIPTION} characters"));
        let Settings { max_parallel: parallel, task_attempts, budget, .. } = &self.settings;
        rule((1..=max_parallel).contains(parallel), "max_parallel", format!("1 to {max_parallel}"));
        rule((1..=MAX_ATTEMPTS).contains(task_attempts), "task_attempts", format!("1 to {MAX_ATTEMPTS}"));
        let limits =
            [("max_tokens", budget.max_tokens), ("max_cost_micros", budget.max_cost_micros), ("max_seconds", budget.max_seconds)];
        for (name, limit) in limits {
            rule(limit != Some(0), &format!("budget.{name}"), "at least 1".to_owned());
        }
        bad
    }
}

/// How far its tasks are; what was cancelled does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Completed.
    pub done: i64,
    pub total: i64,
}

impl Progress {
    /// Of a goal without tasks: 0.
    pub fn percent(self) -> i64 {
        if self.total == 0 { 0 } else { self.done * 100 / self.total }
    }
}

/// The client's name of a goal's thread: its log, as `follow` reads it.
pub fn thread_name(id: Uuid) -> String {
    format!("goal-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        let budget = Budget { max_tokens: Some(0), ..Budget::default() };
        let settings = Settings { max_parallel: 17, task_attempts: 0, budget, ..Settings::default() };
        let bad = NewGoal { title: " ".into(), description: "d".repeat(MAX_DESCRIPTION + 1), settings, ..NewGoal::default() };
        let fields: Vec<_> = bad.faults(16).into_iter().map(|f| f.field).collect();
        assert_eq!(fields, ["title", "description", "max_parallel", "task_attempts", "budget.max_tokens"]);
        assert!(NewGoal { title: "Paint the fence".into(), ..NewGoal::default() }.faults(16).is_empty());
    }

    #[test]
    fn a_goal_without_tasks_has_done_nothing() {
        assert_eq!([Progress::default(), Progress { done: 2, total: 3 }].map(Progress::percent), [0, 66]);
    }
}
