//! A run is every unit of background work. This file is its rule book: states, transitions, retry policy, dispatch order.
mod outcome;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Lane;
use crate::{
    clock::Timestamp,
    config,
    error::{Error, Result},
};

pub use self::outcome::{End, RunError, RunUsage};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunState {
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Waiting, Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// An ended run never changes again.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What can happen to a run. The SQL of `store/runs.rs` makes these moves and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A worker takes a ready run.
    Claim,
    /// The run stores what it waits for and lets its slot go.
    Park,
    /// What it waited for has come.
    Wake,
    /// Somebody wants it held: a ready run waits at once; one that is executed, or waits already, gets a mark.
    Pause,
    /// The mark is taken away, and a run that waited for that goes on.
    Resume,
    /// A failure that the policy tries again, later.
    Backoff,
    /// Its worker died, or let it go in order to stop.
    Release,
    Succeed,
    Fail,
    Cancel,
}

impl Transition {
    pub const ALL: [Self; 10] = [
        Self::Claim,
        Self::Park,
        Self::Wake,
        Self::Pause,
        Self::Resume,
        Self::Backoff,
        Self::Release,
        Self::Succeed,
        Self::Fail,
        Self::Cancel,
    ];
}

/// The transition table: the state after, or `None` where the move is not allowed.
pub fn next(state: RunState, by: Transition) -> Option<RunState> {
    use RunState as S;
    use Transition as T;
    Some(match (state, by) {
        (S::Queued, T::Claim) => S::Running,
        (S::Running, T::Park) | (S::Queued, T::Pause) => S::Waiting,
        (S::Waiting, T::Wake | T::Resume) | (S::Running, T::Backoff | T::Release) => S::Queued,
        // The mark alone: a worker sees it at its next checkpoint.
        (S::Running | S::Waiting, T::Pause) | (S::Queued | S::Running, T::Resume) => state,
        (S::Running, T::Succeed) => S::Succeeded,
        // A queued or waiting run fails when its time is up.
        (S::Queued | S::Running | S::Waiting, T::Fail) => S::Failed,
        (S::Queued | S::Running | S::Waiting, T::Cancel) => S::Cancelled,
        _ => return None,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    Agent,
    /// Several agents work on one message.
    Team,
    /// A goal becomes a tree of tasks, or another one.
    GoalPlan,
    /// A goal's tasks are executed until it ends.
    Goal,
    /// An agent executes a task.
    Task,
    /// One call of a tool, outside an agent.
    ToolCall,
    /// One call of a model, to see whether it answers.
    ModelTest,
    /// A plugin's tools are read from its source.
    PluginSync,
    /// What a run learned of its user is kept.
    MemoryExtraction,
    /// A notification is sent through a channel.
    Delivery,
    Transcription,
}

impl RunKind {
    pub const ALL: [Self; 11] = [
        Self::Agent,
        Self::Team,
        Self::GoalPlan,
        Self::Goal,
        Self::Task,
        Self::ToolCall,
        Self::ModelTest,
        Self::PluginSync,
        Self::MemoryExtraction,
        Self::Delivery,
        Self::Transcription,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Team => "team",
            Self::GoalPlan => "goal_plan",
            Self::Goal => "goal",
            Self::Task => "task",
            Self::ToolCall => "tool_call",
            Self::ModelTest => "model_test",
            Self::PluginSync => "plugin_sync",
            Self::MemoryExtraction => "memory_extraction",
            Self::Delivery => "delivery",
            Self::Transcription => "transcription",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }

    /// Whether its execution looks, between its steps, if it is to be held.
    pub fn has_checkpoints(self) -> bool {
        matches!(self, Self::Agent | Self::Team | Self::Goal | Self::Task)
    }

    pub fn lane(self) -> Lane {
        match self {
            Self::Agent | Self::Team | Self::Task | Self::ToolCall | Self::ModelTest => Lane::Runs,
            Self::GoalPlan | Self::Goal => Lane::Plans,
            Self::PluginSync | Self::MemoryExtraction | Self::Delivery => Lane::Bulk,
            Self::Transcription => Lane::Media,
        }
    }
}

/// Who has to be told when a run ends. What they are told is applied in a transaction of its own: see `services::runs::watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// The task that it executes.
    Task,
    /// The goal that it plans.
    Plan,
    /// The schedule that fired it.
    Schedule,
    /// Its owner, who does not wait for it.
    Owner,
}

impl Watcher {
    pub const ALL: [Self; 4] = [Self::Task, Self::Plan, Self::Schedule, Self::Owner];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Plan => "plan",
            Self::Schedule => "schedule",
            Self::Owner => "owner",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    pub fn as_i64(self) -> i64 {
        match self {
            Self::High => 1,
            Self::Normal => 0,
            Self::Low => -1,
        }
    }

    /// The order in a lane: the time it became ready, as if a high one had come five minutes earlier. The score never
    /// changes while it waits, so a low one that has waited five minutes is as good as a normal one that comes now.
    pub fn score(priority: i64, ready_at: Timestamp) -> i64 {
        const BONUS: i64 = 5 * 60 * 1_000_000;
        ready_at.0 - priority * BONUS
    }
}

/// What happens to a new run while the thread has one that has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multitask {
    /// It runs after those accepted before it.
    #[default]
    Enqueue,
    /// It is refused.
    Reject,
    /// The active run is cancelled.
    Interrupt,
    /// The active run is cancelled and its messages are dropped.
    Rollback,
}

/// How often and when a failed run is tried again. Kept in the row, so that a changed setting does not touch accepted runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    pub max_attempts: i64,
    pub max_crashes: i64,
    pub backoff_ms: u64,
    pub max_backoff_ms: u64,
}

impl RetryPolicy {
    pub fn of(runs: &config::Runs) -> Self {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            max_attempts: runs.max_attempts,
            max_crashes: runs.max_crashes,
            backoff_ms: ms(runs.backoff),
            max_backoff_ms: ms(runs.max_backoff),
        }
    }

    /// How long to wait after the `failures`-th failure (1, 2, …): doubling, at most `max_backoff_ms`, then between half and all of
    /// it by `jitter` (0..1), and never less than what the provider asked for. `None` when no try is left.
    pub fn delay(&self, failures: i64, jitter: f64, retry_after: Option<Duration>) -> Option<Duration> {
        if failures >= self.max_attempts {
            return None;
        }
        let doublings = u32::try_from((failures - 1).clamp(0, 40)).unwrap_or(0);
        let full = self.backoff_ms.saturating_mul(1_u64 << doublings).min(self.max_backoff_ms);
        let waited = Duration::from_millis(full).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        Some(waited.max(retry_after.unwrap_or_default()))
    }
}

/// What a parked run waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "lowercase")]
pub enum Waiting {
    Timer {
        until: Timestamp,
    },
    /// Until one of them ends, or a timer that was set beside them goes off.
    Children {
        runs: Vec<Uuid>,
        until: Option<Timestamp>,
    },
    /// Until a person decides, or the first of them expires.
    Approval {
        approvals: Vec<Uuid>,
        until: Option<Timestamp>,
    },
    /// A goal's run: until one of its tasks or the goal itself changes, or a time comes that it has to look at.
    Tasks {
        until: Option<Timestamp>,
    },
    /// Until somebody resumes it, or a time comes that it has to look at.
    Paused {
        until: Option<Timestamp>,
    },
}

impl Waiting {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timer { .. } => "timer",
            Self::Children { .. } => "children",
            Self::Approval { .. } => "approval",
            Self::Tasks { .. } => "tasks",
            Self::Paused { .. } => "paused",
        }
    }

    pub fn wake_at(&self) -> Option<Timestamp> {
        match self {
            Self::Timer { until } => Some(*until),
            Self::Children { until, .. } | Self::Approval { until, .. } | Self::Tasks { until } | Self::Paused { until } => {
                *until
            }
        }
    }
}

/// The row, as people may see it.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: Uuid,
    pub owner: String,
    pub thread_id: Uuid,
    /// The client's name of the thread.
    pub thread: String,
    /// The client's name of the run.
    pub external_id: String,
    pub kind: RunKind,
    pub lane: Lane,
    pub state: RunState,
    pub attempt: i64,
    pub crashes: i64,
    pub priority: i64,
    pub parent_run_id: Option<Uuid>,
    pub root_run_id: Option<Uuid>,
    pub retry_of: Option<Uuid>,
    pub watcher: Option<Watcher>,
    /// It is to be held at its next checkpoint, or is.
    pub paused: bool,
    pub agent_id: Option<String>,
    pub model: Option<String>,
    pub waiting: Option<Waiting>,
    pub due_at: Option<Timestamp>,
    pub result: Option<serde_json::Value>,
    pub error: Option<RunError>,
    pub usage: Option<RunUsage>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// What a worker holds after a claim: the row's working set, and the fence that every write must show.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: Uuid,
    pub owner: String,
    pub thread_id: Uuid,
    /// The client's name of the thread.
    pub thread: String,
    pub external_id: String,
    pub kind: RunKind,
    pub lane: Lane,
    pub fence: i64,
    pub attempt: i64,
    pub wake_seq: i64,
    pub run_deadline: Timestamp,
    pub policy: RetryPolicy,
    pub parent_run_id: Option<Uuid>,
    pub root_run_id: Uuid,
    pub retry_of: Option<Uuid>,
    pub watcher: Option<Watcher>,
    pub paused: bool,
    pub agent_id: Option<String>,
    pub model: Option<String>,
    pub input: serde_json::Value,
    pub trace: Option<String>,
    pub ready_at: Timestamp,
}

/// 1–128 characters, no control characters: the rule for what clients call their threads and runs.
pub fn check_external_id(field: &str, id: &str) -> Result<()> {
    let n = id.chars().count();
    if (1..=128).contains(&n) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::invalid(field, "must be 1 to 128 characters, none of them a control character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_runs_never_change() {
        for state in RunState::ALL.into_iter().filter(|s| s.is_ended()) {
            assert!(Transition::ALL.into_iter().all(|t| next(state, t).is_none()), "{state:?}");
        }
    }

    #[test]
    fn every_state_that_has_not_ended_can_be_cancelled() {
        for state in RunState::ALL.into_iter().filter(|s| !s.is_ended()) {
            assert_eq!(next(state, Transition::Cancel), Some(RunState::Cancelled));
        }
    }

    #[test]
    fn holding_a_run_and_letting_it_go_on_ends_nothing() {
        for state in RunState::ALL {
            for by in [Transition::Pause, Transition::Resume] {
                assert_eq!(next(state, by).is_some(), !state.is_ended(), "{state:?} {by:?}");
                assert!(
                    next(state, by).is_none_or(|s| !s.is_ended() && (s == RunState::Running) == (state == RunState::Running))
                );
            }
        }
    }

    #[test]
    fn backoff_doubles_with_jitter_up_to_its_cap_and_obeys_the_provider() {
        let policy = RetryPolicy { max_attempts: 5, max_crashes: 1, backoff_ms: 1000, max_backoff_ms: 3000 };
        let ms = |n, jitter| policy.delay(n, jitter, None).map(|d| d.as_millis());
        assert_eq!([ms(1, 0.0), ms(1, 1.0), ms(2, 1.0), ms(3, 1.0), ms(4, 0.0)], [500, 1000, 2000, 3000, 1500].map(Some));
        assert_eq!(ms(5, 1.0), None);
        assert_eq!(policy.delay(1, 0.0, Some(Duration::from_secs(9))), Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_low_run_that_waited_overtakes_a_high_one_that_has_not() {
        let minute = Duration::from_secs(60);
        let low = Priority::score(-1, Timestamp(0));
        assert!(Priority::score(1, Timestamp(0).after(minute * 9)) < low);
        assert!(Priority::score(1, Timestamp(0).after(minute * 11)) > low);
    }
}
