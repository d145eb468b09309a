//! Decisions that runs wait for: people list and make them, and the run that asked is woken.
use uuid::Uuid;

use super::{notifications, runs::after::After};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        approval::{Approval, ApprovalStatus, Decision, NewApproval},
        caller::{Caller, Role, Scope},
        notification::{NewNotification, NotificationKind},
        page::{Listed, PageRequest},
        run::Claimed,
    },
    error::{Error, Result},
    store::{
        accounts,
        approvals::{self as store, Decider},
        db::{Class, Tx},
        notifications as told,
        outbox::NoticeKind,
    },
};

const MAX_COMMENT: usize = 4000;

/// The caller's, and for an administrator those that were escalated: pending first, then the newest.
///
/// # Errors
/// `Invalid` for a status that there is none of, and for `sort`: the order is fixed.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Approval>> {
    let by = decider(caller, Scope::Read)?;
    page.check(&ApprovalStatus::ALL.map(ApprovalStatus::as_str), &[])?;
    let now = app.clock.now();
    let items = store::list(&app.db, by, page, now).await?;
    Ok(Listed { items, total: store::total(&app.db, by, page, now).await? })
}

fn decider<'a>(caller: &'a Caller, scope: Scope<'_>) -> Result<Decider<'a>> {
    Ok(Decider { owner: caller.can(scope)?, is_admin: caller.role == Role::Admin })
}

/// Decides, once, and wakes the run that waits for it. The run tells of it when it goes on.
///
/// # Errors
/// `APPROVAL_NOT_FOUND`; `APPROVAL_RESOLVED` when it was decided, has expired or its run has ended; `Invalid` for a long comment.
pub async fn resolve(app: &App, caller: &Caller, id: Uuid, decision: Decision, comment: Option<&str>) -> Result<Approval> {
    let by = decider(caller, Scope::Write)?;
    if comment.is_some_and(|c| c.chars().count() > MAX_COMMENT) {
        return Err(Error::invalid("comment", format!("must be at most {MAX_COMMENT} characters")));
    }
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some(approval) = store::resolve(&mut tx, by, id, decision, comment, now).await? else {
        let found = store::by_id(&mut tx, by, id, now).await?;
        let found = found.ok_or_else(|| Error::not_found("APPROVAL_NOT_FOUND", "no such approval"))?;
        return Err(Error::conflict("APPROVAL_RESOLVED", format!("the approval is {}", found.status.as_str())));
    };
    let mut after = After::default();
    after.tell(&mut tx, [approval.run_id], NoticeKind::Wake, "an approval was resolved", now).await?;
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

/// Keeps what runs ask for, and tells their owners, in the transaction of the runs' other writes.
pub(super) async fn ask(tx: &mut Tx, asked: &[(&Claimed, &NewApproval)], now: Timestamp) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = asked.iter().map(|(run, a)| (run.id, *a)).collect();
    store::insert(tx, &rows, now).await?;
    let told: Vec<_> = asked.iter().map(|(run, a)| (run.owner.as_str(), *a)).collect();
    notifications::approvals_wanted(tx, &told, now).await
}

/// Closes what nobody decided in time, which wakes the runs that wait for it, and tells the administrators of what nobody has decided
/// for too long. Answers how many it touched.
pub async fn sweep(app: &App) -> Result<usize> {
    let (now, batch) = (app.clock.now(), app.config.worker.batch);
    if !store::any_due(&app.db, now).await? {
        return Ok(0);
    }
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    let mut waiting = store::expire_due(&mut tx, now, batch).await?;
    let expired = waiting.len();
    waiting.sort_unstable();
    waiting.dedup();
    after.tell(&mut tx, waiting, NoticeKind::Wake, "an approval has expired", now).await?;
    let escalated = store::escalate_due(&mut tx, now, batch).await?;
    if !escalated.is_empty() {
        let admins: Vec<_> = accounts::admins(&mut tx).await?.iter().map(Uuid::to_string).collect();
        told::insert_many(&mut tx, &escalations(&escalated, &admins), now).await?;
    }
    tx.commit().await?;
    after.apply(app);
    Ok(expired + escalated.len())
}

/// The owner is told again, and each administrator; an administrator's own is told once.
fn escalations(escalated: &[store::Escalated], admins: &[String]) -> Vec<NewNotification> {
    let told = |e: &store::Escalated, to: &str| {
        let title = if to == e.owner { "Your approval is still wanted" } else { "Somebody's approval is wanted" };
        NewNotification::about(to, NotificationKind::ApprovalEscalated, "approval", &e.id.to_string(), title).saying(&*e.reason)
    };
    let to = |e: &store::Escalated| {
        let others = admins.iter().filter(|admin| **admin != e.owner);
        std::iter::once(told(e, &e.owner)).chain(others.map(|admin| told(e, admin))).collect::<Vec<_>>()
    };
    escalated.iter().flat_map(to).collect()
}
