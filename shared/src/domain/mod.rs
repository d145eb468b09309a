//! Pure types, state machines and rules. No I/O; imports nothing of ours but the error and the timestamp.
pub mod agent;
pub mod approval;
pub mod board;
pub mod caller;
pub mod chat;
pub mod condition;
pub mod cron;
pub mod dialogue;
pub mod event;
pub mod file_name;
pub mod goal;
pub mod lane;
pub mod media_type;
pub mod memory;
pub mod message;
pub mod model;
pub mod notification;
pub mod page;
pub mod plan;
pub mod plugin;
pub mod run;
pub mod run_input;
pub mod schedule;
pub mod search;
pub mod step;
pub mod task;
pub mod task_graph;
pub mod team;
pub mod tool;
pub mod transcript;
pub mod wav;

pub use lane::Lane;
use uuid::Uuid;

/// A new UUIDv7: sortable by creation, unique across processes.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
