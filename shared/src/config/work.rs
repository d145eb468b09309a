//! How runs are executed, and what stands on them.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Secret, duration};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    pub max_queued: u64,
    #[serde(with = "duration")]
    pub retry_after: Duration,
    pub max_attempts: i64,
    pub max_crashes: i64,
    #[serde(with = "duration")]
    pub backoff: Duration,
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    #[serde(with = "duration")]
    pub queue_timeout: Duration,
    #[serde(with = "duration")]
    pub run_timeout: Duration,
    #[serde(with = "duration")]
    pub model_idle_timeout: Duration,
    #[serde(with = "duration")]
    pub retention: Duration,
    #[serde(with = "duration")]
    pub idempotency_retention: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    #[serde(with = "duration")]
    pub lease: Duration,
    #[serde(with = "duration")]
    pub reconcile: Duration,
    pub batch: i64,
    #[serde(with = "duration")]
    pub drain: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    #[serde(with = "duration")]
    pub retention: Duration,
    pub page: i64,
    pub buffer: usize,
    #[serde(with = "duration")]
    pub ping: Duration,
    #[serde(with = "duration")]
    pub flush: Duration,
    #[serde(with = "duration")]
    pub max_flush: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    #[serde(with = "duration")]
    pub expires: Duration,
    /// Zero: never.
    #[serde(with = "duration")]
    pub escalate_after: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    pub max_tasks: usize,
    pub max_depth: usize,
    pub max_parallel: u32,
    pub max_replans: u32,
    #[serde(with = "duration")]
    pub claim: Duration,
    pub max_result_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    pub max_per_user: u32,
    #[serde(with = "duration")]
    pub min_interval: Duration,
    #[serde(with = "duration")]
    pub catch_up_window: Duration,
    pub catch_up_max: u32,
    pub max_failures: u32,
    pub max_buffered: u32,
    pub max_input_bytes: usize,
    #[serde(with = "duration")]
    pub retention: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    #[serde(with = "duration")]
    pub retention: Duration,
    pub max_channels: u32,
    #[serde(with = "duration")]
    pub timeout: Duration,
    pub attempts: u32,
    #[serde(with = "duration")]
    pub backoff: Duration,
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    pub smtp_url: Secret,
    pub from: String,
}
