//! What a run tells: numbered without a hole in its thread, stored before anybody sees it.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::run::{RunError, RunUsage};
use crate::clock::Timestamp;

/// The kinds, as they are named on the wire and in the log.
pub mod kind {
    pub const RUN_QUEUED: &str = "run.queued";
    pub const RUN_STARTED: &str = "run.started";
    pub const RUN_WAITING: &str = "run.waiting";
    pub const RUN_FINISHED: &str = "run.finished";
    pub const RUN_FAILED: &str = "run.failed";
    pub const RUN_CANCELLED: &str = "run.cancelled";
    pub const MESSAGE_STARTED: &str = "message.started";
    pub const MESSAGE_FINISHED: &str = "message.finished";
    pub const MESSAGES_DROPPED: &str = "messages.dropped";
    pub const TEXT_DELTA: &str = "text.delta";
    pub const REASONING_DELTA: &str = "reasoning.delta";
    pub const TOOL_STARTED: &str = "tool.started";
    pub const TOOL_DELTA: &str = "tool.delta";
    pub const TOOL_FINISHED: &str = "tool.finished";
    pub const STEP_STARTED: &str = "step.started";
    pub const STEP_FINISHED: &str = "step.finished";
    pub const APPROVAL_REQUESTED: &str = "approval.requested";
    pub const APPROVAL_RESOLVED: &str = "approval.resolved";
    pub const STATE_SNAPSHOT: &str = "state.snapshot";
    pub const PROGRESS: &str = "progress";
    /// In a goal's thread: how the goal, or one of its tasks, stands now.
    pub const GOAL_CHANGED: &str = "goal.changed";
    pub const GOAL_PLANNED: &str = "goal.planned";
    pub const TASK_CHANGED: &str = "task.changed";
    /// Never stored: a reader from before the retained part of a log gets one.
    pub const STREAM_GAP: &str = "stream.gap";
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub seq: i64,
    pub run_id: Uuid,
    /// The client's name of the run.
    pub run: String,
    pub kind: String,
    pub data: Value,
    pub at: Timestamp,
}

impl Event {
    /// Whether its run has ended with it.
    pub fn is_terminal(&self) -> bool {
        match self.kind.as_str() {
            kind::RUN_FINISHED | kind::RUN_CANCELLED => true,
            kind::RUN_FAILED => self.data["willRetry"] == json!(false),
            _ => false,
        }
    }
}

/// An event that has no number yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub kind: &'static str,
    pub data: Value,
}

impl NewEvent {
    pub fn new(kind: &'static str, data: Value) -> Self {
        Self { kind, data }
    }

    pub fn queued() -> Self {
        Self::new(kind::RUN_QUEUED, json!({}))
    }

    pub fn failed(error: &RunError, will_retry: bool) -> Self {
        Self::new(kind::RUN_FAILED, json!({ "error": error, "willRetry": will_retry }))
    }

    pub fn cancelled(reason: &str) -> Self {
        Self::new(kind::RUN_CANCELLED, json!({ "reason": reason }))
    }

    /// What the run used until it ended.
    #[must_use]
    pub fn with_usage(mut self, usage: Option<RunUsage>) -> Self {
        if let Some(usage) = usage {
            self.data["usage"] = json!(usage);
        }
        self
    }

    pub fn finished(result: &Value, usage: RunUsage, pending: &[String]) -> Self {
        let mut data = json!({ "result": result, "usage": usage });
        if !pending.is_empty() {
            data["pendingToolCallIds"] = json!(pending);
        }
        Self::new(kind::RUN_FINISHED, data)
    }

    /// Closes an answer that was half streamed when its worker died or was stopped.
    pub fn discarded(message_id: &str) -> Self {
        Self::new(kind::MESSAGE_FINISHED, json!({ "messageId": message_id, "role": "assistant", "discarded": true }))
    }

    /// Whether `next` only goes on with what this one says, so that one row can hold both.
    pub fn joins(&self, next: &Self) -> bool {
        let same = |field: &str| self.data[field] == next.data[field];
        self.kind == next.kind
            && match self.kind {
                kind::TEXT_DELTA | kind::REASONING_DELTA => same("messageId"),
                kind::TOOL_DELTA => same("toolCallId"),
                _ => false,
            }
    }

    pub fn join(&mut self, next: &Self) {
        if let (Value::String(text), Some(more)) = (&mut self.data["delta"], next.data["delta"].as_str()) {
            text.push_str(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_deltas_of_one_message_join_and_others_do_not() {
        let delta = |id: &str, text: &str| NewEvent::new(kind::TEXT_DELTA, json!({ "messageId": id, "delta": text }));
        let mut first = delta("m1", "Hel");
        assert!(first.joins(&delta("m1", "lo")));
        assert!(!first.joins(&delta("m2", "lo")));
        first.join(&delta("m1", "lo"));
        assert_eq!(first, delta("m1", "Hello"));
    }
}
