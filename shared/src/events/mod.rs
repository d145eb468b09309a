//! Live events: hints that carry the events themselves. The log in the database is the truth (`store::events`).
pub mod live;
mod redis;

pub use live::{Live, Signal};
