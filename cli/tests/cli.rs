//! The real binary, as a person or a container starts it.
#[path = "cli/config.rs"]
mod config;
#[path = "cli/dev.rs"]
mod dev;
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
