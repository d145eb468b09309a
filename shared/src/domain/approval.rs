//! Decisions that a run waits for: whether a tool may be called, or what a person says to a question.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::new_id;
use crate::{clock::Timestamp, config};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalKind {
    /// A call of a tool that needs approval.
    Tool,
    /// An agent asks a person.
    Question,
    /// An agent is about to execute a task of a goal.
    Task,
}

impl ApprovalKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Question => "question",
            Self::Task => "task",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tool, Self::Question, Self::Task].into_iter().find(|k| k.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalStatus {
    Pending,
    Approved,
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Its run ended before.
    Cancelled,
}

impl ApprovalStatus {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Rejected, Self::Expired, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Approve,
    Reject,
}

impl Decision {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }

    pub fn status(self) -> ApprovalStatus {
        match self {
            Self::Approve => ApprovalStatus::Approved,
            Self::Reject => ApprovalStatus::Rejected,
        }
    }
}

/// One that is about to be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct NewApproval {
    pub id: Uuid,
    pub kind: ApprovalKind,
    /// For people: why a decision is wanted, or the question.
    pub reason: String,
    /// `{"toolCallId", "tool", "arguments"}` of a tool, `{"toolCallId", "question", "options"}` of a question, `{"goalId", "taskId", "title"}` of a
    /// task.
    pub subject: Value,
    pub expires_at: Timestamp,
    /// When the administrators are told that nobody decides; `None`: never.
    pub escalate_at: Option<Timestamp>,
}

impl NewApproval {
    /// Asked for at `now`; it expires and escalates as the settings say.
    pub fn new(settings: &config::Approvals, now: Timestamp, kind: ApprovalKind, reason: String, subject: Value) -> Self {
        let escalates = !settings.escalate_after.is_zero() && settings.escalate_after < settings.expires;
        let escalate_at = escalates.then(|| now.after(settings.escalate_after));
        Self { id: new_id(), kind, reason, subject, expires_at: now.after(settings.expires), escalate_at }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    pub id: Uuid,
    pub run_id: Uuid,
    pub kind: ApprovalKind,
    pub status: ApprovalStatus,
    pub reason: String,
    pub subject: Value,
    pub comment: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub escalated_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    /// Who decided.
    pub resolved_by: Option<String>,
}
