//! The only SQL. `db.rs` is the facade, one file a noun; a function here is one statement, or the few that one transaction needs.
pub mod accounts;
pub mod agents;
pub mod approvals;
pub mod attachments;
pub mod branches;
pub mod db;
pub mod events;
pub mod executions;
pub mod feedback;
pub mod files;
pub mod goal_runs;
pub mod goals;
pub mod memories;
pub mod messages;
pub mod migrate;
pub mod model_configs;
pub mod notification_channels;
pub mod notifications;
pub mod outbox;
pub mod plans;
pub mod plugins;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod sessions;
pub mod steps;
pub mod summaries;
pub mod tasks;
pub mod teams;
pub mod threads;
pub mod tools;
pub mod usage;
mod writer;

/// Every statement of the store: a test prepares each on both databases.
pub fn statements() -> Vec<db::Sql> {
    let mut all = runs::statements();
    for file in [db::STATEMENTS, events::STATEMENTS, messages::STATEMENTS, outbox::STATEMENTS, sessions::STATEMENTS] {
        all.extend_from_slice(file);
    }
    all.extend_from_slice(accounts::STATEMENTS);
    all.extend_from_slice(agents::STATEMENTS);
    all.extend_from_slice(approvals::STATEMENTS);
    all.extend_from_slice(attachments::STATEMENTS);
    all.extend_from_slice(branches::STATEMENTS);
    all.extend_from_slice(executions::STATEMENTS);
    all.extend_from_slice(feedback::STATEMENTS);
    all.extend_from_slice(files::STATEMENTS);
    all.extend_from_slice(goal_runs::STATEMENTS);
    all.extend_from_slice(goals::STATEMENTS);
    all.extend_from_slice(memories::STATEMENTS);
    all.extend_from_slice(model_configs::STATEMENTS);
    all.extend_from_slice(notification_channels::STATEMENTS);
    all.extend_from_slice(notifications::STATEMENTS);
    all.extend_from_slice(plans::STATEMENTS);
    all.extend_from_slice(plugins::STATEMENTS);
    all.extend_from_slice(schedules::STATEMENTS);
    all.extend_from_slice(secrets::STATEMENTS);
    all.extend_from_slice(steps::STATEMENTS);
    all.extend_from_slice(summaries::STATEMENTS);
    all.extend(tasks::statements());
    all.extend_from_slice(teams::STATEMENTS);
    all.extend_from_slice(threads::STATEMENTS);
    all.extend_from_slice(tools::STATEMENTS);
    all.extend_from_slice(usage::STATEMENTS);
    all
}
