//! Tasks on the wire.
use chrono::{DateTime, Utc};
use poem_openapi::{
    Enum, Object,
    types::{MaybeUndefined, ParseFromJSON, Type},
};
use runmill_shared::{
    domain::{
        run::RunError,
        task::{Assignee, Task, TaskStatus},
    },
    services::{
        model_configs::Patch,
        tasks::{Blocker, BlockerKind, Change, New},
    },
};
use serde_json::Value;
use uuid::Uuid;

use super::super::chat::TokenUsage;

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
pub enum TaskStatusName {
    /// what it depends on has not been completed
    Pending,
    Ready,
    /// somebody has taken it, for a time
    Claimed,
    Running,
    /// done, and to be approved
    InReview,
    Completed,
    Failed,
    Rejected,
    Cancelled,
}

impl From<TaskStatus> for TaskStatusName {
    fn from(status: TaskStatus) -> Self {
        match status {
            TaskStatus::Pending => Self::Pending,
            TaskStatus::Ready => Self::Ready,
            TaskStatus::Claimed => Self::Claimed,
            TaskStatus::Running => Self::Running,
            TaskStatus::InReview => Self::InReview,
            TaskStatus::Completed => Self::Completed,
            TaskStatus::Failed => Self::Failed,
            TaskStatus::Rejected => Self::Rejected,
            TaskStatus::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum TaskAssigneeKind {
    Agent,
    /// no agent executes it
    User,
}

#[derive(Object)]
pub struct TaskAssignee {
    kind: TaskAssigneeKind,
    #[oai(validator(min_length = 1, max_length = 128))]
    id: String,
}

impl From<Assignee> for TaskAssignee {
    fn from(assignee: Assignee) -> Self {
        match assignee {
            Assignee::Agent(id) => Self { kind: TaskAssigneeKind::Agent, id },
            Assignee::User(id) => Self { kind: TaskAssigneeKind::User, id },
        }
    }
}

impl From<TaskAssignee> for Assignee {
    fn from(assignee: TaskAssignee) -> Self {
        match assignee.kind {
            TaskAssigneeKind::Agent => Self::Agent(assignee.id),
            TaskAssigneeKind::User => Self::User(assignee.id),
        }
    }
}

#[derive(Object)]
pub struct TaskError {
    code: String,
    message: String,
    /// whether another try may succeed
    retryable: bool,
}

impl From<RunError> for TaskError {
    fn from(e: RunError) -> Self {
        Self { code: e.code, message: e.message, retryable: e.retryable }
    }
}

#[derive(Object)]
pub struct TaskBody {
    id: Uuid,
    goal_id: Option<Uuid>,
    /// the task that it is a part of
    parent_id: Option<Uuid>,
    /// its name in the goal's plan
    key: String,
    title: String,
    description: String,
    status: TaskStatusName,
    /// the higher, the earlier
    priority: i64,
    /// its place in the plan
    position: i64,
    /// who is to do it; null: the goal's agent
    assignee: Option<TaskAssignee>,
    requires_approval: bool,
    depends_on: Vec<Uuid>,
    result: Option<Value>,
    /// why it failed, or why it is tried again
    error: Option<TaskError>,
    /// failures so far
    attempt: i64,
    max_attempts: i64,
    claimed_by: Option<String>,
    claim_expires_at: Option<DateTime<Utc>>,
    /// the run that executes it, or did so last
    execution_id: Option<Uuid>,
    /// of all its runs
    usage: TokenUsage,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<Task> for TaskBody {
    fn from(t: Task) -> Self {
        Self {
            id: t.id,
            goal_id: t.goal_id,
            parent_id: t.parent_id,
            key: t.key,
            title: t.title,
            description: t.description,
            status: t.status.into(),
            priority: t.priority,
            position: t.position,
            assignee: t.assignee.map(Into::into),
            requires_approval: t.requires_approval,
            depends_on: t.depends_on,
            result: t.result,
            error: t.error.map(Into::into),
            attempt: t.attempt,
            max_attempts: t.max_attempts,
            claimed_by: t.claimed_by,
            claim_expires_at: t.claim_expires_at.map(|t| t.utc()),
            execution_id: t.run_id,
            usage: t.usage.into(),
            version: t.version,
            created_at: t.created_at.utc(),
            updated_at: t.updated_at.utc(),
            started_at: t.started_at.map(|t| t.utc()),
            finished_at: t.finished_at.map(|t| t.utc()),
        }
    }
}

#[derive(Object)]
pub struct NewTaskBody {
    /// without one it stands by itself: no parent, no dependencies
    goal_id: Option<Uuid>,
    /// of the same goal
    parent_id: Option<Uuid>,
    /// unique in the goal; made when left out
    key: Option<String>,
    title: String,
    description: Option<String>,
    /// the higher, the earlier; 0 by default
    priority: Option<i64>,
    assignee: Option<TaskAssignee>,
    requires_approval: Option<bool>,
    /// tasks of the same goal that have to be completed first
    depends_on: Option<Vec<Uuid>>,
    /// as the goal says by default
    max_attempts: Option<i64>,
}

impl From<NewTaskBody> for New {
    fn from(t: NewTaskBody) -> Self {
        Self {
            id: None,
            goal_id: t.goal_id,
            parent_id: t.parent_id,
            key: t.key,
            title: t.title,
            description: t.description.unwrap_or_default(),
            priority: t.priority.unwrap_or_default(),
            assignee: t.assignee.map(Into::into),
            requires_approval: t.requires_approval.unwrap_or_default(),
            depends_on: t.depends_on.unwrap_or_default(),
            max_attempts: t.max_attempts,
        }
    }
}

#[derive(Object)]
pub struct TaskChangeBody {
    /// the version that you have seen: 409 when it is not the current one
    version: Option<i64>,
    title: Option<String>,
    description: Option<String>,
    priority: Option<i64>,
    /// null: the goal's agent
    assignee: MaybeUndefined<TaskAssignee>,
    requires_approval: Option<bool>,
    max_attempts: Option<i64>,
    depends_on: Option<Vec<Uuid>>,
    /// null: none
    parent_id: MaybeUndefined<Uuid>,
}

fn patch<T: Type + ParseFromJSON, U: From<T>>(value: MaybeUndefined<T>) -> Patch<U> {
    match value {
        MaybeUndefined::Undefined => Patch::Keep,
        MaybeUndefined::Null => Patch::Remove,
        MaybeUndefined::Value(value) => Patch::Set(value.into()),
    }
}

impl From<TaskChangeBody> for Change {
    fn from(t: TaskChangeBody) -> Self {
        Self {
            version: t.version,
            title: t.title,
            description: t.description,
            priority: t.priority,
            assignee: patch(t.assignee),
            requires_approval: t.requires_approval,
            max_attempts: t.max_attempts,
            depends_on: t.depends_on,
            parent_id: patch(t.parent_id),
        }
    }
}

#[derive(Object)]
pub struct TaskResult {
    /// any JSON; tasks that depend on this one see it
    pub result: Option<Value>,
}

#[derive(Object)]
pub struct TaskFailure {
    #[oai(validator(min_length = 1, max_length = 4000))]
    pub reason: String,
}

#[derive(Object)]
pub struct TaskComment {
    #[oai(validator(max_length = 4000))]
    pub comment: Option<String>,
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum TaskBlockerType {
    /// a task that has to be completed first
    Dependency,
    /// somebody has to decide
    Approval,
}

#[derive(Object)]
pub struct TaskBlockerBody {
    #[oai(rename = "type")]
    kind: TaskBlockerType,
    /// of the task or the approval; of this task itself when it is in review
    id: Uuid,
    title: String,
    status: String,
}

impl From<Blocker> for TaskBlockerBody {
    fn from(b: Blocker) -> Self {
        let kind = match b.kind {
            BlockerKind::Dependency => TaskBlockerType::Dependency,
            BlockerKind::Approval => TaskBlockerType::Approval,
        };
        Self { kind, id: b.id, title: b.title, status: b.status.to_owned() }
    }
}
