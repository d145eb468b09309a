//! Runs that a run starts: its children, and what its end sets off.
use uuid::Uuid;

use super::lost;
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::Owner,
        event::NewEvent,
        message::NewMessage,
        new_id,
        run::{Claimed, Priority, RetryPolicy, RunKind, Watcher},
        step::StepWrite,
    },
    error::{Error, Result},
    services::runs::{
        accept::Accepted,
        after::{After, Source},
    },
    store::{
        db::Tx,
        messages::{self, Added},
        runs::{Ready, moves},
        steps::{self, Held},
        threads::{self, Advance},
    },
};
/// A run that another run starts and waits for.
pub struct Child {
    pub id: Uuid,
    pub kind: RunKind,
    /// JSON, as its kind reads it.
    pub input: String,
    pub messages: Vec<NewMessage>,
    pub agent_id: Option<String>,
    pub model: Option<String>,
    pub watcher: Option<Watcher>,
}

/// Starts a child in a thread of its own, in the transaction that journals it: a crash leaves both or neither.
pub async fn start_child(app: &App, parent: &Claimed, child: Child, step: StepWrite) -> Result<Accepted> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let accepted = adopt(app, &mut tx, &mut after, parent, &child, &[step], now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(accepted)
}

/// As `start_child`, in the caller's transaction: heads that it needs are locked already, since the parent's row is locked here.
pub(crate) async fn adopt(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    parent: &Claimed,
    child: &Child,
    steps: &[StepWrite],
    now: Timestamp,
) -> Result<Accepted> {
    let owner = Owner::of_row(&parent.owner);
    let name = format!("child-{}", child.id);
    let thread_id = threads::ensure(tx, new_id(), &owner, &name, false, now).await?;
    let count = i64::try_from(child.messages.len()).unwrap_or(i64::MAX);
    let take = Advance { events: 1, messages: count, orders: 1, candidate: Some(child.id) };
    let head = threads::advance(tx, thread_id, take).await?;
    journal_within(tx, parent, steps, now).await?;
    moves::insert(tx, child_run(app, parent, child, thread_id, head.last_order, now)?).await?;
    let added = Added { thread_id, run_id: child.id, messages: &child.messages, last_seq: head.last_message_seq };
    messages::insert(tx, &[added], now).await?;
    let source = Source { thread_id, run_id: child.id, run: &name, fence: 0 };
    after.append_numbered(tx, source, vec![NewEvent::queued()], head.last_seq, now).await?;
    after.ready([Ready { id: child.id, lane: child.kind.lane(), score: Priority::score(0, now) }]);
    Ok(Accepted { id: child.id, thread: name.clone(), run: name, created_at: now, replayed: false })
}

/// Writes steps of a run in the caller's transaction, which must be the execution's that has the run.
pub(crate) async fn journal_within(tx: &mut Tx, run: &Claimed, steps: &[StepWrite], now: Timestamp) -> Result<()> {
    if !moves::hold(tx, run.id, run.fence).await? {
        return Err(lost());
    }
    let held: Vec<_> = steps.iter().map(|step| Held { run_id: run.id, fence: run.fence, step }).collect();
    steps::write(tx, &held, now).await
}

fn child_run(app: &App, parent: &Claimed, child: &Child, thread_id: Uuid, order: i64, now: Timestamp) -> Result<moves::NewRun> {
    Ok(moves::NewRun {
        id: child.id,
        owner: parent.owner.clone(),
        thread_id,
        external_id: format!("child-{}", child.id),
        kind: child.kind,
        lane: child.kind.lane(),
        ready: true,
        thread_order: Some(order),
        priority: 0,
        dispatch_score: Priority::score(0, now),
        due_at: None,
        queue_deadline: now.after(app.config.runs.queue_timeout),
        run_left: i64::try_from(app.config.runs.run_timeout.as_micros()).map_err(Error::internal)?,
        policy: parent.policy.clone(),
        parent_run_id: Some(parent.id),
        root_run_id: Some(parent.root_run_id),
        retry_of: None,
        watcher: child.watcher,
        agent_id: child.agent_id.clone(),
        model: child.model.clone(),
        input: child.input.clone(),
        input_hash: String::new(),
        trace: parent.trace.clone(),
        created_at: now,
    })
}

/// Work that a run's end sets off: nobody's child, in a thread of its own that nobody sees among theirs.
#[derive(Clone, Debug)]
pub struct Next {
    pub kind: RunKind,
    /// Names the run and its thread; nothing else may be called so.
    pub name: String,
    /// JSON, as its kind reads it.
    pub input: String,
}

/// Its thread is new, so that taking its head's lock last waits for nobody.
pub(super) async fn start_next(
    tx: &mut Tx,
    after: &mut After,
    app: &App,
    run: &Claimed,
    next: &Next,
    now: Timestamp,
) -> Result<()> {
    let owner = Owner::of_row(&run.owner);
    let id = new_id();
    let thread_id = threads::ensure(tx, new_id(), &owner, &next.name, false, now).await?;
    let take = Advance { events: 1, messages: 0, orders: 1, candidate: Some(id) };
    let head = threads::advance(tx, thread_id, take).await?;
    let new = moves::NewRun {
        external_id: next.name.clone(),
        input_hash: next.name.clone(),
        parent_run_id: None,
        root_run_id: None,
        policy: RetryPolicy::of(&app.config.runs),
        ..child_run(app, run, &next.child(id), thread_id, head.last_order, now)?
    };
    moves::insert(tx, new).await?;
    let source = Source { thread_id, run_id: id, run: &next.name, fence: 0 };
    after.append_numbered(tx, source, vec![NewEvent::queued()], head.last_seq, now).await?;
    after.ready([Ready { id, lane: next.kind.lane(), score: Priority::score(0, now) }]);
    Ok(())
}

impl Next {
    fn child(&self, id: Uuid) -> Child {
        Child { id, kind: self.kind, input: self.input.clone(), messages: Vec::new(), agent_id: None, model: None, watcher: None }
    }
}
