//! The worker.
pub mod asr;
pub mod models;
pub mod tools;
