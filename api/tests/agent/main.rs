//! The Agent API over HTTP, with a worker that does what each test says.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]
mod agui;
mod attachments;
mod errors;
mod events;
mod history;
mod isolation;
mod openapi;
mod runs;
mod support;
mod transcribe;
#[path = "../../src/agent/agui/verifier.rs"]
mod verifier;
