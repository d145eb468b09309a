//! Decisions that runs wait for: people list and make them, and the run that asked is woken.
use uuid::Uuid;

use super::runs::after::After;
use crate::{
    app::App,
    domain::{
        approval::{Approval, ApprovalStatus, Decision},
        caller::{Caller, Scope},
        page::{Listed, PageRequest},
        run::Claimed,
    },
    error::{Error, Result},
    store::{
        approvals as store,
        outbox::{self, NoticeKind},
    },
};

const MAX_COMMENT: usize = 4000;

/// The caller's, pending first, then the newest.
///
/// # Errors
/// `Invalid` for a status that there is none of, and for `sort`: the order is fixed.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Approval>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&ApprovalStatus::ALL.map(ApprovalStatus::as_str), &[])?;
    let now = app.clock.now();
    let items = store::list(&app.db, owner, page, now).await?;
    Ok(Listed { items, total: store::total(&app.db, owner, page, now).await? })
}

/// Decides, once, and wakes the run that waits for it. The run tells of it when it goes on.
///
/// # Errors
/// `APPROVAL_NOT_FOUND`; `APPROVAL_RESOLVED` when it was decided, has expired or its run has ended; `Invalid` for a long comment.
pub async fn resolve(app: &App, caller: &Caller, id: Uuid, decision: Decision, comment: Option<&str>) -> Result<Approval> {
    let owner = caller.can(Scope::Write)?;
    if comment.is_some_and(|c| c.chars().count() > MAX_COMMENT) {
        return Err(Error::invalid("comment", format!("must be at most {MAX_COMMENT} characters")));
    }
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some(approval) = store::resolve(&mut tx, owner, id, decision, comment, now).await? else {
        let found = store::by_id(&mut tx, owner, id, now).await?;
        let found = found.ok_or_else(|| Error::not_found("APPROVAL_NOT_FOUND", "no such approval"))?;
        return Err(Error::conflict("APPROVAL_RESOLVED", format!("the approval is {}", found.status.as_str())));
    };
    let mut after = After::default();
    after.notices([outbox::send(&mut tx, approval.run_id, NoticeKind::Wake, "an approval was resolved", now).await?]);
    tx.commit().await?;
    after.apply(app);
    Ok(approval)
}

/// How those stand that a run has asked for; what nobody decided in time has expired from here on.
pub async fn of_run(app: &App, run: &Claimed) -> Result<Vec<Approval>> {
    let now = app.clock.now();
    let all = store::of_run(&app.db, run.id).await?;
    if !all.iter().any(|a| a.status == ApprovalStatus::Pending && a.expires_at <= now) {
        return Ok(all);
    }
    let mut tx = app.db.begin().await?;
    store::expire(&mut tx, run.id, now).await?;
    let all = store::of_run(&mut tx, run.id).await?;
    tx.commit().await?;
    Ok(all)
}
