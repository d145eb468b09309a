//! The Agent API: `/api/v1/agent`.
pub mod agui;
pub mod sse;
