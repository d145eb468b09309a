//! The only SQL. `db.rs` is the facade, one file a noun; a function here is one statement or the few that one transaction needs.
pub mod accounts;
pub mod db;
pub mod migrate;
mod writer;
