//! What an owner's runs have used of models. It is read from the journals, and so it reaches back as far as runs are kept
//! (`runs.retention`).
use crate::{
    app::App,
    clock::Timestamp,
    domain::caller::{Caller, Scope},
    error::{Error, Result},
    store::usage as store,
};

pub use store::Sum;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Agent,
    /// `provider:name`
    Model,
    /// UTC, as `2026-07-01`; the day on which the run was accepted.
    Day,
}

/// Which runs: accepted from `from` on (default: all that are kept) and before `to` (default: now).
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// # Errors
/// `Invalid` when the window ends before it begins.
pub async fn of_caller(app: &App, caller: &Caller, by: GroupBy, window: Window) -> Result<Vec<Sum>> {
    let owner = caller.can(Scope::Read)?;
    let from = window.from.unwrap_or(Timestamp(0));
    // What is accepted in this microsecond counts too.
    let to = window.to.unwrap_or_else(|| Timestamp(app.clock.now().0 + 1));
    if from > to {
        return Err(Error::invalid("from", "must not be after `to`"));
    }
    let by = match by {
        GroupBy::Agent => store::BY_AGENT,
        GroupBy::Model => store::BY_MODEL,
        GroupBy::Day => store::BY_DAY,
    };
    store::sums(&app.db, by, owner, from, to).await
}
