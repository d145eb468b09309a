//! Taking work in: one transaction, one answer. Idempotency first, then multitask, then admission.
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::StreamExt;
use uuid::Uuid;

use super::{
    after::{self, After, Source},
    ending::{self, Outside},
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        Lane,
        caller::Owner,
        event::NewEvent,
        message::{MessageRole, NewMessage},
        new_id,
        run::{Multitask, Priority, RetryPolicy, RunKind, RunState, Watcher},
    },
    error::{Error, ErrorKind, Result},
    group::Together,
    store::{
        db::{Db, On, Tx},
        messages::{self, Added},
        runs::{
            Ready,
            at_once::{self, Line, Placed, Plain},
            moves, sweep, view,
        },
        steps,
        threads::{self, Advance, Head},
    },
};

/// Work that somebody asks for.
pub struct Work {
    pub kind: RunKind,
    /// The client's name of the thread.
    pub thread: String,
    /// Whether the thread is a conversation that its owner sees among theirs.
    pub listed: bool,
    /// The client's name of the run.
    pub run: String,
    /// JSON, as its kind reads it.
    pub input: String,
    /// What makes two requests the same.
    pub hash: String,
    pub idempotency_key: Option<String>,
    pub messages: Vec<NewMessage>,
    pub priority: Priority,
    pub run_at: Option<Timestamp>,
    pub multitask: Multitask,
    pub agent_id: Option<String>,
    pub model: Option<String>,
    pub retry_of: Option<Uuid>,
    pub watcher: Option<Watcher>,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

impl Work {
    /// Work that is no turn of a conversation: in a thread of its own, which nobody sees among theirs. `name` names both.
    pub fn alone(kind: RunKind, name: String, input: String) -> Self {
        Self {
            kind,
            thread: name.clone(),
            listed: false,
            hash: name.clone(),
            run: name,
            input,
            idempotency_key: None,
            messages: Vec::new(),
            priority: Priority::Normal,
            run_at: None,
            multitask: Multitask::Enqueue,
            agent_id: None,
            model: None,
            retry_of: None,
            watcher: None,
            trace: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub id: Uuid,
    pub thread: String,
    pub run: String,
    pub created_at: Timestamp,
    /// An earlier request had been accepted already.
    pub replayed: bool,
}

impl From<view::Earlier> for Accepted {
    fn from(e: view::Earlier) -> Self {
        Self { id: e.id, thread: e.thread, run: e.external_id, created_at: e.created_at, replayed: true }
    }
}

/// Accepts `work` for `owner`.
///
/// # Errors
/// `Conflict` when the run's name or key was used with another body, or the thread is busy and the work does not want to wait;
/// `Limited` when the lane is full.
pub async fn accept(app: &App, owner: &Owner, work: &Work) -> Result<Accepted> {
    let (began, mut tries) = (Instant::now(), 0);
    loop {
        tries += 1;
        match try_accept(app, owner, work).await {
            // Another request with the same name or key was faster: it is there to be found now.
            Err(e) if e.code == "DUPLICATE" && tries < 3 => {}
            outcome => {
                metrics::histogram!("runmill_accept_seconds", "kind" => work.kind.as_str()).record(began.elapsed());
                return outcome;
            }
        }
    }
}

async fn try_accept(app: &App, owner: &Owner, work: &Work) -> Result<Accepted> {
    if is_plain(work)
        && let Some(accepted) = accept_at_once(app, owner, work).await?
    {
        return Ok(accepted);
    }
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    // Its lock first: of two equal requests at once, the second must find the first and not meet it in the thread.
    let thread_id = threads::ensure(&mut tx, new_id(), owner, &work.thread, work.listed, now).await?;
    if let Some(earlier) = find_earlier(app, &mut tx, owner, work, now).await? {
        return Ok(earlier);
    }
    let mut after = After::default();
    make_room(&mut tx, &mut after, thread_id, work, now).await?;
    let (id, is_head) = place(app, &mut tx, &mut after, owner, work, thread_id, now).await?;
    tx.commit().await?;
    Ok(accepted(app, work, after, id, is_head, now))
}

/// Accepts work in a new thread in the caller's transaction, so that what it is for and the work itself are there together. Its name
/// must be new.
///
/// # Errors
/// `Limited` when the lane is full.
pub async fn within(app: &App, tx: &mut Tx, after: &mut After, owner: &Owner, work: &Work, now: Timestamp) -> Result<Accepted> {
    let thread_id = threads::ensure(tx, new_id(), owner, &work.thread, work.listed, now).await?;
    within_held(app, tx, after, owner, work, thread_id, now).await
}

/// As `within`, in a thread whose head the caller holds. A thread's row is locked before its head, so it must not be touched any more.
///
/// # Errors
/// `Limited` when the lane is full.
pub async fn within_held(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    owner: &Owner,
    work: &Work,
    thread_id: Uuid,
    now: Timestamp,
) -> Result<Accepted> {
    let (id, is_head) = place(app, tx, after, owner, work, thread_id, now).await?;
    if is_head {
        after.ready([Ready { id, lane: work.kind.lane(), score: Priority::score(work.priority.as_i64(), now) }]);
    }
    Ok(Accepted { id, thread: work.thread.clone(), run: work.run.clone(), created_at: now, replayed: false })
}

/// In the caller's transaction.
///
/// # Errors
/// `Limited` when the lane is full.
pub async fn check_room(app: &App, tx: &mut Tx, lane: Lane) -> Result<()> {
    app.admission.check(app, tx, lane).await
}

/// Gives the work its place in its thread. Answers its id, and whether it can be executed at once.
async fn place(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    owner: &Owner,
    work: &Work,
    thread_id: Uuid,
    now: Timestamp,
) -> Result<(Uuid, bool)> {
    app.admission.check(app, tx, work.kind.lane()).await?;
    let id = new_id();
    let head = take_numbers(tx, thread_id, id, work).await?;
    let is_head = work.run_at.is_none() && head.run_id == Some(id);
    moves::insert(tx, new_run(app, owner, work, id, thread_id, &head, now)?).await?;
    if let Some(key) = &work.idempotency_key {
        let kept = view::keep_key(tx, owner, key, &work.hash, id, now, keys_from(app, now)).await?;
        if !kept {
            return Err(Error::conflict("DUPLICATE", "another request with this key is being accepted"));
        }
    }
    if let Some(retried) = work.retry_of {
        steps::inherit(tx, id, retried).await?;
        messages::take_over(tx, id, retried).await?;
    }
    let news = news(work, &head);
    let added = Added { thread_id, run_id: id, messages: &news, last_seq: head.last_message_seq };
    messages::insert(tx, &[added], now).await?;
    let source = Source { thread_id, run_id: id, run: &work.run, fence: 0 };
    after.append_numbered(tx, source, vec![NewEvent::queued()], head.last_seq, now).await?;
    Ok((id, is_head))
}

/// What follows the commit.
fn accepted(app: &App, work: &Work, mut after: After, id: Uuid, is_head: bool, now: Timestamp) -> Accepted {
    let lane = work.kind.lane();
    if is_head {
        after.ready([Ready { id, lane, score: Priority::score(work.priority.as_i64(), now) }]);
    }
    after.apply(app);
    app.admission.accepted(lane);
    metrics::counter!("runmill_runs_accepted_total", "kind" => work.kind.as_str()).increment(1);
    Accepted { id, thread: work.thread.clone(), run: work.run.clone(), created_at: now, replayed: false }
}

/// Asks nothing of its thread but a place at its end, as most do.
fn is_plain(work: &Work) -> bool {
    work.multitask == Multitask::Enqueue
        && work.run_at.is_none()
        && work.idempotency_key.is_none()
        && work.retry_of.is_none()
        && work.messages.iter().all(|m| m.role != MessageRole::Assistant)
}

/// The same in one go. `None`, with nothing written: there is a run of that name, or no room; idempotency comes first then.
async fn accept_at_once(app: &App, owner: &Owner, work: &Work) -> Result<Option<Accepted>> {
    let (now, id) = (app.clock.now(), new_id());
    if !app.admission.has_room(app, work.kind.lane()).await? {
        return Ok(None);
    }
    let unplaced = Head { last_seq: 0, first_seq: 0, last_message_seq: 0, last_order: 0, run_id: None };
    let queued = NewEvent::queued();
    let plain = Plain {
        run: new_run(app, owner, work, id, new_id(), &unplaced, now)?,
        thread: &work.thread,
        listed: work.listed,
        messages: &work.messages,
        event: (queued.kind, serde_json::to_string(&queued.data)?),
    };
    let placed = match &app.accepts {
        Some(together) => together.ask(Line::new(&plain)?).await,
        None => at_once::accept(&app.db, plain).await,
    };
    let Placed { thread_id, head } = match placed {
        Err(e) if e.code == "DUPLICATE" => return Ok(None),
        outcome => outcome?,
    };
    let source = Source { thread_id, run_id: id, run: &work.run, fence: 0 };
    let mut after = After::default();
    after.events(thread_id, after::number(source, vec![queued], head.last_seq, now));
    Ok(Some(accepted(app, work, after, id, head.run_id == Some(id), now)))
}

fn keys_from(app: &App, now: Timestamp) -> Timestamp {
    now.before(app.config.runs.idempotency_retention)
}

/// The run that the same request started before.
async fn find_earlier(app: &App, tx: &mut Tx, owner: &Owner, work: &Work, now: Timestamp) -> Result<Option<Accepted>> {
    let mut earlier = None;
    if let Some(key) = &work.idempotency_key {
        earlier = view::by_key(&mut *tx, owner, key, keys_from(app, now)).await?;
    }
    if earlier.is_none() {
        earlier = view::by_external_id(&mut *tx, owner, &work.run).await?;
    }
    match earlier {
        Some(e) if e.input_hash == work.hash => Ok(Some(e.into())),
        Some(_) => Err(Error::conflict("RUN_EXISTS", "this runId or idempotency key was used for another request")),
        None => Ok(None),
    }
}

/// What the work wants to happen to the thread's active run.
async fn make_room(tx: &mut Tx, after: &mut After, thread_id: Uuid, work: &Work, now: Timestamp) -> Result<()> {
    if work.multitask == Multitask::Enqueue {
        return Ok(());
    }
    let head = threads::advance(tx, thread_id, Advance::default()).await?;
    let Some(active) = head.run_id else { return Ok(()) };
    if work.multitask == Multitask::Reject {
        return Err(Error::conflict("THREAD_BUSY", "another run of this thread has not ended"));
    }
    let rollback = work.multitask == Multitask::Rollback;
    let reason = if rollback { "rolled back by a newer run" } else { "interrupted by a newer run" };
    let how = Outside { state: RunState::Cancelled, reason, error: None, drop_messages: rollback };
    ending::from_outside(tx, after, active, &how, now).await?;
    Ok(())
}

async fn take_numbers(tx: &mut Tx, thread_id: Uuid, id: Uuid, work: &Work) -> Result<Head> {
    let due = work.run_at.is_none();
    let take = Advance {
        events: 1,
        messages: i64::try_from(work.messages.len()).unwrap_or(i64::MAX),
        orders: i64::from(due),
        candidate: due.then_some(id),
    };
    threads::advance(tx, thread_id, take).await
}

/// The messages that the thread takes from a client. An empty thread takes all: a conversation may have begun elsewhere. One that
/// has a history keeps its own: an answer that only the client knows is one that was discarded or dropped here.
fn news<'a>(work: &'a Work, head: &Head) -> Cow<'a, [NewMessage]> {
    let is_answer = |m: &NewMessage| m.role == MessageRole::Assistant;
    let had_none = usize::try_from(head.last_message_seq).is_ok_and(|last| last <= work.messages.len());
    if had_none || !work.messages.iter().any(is_answer) {
        return Cow::Borrowed(&work.messages);
    }
    Cow::Owned(work.messages.iter().filter(|m| !is_answer(m)).cloned().collect())
}

fn new_run(
    app: &App,
    owner: &Owner,
    work: &Work,
    id: Uuid,
    thread_id: Uuid,
    head: &Head,
    now: Timestamp,
) -> Result<moves::NewRun> {
    let runs = &app.config.runs;
    let due = work.run_at.is_none();
    Ok(moves::NewRun {
        id,
        owner: owner.as_str().to_owned(),
        thread_id,
        external_id: work.run.clone(),
        kind: work.kind,
        lane: work.kind.lane(),
        ready: due && head.run_id == Some(id),
        thread_order: due.then_some(head.last_order),
        priority: work.priority.as_i64(),
        dispatch_score: Priority::score(work.priority.as_i64(), now),
        due_at: work.run_at,
        queue_deadline: work.run_at.unwrap_or(now).after(runs.queue_timeout),
        run_left: i64::try_from(runs.run_timeout.as_micros()).map_err(Error::internal)?,
        policy: RetryPolicy::of(runs),
        parent_run_id: None,
        root_run_id: None,
        retry_of: work.retry_of,
        watcher: work.watcher,
        agent_id: work.agent_id.clone(),
        model: work.model.clone(),
        input: work.input.clone(),
        input_hash: work.hash.clone(),
        trace: work.trace.clone(),
        created_at: now,
    })
}

/// Accepts on Postgres that come while others are written share a statement, a round trip and a commit.
pub struct Accepts(pub Db);

#[async_trait]
impl Together for Accepts {
    type Item = Line;
    type Answer = Placed;
    type Key = (String, String);

    fn key(line: &Line) -> Option<Self::Key> {
        Some(line.thread.clone())
    }

    async fn ask(&self, lines: &[Line]) -> Vec<Result<Placed>> {
        let missing = || Error::internal("an accept answered nothing");
        match at_once::accept_all(&self.0, lines).await {
            Ok(mut placed) => lines.iter().map(|line| placed.remove(&line.run).ok_or_else(missing)).collect(),
            Err(e) if lines.len() == 1 || e.kind == ErrorKind::Unavailable => e.for_each(lines.len()),
            // One of them cannot be written: the others must not suffer for it.
            Err(_) => {
                let alone = |line| async move {
                    let mut placed = at_once::accept_all(&self.0, std::slice::from_ref(line)).await?;
                    placed.remove(&line.run).ok_or_else(missing)
                };
                futures::stream::iter(lines).then(alone).collect().await
            }
        }
    }
}

/// Whether a lane has room. The count is sampled, at most every 200 ms, and what this process accepted since is added: an accept
/// costs no count of its own.
#[derive(Clone, Default)]
pub struct Admission(Arc<Mutex<HashMap<Lane, Sample>>>);

#[derive(Clone, Copy)]
struct Sample {
    queued: u64,
    at: Timestamp,
    /// An accept is on its way that counts anew.
    counting: bool,
}

const FRESH: Duration = Duration::from_millis(200);
/// While one counts anew, the others go by the last count, but not for longer than this.
const STALE: Duration = Duration::from_secs(2);

impl Admission {
    /// By the sample. Who finds none, or is the first to find that it is no longer fresh, counts.
    async fn has_room(&self, app: &App, lane: Lane) -> Result<bool> {
        let now = app.clock.now();
        if let Some(sample) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&lane) {
            let age = now.since(sample.at);
            if age < FRESH || (age < STALE && sample.counting) {
                return Ok(sample.queued < app.config.runs.max_queued);
            }
            sample.counting = true;
        }
        Ok(self.count(app, &app.db, lane).await? < app.config.runs.max_queued)
    }

    /// In the caller's transaction: a second connection, asked for while the first is held, is one that all wait for.
    async fn check(&self, app: &App, tx: &mut Tx, lane: Lane) -> Result<()> {
        let (now, most) = (app.clock.now(), app.config.runs.max_queued);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&lane).copied();
        let queued = match known {
            Some(sample) if now.since(sample.at) < FRESH && sample.queued < most => sample.queued,
            _ => self.count(app, tx, lane).await?,
        };
        if queued >= most {
            return Err(Error::limited("QUEUE_FULL", "the queue is full; try again later", app.config.runs.retry_after));
        }
        Ok(())
    }

    async fn count(&self, app: &App, on: impl Into<On<'_>>, lane: Lane) -> Result<u64> {
        let (at, limit) = (app.clock.now(), i64::try_from(app.config.runs.max_queued).unwrap_or(i64::MAX));
        let queued = u64::try_from(sweep::depth(on, lane, limit).await?).unwrap_or(0);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, Sample { queued, at, counting: false });
        Ok(queued)
    }

    fn accepted(&self, lane: Lane) {
        if let Some(sample) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&lane) {
            sample.queued += 1;
        }
    }
}
