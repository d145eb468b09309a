//! The platform's dialect over HTTP: the API and a worker in the test's process, embedded and distributed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
mod accounts;
mod agent_chat;
mod agents;
mod approvals;
mod branches;
mod coverage;
mod executions;
mod executions_live;
mod feedback;
mod goals;
mod model_configs;
mod notifications;
mod plugins;
mod schedules;
mod secrets;
mod support;
mod swarm;
mod system;
mod task_executions;
mod tasks;
mod tools;
mod usage;
