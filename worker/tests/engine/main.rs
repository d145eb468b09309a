//! The engine as a whole, on both databases, with a scripted model on the OpenAI wire.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod approvals;
mod bad_days;
mod budgets;
mod compaction;
mod context;
mod control;
mod deliveries;
mod every_step;
mod goals;
mod holding;
mod lease;
mod memory;
mod output;
mod path;
mod planning;
mod plugins;
mod recorder;
mod replay;
mod stress;
mod teams;
mod told;
#[cfg(feature = "whisper")]
mod transcription;
