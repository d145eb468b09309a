//! Use cases: free functions, one file a noun; permission checks and transactions live here.
pub mod accounts;
pub mod attachments;
pub mod history;
pub mod leases;
pub mod runs;
pub mod stream;
pub mod tokens;
pub mod transcriptions;
