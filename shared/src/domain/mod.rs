//! Pure types, state machines and rules. No I/O; imports nothing of ours but the error and the timestamp.
pub mod caller;
pub mod chat;
pub mod event;
pub mod file_name;
pub mod lane;
pub mod media_type;
pub mod message;
pub mod run;
pub mod run_input;
pub mod step;
pub mod transcript;
pub mod wav;

pub use lane::Lane;
use uuid::Uuid;

/// A new UUIDv7: sortable by creation, unique across processes.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
