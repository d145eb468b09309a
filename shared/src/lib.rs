//! What API and worker share: the domain, the use cases, the store, the queue, the events and the blobs.
pub mod app;
pub mod blobs;
pub mod clock;
pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod group;
pub mod jobs;
pub mod limits;
pub mod pulse;
pub mod queue;
pub mod services;
pub mod store;
pub mod tasks;
pub mod telemetry;

pub use app::App;
pub use error::{Error, ErrorKind, FieldError, Result};
