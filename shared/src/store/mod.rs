//! The only SQL. `db.rs` is the facade, one file a noun; a function here is one statement, or the few that one transaction needs.
pub mod accounts;
pub mod attachments;
pub mod db;
pub mod events;
pub mod messages;
pub mod migrate;
pub mod outbox;
pub mod runs;
pub mod sessions;
pub mod steps;
pub mod threads;
mod writer;

/// Every statement of the store: a test prepares each on both databases.
pub fn statements() -> Vec<db::Sql> {
    let mut all = runs::statements();
    for file in [db::STATEMENTS, events::STATEMENTS, messages::STATEMENTS, outbox::STATEMENTS, sessions::STATEMENTS] {
        all.extend_from_slice(file);
    }
    all.extend_from_slice(accounts::STATEMENTS);
    all.extend_from_slice(attachments::STATEMENTS);
    all.extend_from_slice(steps::STATEMENTS);
    all.extend_from_slice(threads::STATEMENTS);
    all
}
