//! Goals: what their owners do with them, how they are planned, and the lock under which they and the readiness of their tasks change.
mod hold;

pub use crate::store::goals::Standing;
pub use hold::{hold, hold_mine, move_to, not_found};
