//! The real binary, as a person or a container starts it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
#[path = "cli/config.rs"]
mod config;
#[path = "cli/dev.rs"]
mod dev;
#[path = "cli/distributed.rs"]
mod distributed;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/models.rs"]
mod models;
#[path = "cli/openapi.rs"]
mod openapi;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/run.rs"]
mod run;
