//! Branches: a second way on from a message of a conversation. Nothing is copied: the branch's thread reads what it inherits.
use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        new_id,
        page::{Listed, PageRequest},
    },
    error::{Error, Result},
    store::{
        branches::{self as store, NewBranch},
        threads,
    },
};

pub use store::Branch;

const MAX_NAME: usize = 100;

/// Where a branch is to go out, and what it is called.
pub struct Wanted<'a> {
    pub session: &'a str,
    /// Of the session's conversation, inherited or not: the last one that the branch has.
    pub message_id: &'a str,
    /// The message's id when left out.
    pub name: Option<&'a str>,
}

/// Makes a thread that goes on after a message. What is said in the parent from now on, it does not have.
///
/// # Errors
/// `SESSION_NOT_FOUND`, `MESSAGE_NOT_FOUND`; `SESSION_BUSY` while what comes before the message is still being written.
pub async fn create(app: &App, caller: &Caller, wanted: Wanted<'_>) -> Result<Branch> {
    let owner = caller.can(Scope::Write)?;
    let name = wanted.name.map_or(wanted.message_id, str::trim);
    if !(1..=MAX_NAME).contains(&name.chars().count()) && wanted.name.is_some() {
        return Err(Error::invalid("name", format!("1 to {MAX_NAME} characters")));
    }
    let parent = threads::by_name(&app.db, owner, wanted.session).await?;
    let no_session = || Error::not_found("SESSION_NOT_FOUND", "no such session");
    let parent = parent.ok_or_else(no_session)?;
    let (now, mut tx) = (app.clock.now(), app.db.begin().await?);
    if !store::lock(&mut tx, parent.id).await? {
        return Err(no_session());
    }
    let fork = store::fork(&mut tx, parent.id, wanted.message_id).await?;
    let fork = fork.ok_or_else(|| Error::not_found("MESSAGE_NOT_FOUND", "the session has no such message"))?;
    if fork.unfinished {
        return Err(Error::conflict("SESSION_BUSY", "what comes before this message is still being written"));
    }
    let (id, thread_id) = (new_id(), new_id());
    threads::ensure(&mut tx, thread_id, owner, &new_id().to_string(), true, now).await?;
    store::inherit(&mut tx, thread_id, parent.id, &fork).await?;
    let (message_id, agent_id) = (wanted.message_id, fork.agent_id);
    store::insert(&mut tx, owner, NewBranch { id, thread_id, parent_thread_id: parent.id, message_id, name, agent_id }, now)
        .await?;
    tx.commit().await?;
    get(app, caller, id).await
}

/// The caller's branches; those that went out from `session` when it is named.
pub async fn list(app: &App, caller: &Caller, session: Option<&str>, page: &PageRequest) -> Result<Listed<Branch>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&[], &["name", "created_at"])?;
    store::list(&app.db, owner, session, page).await
}

/// # Errors
/// `BRANCH_NOT_FOUND`
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Branch> {
    store::by_id(&app.db, caller.can(Scope::Read)?, id).await?.ok_or_else(not_found)
}

/// Deletes the branch and its thread, with all that was said there.
///
/// # Errors
/// `BRANCH_NOT_FOUND`; `BRANCH_BUSY` while a run has not ended; `BRANCH_HAS_BRANCHES` while others go out from it.
pub async fn delete(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let branch = store::by_id(&app.db, owner, id).await?.ok_or_else(not_found)?;
    let mut tx = app.db.begin().await?;
    if !store::lock(&mut tx, branch.thread_id).await? {
        return Err(not_found());
    }
    let tied = store::tied(&mut tx, branch.thread_id).await?;
    if tied.busy {
        return Err(Error::conflict("BRANCH_BUSY", "a run of this branch has not ended: cancel it, or wait"));
    }
    if tied.inherited {
        return Err(Error::conflict("BRANCH_HAS_BRANCHES", "other branches go out from this one: delete them first"));
    }
    store::delete_thread(&mut tx, branch.thread_id).await?;
    tx.commit().await
}

fn not_found() -> Error {
    Error::not_found("BRANCH_NOT_FOUND", "no such branch")
}
