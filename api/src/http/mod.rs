//! What all dialects share.
pub mod auth;
pub mod body;
pub mod error;
mod observe;
pub mod ops;
pub mod patience;
pub mod reply;
pub mod server;
mod write_timeout;
