//! The engine as a whole, on both databases, with a scripted model on the OpenAI wire.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod bad_days;
mod context;
mod control;
mod lease;
mod path;
mod recorder;
mod replay;
mod stress;
mod told;
#[cfg(feature = "whisper")]
mod transcription;
