//! The engine as a whole, on both databases, with a scripted model on the OpenAI wire.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod path;
