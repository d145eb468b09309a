//! Tasks: what people and agents do with them. `settle` is what follows for a goal's tasks when one of them changes, `run` is what the
//! run that executes a task does to it. Whatever changes the tasks of a goal holds the goal's lock; a task by itself needs none.
mod run;
mod settle;

pub use run::{run_ended, start};
pub use settle::{changed, settle, settle_after};

use crate::error::Error;

pub(crate) fn not_found() -> Error {
    Error::not_found("TASK_NOT_FOUND", "no such task")
}
