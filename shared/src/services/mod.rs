//! Use cases: free functions, one file a noun; permission checks and transactions live here.
pub mod accounts;
pub mod tokens;
