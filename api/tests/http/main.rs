//! The HTTP foundation and the platform's accounts, driven through real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
mod accounts;
mod refusals;
mod serving;
mod support;
