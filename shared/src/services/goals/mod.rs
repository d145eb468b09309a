//! Goals: what their owners do with them, how they are planned, and the lock under which they and the readiness of their tasks change.
pub mod drive;
mod hold;

pub use crate::store::goals::Standing;
pub use hold::{forbids, hold, hold_mine, move_to};
