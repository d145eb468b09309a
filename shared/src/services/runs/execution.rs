//! What a worker may do with a run that it holds. Every write shows the fence of the claim; `Lost` means that the run was
//! taken away (cancelled, timed out, or given to another worker), and that nothing was written.
use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    accept::Accepted,
    after::{self, After, Source},
    ending::{self, Ended},
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        approval::NewApproval,
        event::{NewEvent, kind},
        message::NewMessage,
        new_id,
        run::{Claimed, Priority, RetryPolicy, RunError, RunKind, RunState, RunUsage, Waiting, Watcher},
        step::{Step, StepWrite},
    },
    error::{Error, Result},
    group::Together,
    services,
    store::{
        approvals,
        db::Tx,
        events,
        messages::{self, Added},
        runs::{Ready, moves, sweep, view},
        steps::{self, Held},
        summaries,
        threads::{self, Advance},
    },
};

pub use crate::store::runs::{Fenced, moves::Claim};

/// The code of the error that says that a run is no longer this execution's.
pub const LOST: &str = "RUN_LOST";

pub fn lost() -> Error {
    Error::conflict(LOST, "the run is no longer this worker's")
}

fn source(run: &Claimed) -> Source<'_> {
    Source { thread_id: run.thread_id, run_id: run.id, run: &run.external_id, fence: run.fence }
}

fn fenced(run: &Claimed) -> Fenced {
    Fenced { id: run.id, fence: run.fence }
}

/// Claims that come while others are written share a statement. Answers `None` when the run has ended, waits, or somebody else has it.
pub struct Claims(pub App);

#[async_trait]
impl Together for Claims {
    type Item = Claim;
    type Answer = Option<Claimed>;
    type Key = Uuid;

    fn key(claim: &Claim) -> Option<Uuid> {
        Some(claim.run)
    }

    async fn ask(&self, claims: &[Claim]) -> Vec<Result<Option<Claimed>>> {
        match moves::claim(&self.0.db, claims, self.0.clock.now()).await {
            Ok(claimed) => {
                let mut claimed: HashMap<_, _> = claimed.into_iter().map(|run| (run.id, run)).collect();
                claims.iter().map(|claim| Ok(claimed.remove(&claim.run))).collect()
            }
            Err(e) => e.for_each(claims.len()),
        }
    }
}

pub async fn journal(app: &App, run_id: Uuid) -> Result<Vec<Step>> {
    steps::of_run(&app.db, run_id).await
}

/// A run's part of a flush.
pub struct Unit<'a> {
    pub run: &'a Claimed,
    pub writes: Writes,
}

/// A commit whose answer may be lost: one of its events, by which the next try sees whether it happened.
#[derive(Default)]
pub struct Doubt(Option<Mark>);

struct Mark {
    thread_id: Uuid,
    seq: i64,
    run_id: Uuid,
    fence: i64,
}

/// Writes the events, steps and messages of many runs, and how some of them end, in one transaction. Answers which executions were lost;
/// a run whose part cannot be written fails the whole call, and the caller bisects. One run may come twice: as it was lost and as it was
/// claimed again. The caller tries the same units again with the same `doubt`, so that what was committed without an answer is not
/// written twice; units without events may be written twice without harm.
pub async fn flush(app: &App, units: Vec<Unit<'_>>, doubt: &mut Doubt) -> Result<Vec<Fenced>> {
    let now = app.clock.now();
    let mut units = units;
    units.sort_by_key(|u| u.run.thread_id);
    let mut tx = app.db.begin().await?;
    // Heads by id, then runs by id: the one lock order.
    let take: Vec<_> = units.iter().map(|u| (u.run.thread_id, u.writes.numbers())).collect();
    let heads = threads::advance_many(&mut tx, &take).await?;
    // Under the heads' locks: a commit that is still on its way has them.
    if let Some(Mark { thread_id, seq, run_id, fence }) = doubt.0
        && events::is_stored(&mut tx, thread_id, seq, run_id, fence).await?
    {
        return Ok(Vec::new());
    }
    let held: Vec<_> = units.iter().map(|u| fenced(u.run)).collect();
    let mine = moves::hold_many(&mut tx, &held).await?;
    if held.iter().any(|h| !mine.contains(h)) {
        // The numbers of a lost run must not be taken: start again without it.
        drop(tx);
        let (kept, lost): (Vec<_>, Vec<_>) = units.into_iter().partition(|u| mine.contains(&fenced(u.run)));
        let mut all: Vec<_> = lost.iter().map(|u| fenced(u.run)).collect();
        if !kept.is_empty() {
            all.extend(Box::pin(flush(app, kept, doubt)).await?);
        }
        return Ok(all);
    }
    let head = |run: &Claimed| heads.get(&run.thread_id).copied().ok_or_else(lost);
    let held: Vec<_> = units.iter().flat_map(|u| held_steps(u.run, &u.writes)).collect();
    steps::write(&mut tx, &held, now).await?;
    for Unit { run, writes } in &mut units {
        fail_with_usage(&mut tx, run, writes, now).await?;
    }
    let mut published = Vec::with_capacity(units.len());
    for unit in &mut units {
        let events = std::mem::take(&mut unit.writes.events);
        published.push((unit.run, after::number(source(unit.run), events, head(unit.run)?.last_seq, now)));
    }
    let mut rows = Vec::new();
    for (run, events) in &published {
        rows.extend(after::rows(source(run), events)?);
    }
    events::append(&mut tx, &rows).await?;
    drop(rows);
    let mut added = Vec::with_capacity(units.len());
    for unit in &units {
        added.push(added_messages(unit.run, &unit.writes, &head(unit.run)?));
    }
    messages::insert(&mut tx, &added, now).await?;
    let asked: Vec<_> = units.iter().flat_map(|u| u.writes.approvals.iter().map(|a| (u.run, a))).collect();
    services::approvals::ask(&mut tx, &asked, now).await?;
    let mut after = After::default();
    end_all(app, &mut tx, &mut after, &units, now).await?;
    let told = published.iter().find_map(|(run, events)| Some((run, events.last()?.seq)));
    doubt.0 = told.map(|(run, seq)| Mark { thread_id: run.thread_id, seq, run_id: run.id, fence: run.fence });
    tx.commit().await?;
    for (run, events) in published {
        after.events(run.thread_id, events);
    }
    after.apply(app);
    for (run, end) in units.iter().filter_map(Unit::ended) {
        metrics::counter!("runmill_runs_ended_total", "kind" => run.kind.as_str(), "state" => end.state.as_str()).increment(1);
    }
    Ok(Vec::new())
}

/// A run that ends in failure without saying what it used has what its journal knows, in its last event too; nobody decides for it any more.
async fn fail_with_usage(tx: &mut Tx, run: &Claimed, writes: &mut Writes, now: Timestamp) -> Result<()> {
    let Some(end) = writes.end.as_mut().filter(|end| end.usage.is_none() && end.state != RunState::Succeeded) else {
        return Ok(());
    };
    end.usage = steps::usage(tx, run.id).await?;
    let last = writes.events.pop().map(|last| last.with_usage(end.usage));
    writes.events.extend(last);
    approvals::cancel_of_run(tx, run.id, now).await
}

/// The ends among what is written, and what they set off.
async fn end_all(app: &App, tx: &mut Tx, after: &mut After, units: &[Unit<'_>], now: Timestamp) -> Result<()> {
    let rows = units.iter().filter_map(Unit::ended).map(|(run, end)| {
        let (result, error) = (end.result.as_ref(), end.error.as_ref());
        (fenced(run), moves::Ending { state: end.state, result, error, usage: end.usage })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    if moves::end(tx, &rows, now).await?.len() != rows.len() {
        return Err(lost());
    }
    for (run, next) in units.iter().filter_map(|u| Some((u.run, u.writes.end.as_ref()?.next.as_ref()?))) {
        start_next(tx, after, app, run, next, now).await?;
    }
    let ended = units.iter().filter_map(Unit::ended).map(|(run, end)| Ended::executed(run, end.state, end.error.as_ref()));
    ending::consequences(tx, after, &ended.collect::<Vec<_>>(), now).await
}

impl Unit<'_> {
    fn ended(&self) -> Option<(&Claimed, &End)> {
        Some((self.run, self.writes.end.as_ref()?))
    }
}

fn held_steps<'a>(run: &'a Claimed, writes: &'a Writes) -> impl Iterator<Item = Held<'a>> {
    writes.steps.iter().map(|step| Held { run_id: run.id, fence: run.fence, step })
}

fn added_messages<'a>(run: &Claimed, writes: &'a Writes, head: &threads::Head) -> Added<'a> {
    Added { thread_id: run.thread_id, run_id: run.id, messages: &writes.messages, last_seq: head.last_message_seq }
}

/// What an execution writes in one go.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    pub events: Vec<NewEvent>,
    pub steps: Vec<StepWrite>,
    pub messages: Vec<NewMessage>,
    /// Decisions that the run is about to wait for.
    pub approvals: Vec<NewApproval>,
    /// The run ends with this; the last of `events` says so.
    pub end: Option<End>,
}

impl Writes {
    fn numbers(&self) -> Advance {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Advance { events: count(self.events.len()), messages: count(self.messages.len()), ..Advance::default() }
    }
}

/// How an execution ends the run.
#[derive(Clone, Debug)]
pub struct End {
    pub state: RunState,
    pub result: Option<serde_json::Value>,
    pub error: Option<RunError>,
    /// A failure that does not say it has what its journal knows.
    pub usage: Option<RunUsage>,
    /// Begins with the end: both are committed, or neither.
    pub next: Option<Next>,
}

impl End {
    pub fn succeeded(result: serde_json::Value) -> Self {
        Self { state: RunState::Succeeded, result: Some(result), error: None, usage: None, next: None }
    }

    pub fn failed(error: RunError) -> Self {
        Self { state: RunState::Failed, result: None, error: Some(error), usage: None, next: None }
    }

    pub fn cancelled() -> Self {
        Self { state: RunState::Cancelled, result: None, error: None, usage: None, next: None }
    }

    #[must_use]
    pub fn using(self, usage: RunUsage) -> Self {
        Self { usage: Some(usage), ..self }
    }
}

/// Takes the locks and the numbers that `writes` needs, and checks the fence.
async fn open(tx: &mut Tx, run: &Claimed, writes: &Writes) -> Result<threads::Head> {
    let head = threads::advance(tx, run.thread_id, writes.numbers()).await?;
    if moves::hold(tx, run.id, run.fence).await? { Ok(head) } else { Err(lost()) }
}

async fn write(tx: &mut Tx, after: &mut After, run: &Claimed, writes: Writes, head: threads::Head, now: Timestamp) -> Result<()> {
    steps::write(tx, &held_steps(run, &writes).collect::<Vec<_>>(), now).await?;
    let asked: Vec<_> = writes.approvals.iter().map(|a| (run, a)).collect();
    services::approvals::ask(tx, &asked, now).await?;
    messages::insert(tx, &[added_messages(run, &writes, &head)], now).await?;
    after.append_numbered(tx, source(run), writes.events, head.last_seq, now).await
}

/// Ends the run: a flush of its own.
///
/// # Errors
/// `RUN_LOST`.
pub async fn end(app: &App, run: &Claimed, end: End, mut writes: Writes) -> Result<()> {
    writes.end = Some(end);
    let taken = flush(app, vec![Unit { run, writes }], &mut Doubt::default()).await?;
    if taken.is_empty() { Ok(()) } else { Err(lost()) }
}

/// What became of an attempt to park.
#[derive(Debug, PartialEq, Eq)]
pub enum Parked {
    Yes,
    /// Something happened since `wake_seq` was seen; here is the new count. Look again, then go on or park.
    Woken(i64),
}

/// Lets the run wait without a worker. `wake_seq` is the count that was known when the run found that it had to wait.
pub async fn park(app: &App, run: &Claimed, wake_seq: i64, waiting: &Waiting, mut writes: Writes) -> Result<Parked> {
    let now = app.clock.now();
    writes.events.push(NewEvent::new(kind::RUN_WAITING, serde_json::json!({ "reason": waiting.reason() })));
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let head = open(&mut tx, run, &writes).await?;
    if !moves::park(&mut tx, run, wake_seq, waiting, now).await? {
        drop(tx);
        return moves::wake_seq(&app.db, run.id, run.fence).await?.map(Parked::Woken).ok_or_else(lost);
    }
    write(&mut tx, &mut after, run, writes, head, now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(Parked::Yes)
}

/// Lets the run try again later.
pub async fn back_off(app: &App, run: &Claimed, error: &RunError, delay: std::time::Duration, mut writes: Writes) -> Result<()> {
    let now = app.clock.now();
    writes.events.push(NewEvent::failed(error, true));
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let head = open(&mut tx, run, &writes).await?;
    write(&mut tx, &mut after, run, writes, head, now).await?;
    if !moves::back_off(&mut tx, run, now.after(delay), error, now).await? {
        return Err(lost());
    }
    tx.commit().await?;
    after.apply(app);
    metrics::counter!("runmill_run_retries_total", "kind" => run.kind.as_str()).increment(1);
    Ok(())
}

/// Puts the run back at once, with its old place, because this worker stops.
pub async fn release(app: &App, run: &Claimed) -> Result<()> {
    let ready = moves::release(&app.db, run.id, run.fence, app.clock.now()).await?.ok_or_else(lost)?;
    after::hint(app, &[ready]).await;
    Ok(())
}

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
    let owner = crate::domain::caller::Owner::of_row(&parent.owner);
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
async fn start_next(tx: &mut Tx, after: &mut After, app: &App, run: &Claimed, next: &Next, now: Timestamp) -> Result<()> {
    let owner = crate::domain::caller::Owner::of_row(&run.owner);
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

/// Keeps what a thread's messages up to and with `upto` come to, for later runs.
pub async fn keep_summary(app: &App, run: &Claimed, upto: &str, summary: &str) -> Result<()> {
    summaries::keep(&app.db, run.thread_id, upto, summary, app.clock.now()).await
}

/// What messages of the run's thread came to, newest first.
pub async fn summaries(app: &App, run: &Claimed) -> Result<Vec<summaries::Summary>> {
    summaries::of_thread(&app.db, run.thread_id).await
}

/// How other runs stand: for a parent that waits for its children.
pub async fn outcomes(app: &App, ids: &[Uuid]) -> Result<Vec<view::Outcome>> {
    view::outcomes(&app.db, ids).await
}

/// The run's conversation, as far as it may see it.
pub async fn context(app: &App, run: &Claimed) -> Result<Vec<crate::domain::message::Message>> {
    messages::context(&app.db, run.thread_id, run.id).await
}

/// The id of the message that the run was streaming, if the journal has a model call that has not ended.
pub async fn open_message(app: &App, run: &Claimed) -> Result<Option<String>> {
    steps::open_message(&app.db, run.id).await
}

/// The run's wake count, and whether it is to be held at this checkpoint.
///
/// # Errors
/// `RUN_LOST`.
pub async fn holding(app: &App, run: &Claimed) -> Result<(i64, bool)> {
    moves::holding(&app.db, run.id, run.fence).await?.ok_or_else(lost)
}

/// The runs that the database says a session executes.
pub async fn held_by(app: &App, session: Uuid) -> Result<Vec<sweep::Mine>> {
    sweep::still_mine(&app.db, session).await
}

/// Gives back a run that this worker was given without ever learning of it: the answer to its claim was lost.
pub async fn disown(app: &App, run_id: Uuid, fence: i64) -> Result<()> {
    let ready = moves::release(&app.db, run_id, fence, app.clock.now()).await?;
    after::hint(app, ready.as_slice()).await;
    Ok(())
}
