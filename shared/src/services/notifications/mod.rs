//! What owners are told while they do not look: in the app, and through their channels.
mod dispatch;

use uuid::Uuid;

use super::runs::control;
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        approval::{ApprovalKind, NewApproval},
        caller::{Caller, Owner, Scope},
        notification::{NewNotification, Notification, NotificationKind},
        page::{Listed, PageRequest},
        run::{Run, RunKind, RunState},
    },
    error::{Error, FieldError, Result},
    store::{db::Tx, events, notifications as store},
};

pub use self::dispatch::{Parcel, dispatch, parcel};
pub(super) use self::dispatch::{Wanted, start as start_delivery};

/// Of an answer, in the notification of its run's end.
const MAX_SHOWN: usize = 500;

/// What a list of notifications may be asked for, beside its page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    pub kind: Option<&'a str>,
    /// Where an earlier page ended.
    pub cursor: Option<&'a str>,
}

pub struct Found {
    pub listed: Listed<Notification>,
    /// `None`: there are no more.
    pub next_cursor: Option<String>,
}

/// The caller's, newest first.
///
/// # Errors
/// `Invalid` naming every filter that is none.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest, filter: Filter<'_>) -> Result<Found> {
    let owner = caller.can(Scope::Read)?;
    let mut bad = page.check(&["read", "unread"], &[]).err().map(|e| e.fields).unwrap_or_default();
    let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
    let kind = filter.kind.and_then(NotificationKind::parse);
    if filter.kind.is_some() && kind.is_none() {
        fail("kind", format!("one of {}", NotificationKind::ALL.map(NotificationKind::as_str).join(", ")));
    }
    let before: Option<Uuid> = filter.cursor.and_then(|c| c.parse().ok());
    if filter.cursor.is_some() && before.is_none() {
        fail("cursor", "must be the next_cursor of an earlier page".to_owned());
    }
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    let mut listed = store::list(&app.db, owner, page, kind, before).await?;
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let is_cut = listed.items.len() > size;
    listed.items.truncate(size);
    let next_cursor = listed.items.last().filter(|_| is_cut).map(|last| last.id.to_string());
    Ok(Found { listed, next_cursor })
}

pub async fn unread(app: &App, caller: &Caller) -> Result<i64> {
    store::unread(&app.db, caller.can(Scope::Read)?).await
}

fn not_found() -> Error {
    Error::not_found("NOTIFICATION_NOT_FOUND", "no such notification")
}

/// Marks one as read; doing it again changes nothing.
pub async fn read(app: &App, caller: &Caller, id: Uuid) -> Result<Notification> {
    store::read(&app.db, id, caller.can(Scope::Write)?, app.clock.now()).await?.ok_or_else(not_found)
}

/// Answers how many had not been read.
pub async fn read_all(app: &App, caller: &Caller) -> Result<usize> {
    store::read_all(&app.db, caller.can(Scope::Write)?, app.clock.now()).await
}

/// One that has not been sent yet is not sent any more.
pub async fn remove(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    if store::delete(&app.db, id, caller.can(Scope::Write)?).await? { Ok(()) } else { Err(not_found()) }
}

/// What an agent has to say to its owner. The same `key` of a run is told once.
pub async fn message(app: &App, owner: &Owner, run_id: Uuid, key: &str, title: &str, text: &str) -> Result<()> {
    let about = NewNotification::about(owner.as_str(), NotificationKind::Message, "execution", &run_id.to_string(), title);
    let new = NewNotification { dedupe_key: format!("message:{run_id}:{key}"), ..about.saying(text) };
    let mut tx = app.db.begin().await?;
    store::insert(&mut tx, &new, app.clock.now()).await?;
    tx.commit().await
}

/// Tells the owners of runs what those wait for, in the transaction that keeps it.
pub(super) async fn approvals_wanted(tx: &mut Tx, asked: &[(&str, &NewApproval)], now: Timestamp) -> Result<()> {
    let wanted = |(owner, a): &(&str, &NewApproval)| {
        let title = match a.kind {
            ApprovalKind::Tool => "Your approval is wanted",
            ApprovalKind::Question => "An agent has a question",
            ApprovalKind::Task => "A task waits for your approval",
        };
        NewNotification::about(owner, NotificationKind::ApprovalWanted, "approval", &a.id.to_string(), title).saying(&*a.reason)
    };
    store::insert_many(tx, &asked.iter().map(wanted).collect::<Vec<_>>(), now).await
}

/// A run that nobody waits for has ended. Who cancelled it themself knows.
pub(super) async fn run_ended(tx: &mut Tx, run: &Run, now: Timestamp) -> Result<()> {
    let (how, body) = match run.state {
        RunState::Succeeded => ("has finished", run.result.as_ref().and_then(|r| r["content"].as_str()).map(shown)),
        RunState::Failed => ("has failed", run.error.as_ref().map(|e| format!("{}: {}", e.code, e.message))),
        RunState::Cancelled => ("was cancelled", events::cancelled(tx, run.id).await?),
        RunState::Queued | RunState::Running | RunState::Waiting => return Ok(()),
    };
    if run.state == RunState::Cancelled && body.as_deref() == Some(control::BY_OWNER) {
        return Ok(());
    }
    let what = match run.kind {
        RunKind::Agent => "The execution of an agent",
        RunKind::Team => "The execution of a team",
        _ => "An execution",
    };
    let title = format!("{what} {how}");
    let new = NewNotification::about(&run.owner, NotificationKind::RunEnded, "execution", &run.id.to_string(), title);
    store::insert(tx, &new.saying(body.unwrap_or_default()), now).await
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Forgets what is past its retention, a batch of it.
pub async fn forget(app: &App) -> Result<usize> {
    let before = app.clock.now().before(app.config.notifications.retention);
    store::forget(&app.db, before, app.config.worker.batch).await
}
