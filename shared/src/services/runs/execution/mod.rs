//! What a worker may do with a run that it holds. Every write shows the fence of the claim; `Lost` means that the run was
//! taken away (cancelled, timed out, or given to another worker), and that nothing was written.
mod children;
mod flush;

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::after::{self, After, Source};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        event::{NewEvent, kind},
        run::{Claimed, RunError, Waiting},
        step::Step,
    },
    error::{Error, Result},
    group::Together,
    services,
    store::{
        db::Tx,
        messages,
        runs::{moves, sweep, view},
        steps, summaries, threads,
    },
};

pub(crate) use self::children::{adopt, journal_within};
use self::flush::{added_messages, held_steps};
pub use self::{
    children::{Child, Next, start_child},
    flush::{Doubt, Unit, Writes, flush},
};
pub use crate::{
    domain::run::End,
    store::runs::{Fenced, moves::Claim},
};

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
