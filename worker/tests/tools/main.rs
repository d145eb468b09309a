//! The tools as the engine calls them.
#![expect(clippy::unwrap_used, reason = "the servers of these tests; a failure there is a failed test")]

mod custom_http;
mod data;
mod documents;
mod encoding;
mod files;
mod functions;
mod http_request;
mod list;
mod maths;
mod notify_user;
mod planning;
mod sandbox;
mod schedules;
mod support;
mod text;
mod time;
#[cfg(feature = "whisper")]
mod transcribe_audio;
mod web;
