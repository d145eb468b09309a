//! How a run ends, and what that sets off: its thread goes to the next run, its parent is woken, its children are told to stop.
use uuid::Uuid;

use super::after::{After, Source};
use crate::{
    clock::Timestamp,
    domain::{
        event::{NewEvent, kind},
        run::{Claimed, End, Run, RunError, RunKind, RunState, Watcher},
    },
    error::Result,
    services::goals::drive,
    store::{
        approvals,
        db::Tx,
        messages,
        outbox::{self, Notice, NoticeKind},
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
    let end = End { state: how.state, result: None, error: how.error.clone(), usage };
    if !moves::end_from_outside(tx, id, &end, now).await? {
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
    consequences(tx, after, &[Ended::of(&run, how)], now).await?;
    Ok(true)
}

/// What is needed of a run that has just ended.
pub struct Ended<'a> {
    pub id: Uuid,
    pub kind: RunKind,
    pub thread_id: Uuid,
    /// The client's name of the thread.
    pub thread: &'a str,
    pub parent_run_id: Option<Uuid>,
    pub watcher: Option<Watcher>,
    pub state: RunState,
    pub error: Option<&'a RunError>,
}

impl<'a> Ended<'a> {
    fn of(run: &'a Run, how: &'a Outside<'_>) -> Self {
        Self {
            id: run.id,
            kind: run.kind,
            thread_id: run.thread_id,
            thread: &run.thread,
            parent_run_id: run.parent_run_id,
            watcher: run.watcher,
            state: how.state,
            error: how.error.as_ref(),
        }
    }

    /// By its own execution.
    pub fn executed(run: &'a Claimed, state: RunState, error: Option<&'a RunError>) -> Self {
        Self {
            id: run.id,
            kind: run.kind,
            thread_id: run.thread_id,
            thread: &run.thread,
            parent_run_id: run.parent_run_id,
            watcher: run.watcher,
            state,
            error,
        }
    }
}

/// In the transaction that ends these runs, under their threads' locks.
pub async fn consequences(tx: &mut Tx, after: &mut After, ended: &[Ended<'_>], now: Timestamp) -> Result<()> {
    let heads: Vec<_> = ended.iter().map(|e| (e.thread_id, e.id)).collect();
    let next = threads::hand_on(tx, &heads).await?;
    after.ready(moves::make_ready(tx, &next, now).await?);
    let ids: Vec<_> = ended.iter().map(|e| e.id).collect();
    let children = outbox::children(tx, &ids).await?;
    let mut notices: Vec<_> =
        children.into_iter().map(|child| Notice::new(child, NoticeKind::Cancel, "its parent has ended")).collect();
    for run in ended {
        // A goal's run is woken by what becomes of its tasks.
        if let Some(parent) = run.parent_run_id.filter(|_| run.watcher != Some(Watcher::Task)) {
            notices.push(Notice::new(parent, NoticeKind::Wake, "a child run has ended"));
        }
        if run.watcher.is_some() {
            notices.push(Notice::new(run.id, NoticeKind::Ended, "the run has ended"));
        }
    }
    after.send(tx, notices, now).await?;
    for run in ended.iter().filter(|e| e.kind == RunKind::Goal) {
        drive::run_ended(tx, after, run, now).await?;
    }
    Ok(())
}
