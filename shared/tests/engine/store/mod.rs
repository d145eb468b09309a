//! One module a store file: each function on both databases.
mod attachments;
mod events;
mod messages;
mod moves;
mod outbox;
mod sessions;
mod steps;
mod sweep;
mod threads;
mod view;

/// Text that breaks naive quoting and naive JSON.
const NASTY: &str = "it's \"quoted\" \\ back\\slash, \u{1F980} 漢字 e\u{301}, tab\t newline\n, $1 ? :a {\"a\":[1]}, \\u0000";
