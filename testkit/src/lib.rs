//! The test kit: real protocol servers and the harness for whole-system tests.
pub mod app;
pub mod counting_server;
pub mod database;
pub mod http_client;
pub mod http_server;
pub mod ledger;
pub mod mcp_server;
pub mod model_server;
pub mod process;
pub mod protocol;
pub mod s3_server;
pub mod sandbox;
pub mod services;
pub mod smtp_server;
pub mod turnstile;
pub mod whisper_model;
pub mod wires;
