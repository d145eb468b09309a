//! A task of a goal, or one by itself: its states and THE table of its transitions. The store makes these moves and no others, each by
//! compare-and-set.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::run::{RunError, RunUsage};
use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// What it depends on has not been completed.
    Pending,
    Ready,
    /// Somebody has taken it, for a time.
    Claimed,
    Running,
    /// Done, and to be approved.
    InReview,
    Completed,
    Failed,
    Rejected,
    Cancelled,
}

impl TaskStatus {
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Ready,
        Self::Claimed,
        Self::Running,
        Self::InReview,
        Self::Completed,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::InReview => "in_review",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Nothing happens to it by itself any more; a failed or rejected one may be tried again.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled)
    }
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskMove {
    /// All that it depends on has been completed.
    Unblock,
    /// Something that it depends on is not completed any more, or was added.
    Block,
    Claim,
    /// Its claimer gives it back, or the claim has lapsed.
    Release,
    /// Its run begins.
    Start,
    Complete,
    /// As `Complete`, where a person has to approve.
    Submit,
    Approve,
    Reject,
    /// A person does not want it to be executed at all.
    Refuse,
    Fail,
    /// What it depends on cannot be completed any more.
    Starve,
    /// It is tried again; `Unblock` follows where nothing holds it.
    Retry,
    Cancel,
}

impl TaskMove {
    pub const ALL: [Self; 14] = [
        Self::Unblock,
        Self::Block,
        Self::Claim,
        Self::Release,
        Self::Start,
        Self::Complete,
        Self::Submit,
        Self::Approve,
        Self::Reject,
        Self::Refuse,
        Self::Fail,
        Self::Starve,
        Self::Retry,
        Self::Cancel,
    ];

    /// The states that it may come from, and the one that it leads to.
    pub fn table(self) -> (&'static [TaskStatus], TaskStatus) {
        use TaskStatus as S;
        match self {
            Self::Unblock => (&[S::Pending], S::Ready),
            Self::Block => (&[S::Ready], S::Pending),
            Self::Claim => (&[S::Ready], S::Claimed),
            Self::Release => (&[S::Claimed], S::Ready),
            // Its claimer may have it executed.
            Self::Start => (&[S::Ready, S::Claimed], S::Running),
            Self::Complete => (&[S::Claimed, S::Running], S::Completed),
            Self::Submit => (&[S::Claimed, S::Running], S::InReview),
            Self::Approve => (&[S::InReview], S::Completed),
            Self::Reject => (&[S::InReview], S::Rejected),
            Self::Refuse => (&[S::Ready], S::Rejected),
            Self::Fail => (&[S::Claimed, S::Running], S::Failed),
            Self::Starve => (&[S::Pending], S::Failed),
            Self::Retry => (&[S::Failed, S::Rejected], S::Pending),
            Self::Cancel => (&[S::Pending, S::Ready, S::Claimed, S::Running, S::InReview], S::Cancelled),
        }
    }
}

/// The transition table: the state after, or `None` where the move is not allowed.
pub fn next(status: TaskStatus, by: TaskMove) -> Option<TaskStatus> {
    let (from, to) = by.table();
    from.contains(&status).then_some(to)
}

/// Who is to do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum Assignee {
    /// The id of an agent.
    Agent(String),
    /// The id of a user: nobody else's agent executes it.
    User(String),
}

impl Assignee {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::User(_) => "user",
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Agent(id) | Self::User(id) => id,
        }
    }

    pub fn of(kind: &str, id: String) -> Option<Self> {
        match kind {
            "agent" => Some(Self::Agent(id)),
            "user" => Some(Self::User(id)),
            _ => None,
        }
    }
}

/// The code of the error of a task that fails because another did.
pub const STARVED: &str = "DEPENDENCY_FAILED";
/// The code of the error of a task that was cancelled because its goal ended, and not because it was taken out of the plan.
pub const GOAL_ENDED: &str = "GOAL_ENDED";

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: Uuid,
    pub owner: String,
    pub goal_id: Option<Uuid>,
    pub parent_id: Option<Uuid>,
    /// Its name in the plan of its goal.
    pub key: String,
    pub title: String,
    pub description: String,
    pub status: TaskStatus,
    /// The higher, the earlier.
    pub priority: i64,
    /// Its place in the plan.
    pub position: i64,
    /// `None`: the goal's agent.
    pub assignee: Option<Assignee>,
    pub requires_approval: bool,
    pub depends_on: Vec<Uuid>,
    pub result: Option<Value>,
    pub error: Option<RunError>,
    /// Failures so far.
    pub attempt: i64,
    pub max_attempts: i64,
    /// The owner who has claimed it, and until when.
    pub claimed_by: Option<String>,
    pub claim_expires_at: Option<Timestamp>,
    /// The run that executes it, or did so last.
    pub run_id: Option<Uuid>,
    /// Of all its runs.
    pub usage: RunUsage,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_completed_or_cancelled_never_changes() {
        for status in [TaskStatus::Completed, TaskStatus::Cancelled] {
            assert!(TaskMove::ALL.into_iter().all(|m| next(status, m).is_none()), "{status:?}");
        }
    }

    #[test]
    fn only_another_try_leaves_an_ended_state() {
        for status in TaskStatus::ALL.into_iter().filter(|s| s.is_ended()) {
            let moves: Vec<_> = TaskMove::ALL.into_iter().filter(|m| next(status, *m).is_some()).collect();
            assert!(moves.iter().all(|m| *m == TaskMove::Retry), "{status:?}: {moves:?}");
        }
    }

    #[test]
    fn whatever_has_not_ended_can_be_cancelled() {
        for status in TaskStatus::ALL.into_iter().filter(|s| !s.is_ended()) {
            assert_eq!(next(status, TaskMove::Cancel), Some(TaskStatus::Cancelled));
        }
    }
}
