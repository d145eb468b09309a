//! One module a store file: each function on both databases.
mod agents;
mod approvals;
mod attachments;
mod branches;
mod events;
mod feedback;
mod files;
mod goals;
mod memories;
mod messages;
mod model_configs;
mod moves;
mod outbox;
mod sessions;
mod steps;
mod summaries;
mod sweep;
mod tasks;
mod threads;
mod tools;
mod view;

/// Text that breaks naive quoting and naive JSON.
const NASTY: &str = "it's \"quoted\" \\ back\\slash, \u{1F980} 漢字 e\u{301}, tab\t newline\n, $1 ? :a {\"a\":[1]}, \\u0000";
