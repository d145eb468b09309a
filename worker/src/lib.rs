//! The worker.
pub mod asr;
pub mod lanes;
pub mod models;
pub mod tools;
