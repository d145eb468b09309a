//! What all dialects share.
pub mod address;
pub mod auth;
pub mod body;
pub mod document;
pub mod error;
pub mod live;
mod observe;
pub mod ops;
pub mod patience;
pub mod reply;
pub mod server;
pub mod trace;
pub mod upload;
mod write_timeout;
