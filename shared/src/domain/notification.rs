//! What an owner is told while they do not look.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    ApprovalWanted,
    /// Nobody has decided for too long.
    ApprovalEscalated,
    GoalEnded,
    RunEnded,
    SchedulePaused,
    /// An agent has something to say.
    Message,
    /// Sent through one channel because its owner asked for it; no channel is chosen by it.
    Test,
}

impl NotificationKind {
    pub const ALL: [Self; 7] = [
        Self::ApprovalWanted,
        Self::ApprovalEscalated,
        Self::GoalEnded,
        Self::RunEnded,
        Self::SchedulePaused,
        Self::Message,
        Self::Test,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApprovalWanted => "approval_wanted",
            Self::ApprovalEscalated => "approval_escalated",
            Self::GoalEnded => "goal_ended",
            Self::RunEnded => "run_ended",
            Self::SchedulePaused => "schedule_paused",
            Self::Message => "message",
            Self::Test => "test",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// One that is about to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct NewNotification {
    pub owner: String,
    pub kind: NotificationKind,
    pub title: String,
    pub body: String,
    /// `{"type", "id"}` of what it is about.
    pub subject: Value,
    /// The same thing is told once, whoever tells it and how often.
    pub dedupe_key: String,
}

impl NewNotification {
    /// `what` and `id` name what it is about; it is told once for each.
    pub fn about(owner: &str, kind: NotificationKind, what: &str, id: &str, title: impl Into<String>) -> Self {
        Self {
            owner: owner.to_owned(),
            kind,
            title: title.into(),
            body: String::new(),
            subject: json!({ "type": what, "id": id }),
            dedupe_key: format!("{}:{id}", kind.as_str()),
        }
    }

    #[must_use]
    pub fn saying(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }
}

/// One that was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub id: Uuid,
    pub owner: String,
    pub kind: NotificationKind,
    pub title: String,
    pub body: String,
    pub subject: Value,
    pub read_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// How a channel reaches its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    Email,
    Webhook,
}

impl ChannelKind {
    pub const ALL: [Self; 2] = [Self::Email, Self::Webhook];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Webhook => "webhook",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// The prefix of a webhook's secret; base64 follows.
pub const SECRET_PREFIX: &str = "whsec_";
