//! What users think of answers, and what that comes to.
use std::time::Duration;

use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        new_id,
        page::{Listed, PageRequest},
    },
    error::{Error, FieldError, Result},
    services::runs::control,
    store::feedback as store,
};

pub use store::{Feedback, Negative, Share};

const MAX_COMMENT: usize = 2000;
/// How many days an analysis covers at most.
pub const MAX_DAYS: u32 = 366;
const AGENTS: i64 = 100;
const COMMENTS: i64 = 20;
const DAY: Duration = Duration::from_secs(86_400);

pub struct Rating {
    pub execution_id: Uuid,
    /// One message of the execution's; the answer as a whole when left out.
    pub message_id: Option<String>,
    /// 1 or -1.
    pub rating: i64,
    pub comment: String,
}

/// Stores what the caller thinks of an answer, in place of what they thought before; and whether this is the first time.
///
/// # Errors
/// `Invalid`; `RUN_NOT_FOUND` and `MESSAGE_NOT_FOUND`.
pub async fn rate(app: &App, caller: &Caller, new: Rating) -> Result<(Feedback, bool)> {
    let owner = caller.can(Scope::Write)?;
    check(&new)?;
    let run = control::get(app, caller, new.execution_id).await?;
    if let Some(message_id) = &new.message_id
        && !store::has_message(&app.db, run.id, message_id).await?
    {
        return Err(Error::not_found("MESSAGE_NOT_FOUND", "the execution has no such message"));
    }
    let new = Feedback {
        id: new_id(),
        run_id: run.id,
        agent_id: run.agent_id,
        message_id: new.message_id,
        is_good: new.rating > 0,
        comment: new.comment.trim().to_owned(),
        created_at: app.clock.now(),
    };
    let mut tx = app.db.begin().await?;
    let kept = store::rate(&mut tx, owner, &new).await?;
    tx.commit().await?;
    let first = kept.id == new.id;
    Ok((kept, first))
}

fn check(new: &Rating) -> Result<()> {
    let mut bad = Vec::new();
    let mut rule = |ok: bool, field: &str, message: String| {
        if !ok {
            bad.push(FieldError { field: field.to_owned(), message });
        }
    };
    rule(matches!(new.rating, 1 | -1), "rating", "1 or -1".to_owned());
    rule(new.message_id.as_deref() != Some(""), "message_id", "not empty".to_owned());
    rule(new.comment.chars().count() <= MAX_COMMENT, "comment", format!("at most {MAX_COMMENT} characters"));
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

/// What the caller's feedback of the last days comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    pub by_agent: Vec<Share>,
    /// Oldest first, in UTC.
    pub by_day: Vec<Share>,
    /// Newest first.
    pub comments: Vec<Feedback>,
}

/// Of the last `days` times 24 hours, 1 to `MAX_DAYS`.
pub async fn analysis(app: &App, caller: &Caller, days: u32) -> Result<Analysis> {
    let owner = caller.can(Scope::Read)?;
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Error::invalid("days", format!("1 to {MAX_DAYS}")));
    }
    let since = app.clock.now().before(DAY * days);
    Ok(Analysis {
        by_agent: store::by_agent(&app.db, owner, since, AGENTS).await?,
        by_day: store::by_day(&app.db, owner, since).await?,
        comments: store::comments(&app.db, owner, since, COMMENTS).await?,
    })
}

/// The caller's bad answers, with what was asked; newest first, searched by comment.
pub async fn negatives(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Negative>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&[], &[])?;
    store::negatives(&app.db, owner, page).await
}
