//! How a run ends, and what that sets off: its thread goes to the next run, its parent is woken, its children are told to stop.
use uuid::Uuid;

use super::after::{After, Source};
use crate::{
    clock::Timestamp,
    domain::{
        event::{NewEvent, kind},
        run::{Run, RunError, RunState},
    },
    error::Result,
    store::{
        approvals,
        db::Tx,
        messages,
        outbox::{self, NoticeKind},
        runs::{moves, view},
        steps,
        threads::{self, Advance},
    },
};

/// An end that does not come from the run's own execution.
pub struct Outside<'a> {
    pub state: RunState,
    pub reason: &'a str,
    /// Of a failure.
    pub error: Option<RunError>,
    pub drop_messages: bool,
}

/// Ends a run in whatever state it is; `false` when it had ended already. Takes the thread's lock first.
pub async fn from_outside(tx: &mut Tx, after: &mut After, id: Uuid, how: &Outside<'_>, now: Timestamp) -> Result<bool> {
    let Some(run) = view::any_by_id(&mut *tx, id).await? else { return Ok(false) };
    threads::advance(tx, run.thread_id, Advance::default()).await?;
    let usage = steps::usage(tx, id).await?;
    let ending = moves::Ending { state: how.state, result: None, error: how.error.as_ref(), usage };
    if !moves::end_from_outside(tx, id, &ending, now).await? {
        return Ok(false);
    }
    let mut events = Vec::new();
    if let Some(message) = steps::open_message(&mut *tx, id).await? {
        events.push(NewEvent::discarded(&message));
    }
    if how.drop_messages {
        let dropped = messages::drop_of_run(tx, id).await?;
        events.push(NewEvent::new(kind::MESSAGES_DROPPED, serde_json::json!({ "messageIds": dropped })));
    }
    let last = match &how.error {
        Some(error) => NewEvent::failed(error, false),
        None => NewEvent::cancelled(how.reason),
    };
    events.push(last.with_usage(usage));
    let source = Source { thread_id: run.thread_id, run_id: id, run: &run.external_id, fence: 0 };
    after.append(tx, source, events, now).await?;
    after.stopped(run.lane, id);
    approvals::cancel_of_run(tx, id, now).await?;
    consequences(tx, after, Ended::of(&run), now).await?;
    Ok(true)
}

/// What is needed of a run that has just ended.
pub struct Ended {
    pub id: Uuid,
    pub thread_id: Uuid,
    pub parent_run_id: Option<Uuid>,
    pub is_watched: bool,
}

impl Ended {
    fn of(run: &Run) -> Self {
        Self { id: run.id, thread_id: run.thread_id, parent_run_id: run.parent_run_id, is_watched: run.watcher.is_some() }
    }
}

/// In the transaction that ends a run, under its thread's lock.
pub async fn consequences(tx: &mut Tx, after: &mut After, ended: Ended, now: Timestamp) -> Result<()> {
    if let Some(next) = threads::hand_on(tx, ended.thread_id, ended.id).await? {
        after.ready(moves::make_ready(tx, next, now).await?);
    }
    after.notices(outbox::cancel_children(tx, ended.id, now).await?);
    if let Some(parent) = ended.parent_run_id {
        after.notices([outbox::send(tx, parent, NoticeKind::Wake, "a child run has ended", now).await?]);
    }
    if ended.is_watched {
        after.notices([outbox::send(tx, ended.id, NoticeKind::Ended, "the run has ended", now).await?]);
    }
    Ok(())
}
