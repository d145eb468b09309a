//! What executions say, written together: many runs in one transaction.
use uuid::Uuid;

use super::{
    children::{Next, start_next},
    fenced, lost, source,
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        approval::NewApproval,
        event::NewEvent,
        message::NewMessage,
        run::{Claimed, End, RunState},
        step::StepWrite,
    },
    error::Result,
    services::{
        self,
        runs::{
            after::{self, After},
            ending::{self, Ended},
        },
    },
    store::{
        approvals,
        db::Tx,
        events,
        messages::{self, Added},
        runs::{Fenced, moves},
        steps::{self, Held},
        threads::{self, Advance},
    },
};

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
    /// Work that begins with the end: both are committed, or neither.
    pub next: Option<Next>,
}

impl Writes {
    pub(super) fn numbers(&self) -> Advance {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Advance { events: count(self.events.len()), messages: count(self.messages.len()), ..Advance::default() }
    }
}

/// A run's part of a flush.
pub struct Unit<'a> {
    pub run: &'a Claimed,
    pub writes: Writes,
}

/// A commit whose answer may be lost: one of its events, by which the next try sees whether it happened, and the executions that it
/// was made without.
#[derive(Default)]
pub struct Doubt {
    told: Option<Mark>,
    lost: Vec<Fenced>,
}

struct Mark {
    thread_id: Uuid,
    seq: i64,
    run_id: Uuid,
    fence: i64,
}

/// Writes the events, steps and messages of many runs, and how some of them end, in one transaction. Answers which executions were lost;
/// a run whose part cannot be written fails the whole call, and the caller bisects. One run may come twice: as it was lost and as it was
/// claimed again. The caller tries the same units again with the same `doubt`, so that what was committed without an answer is not
/// written twice; units without events may be written twice without harm: their steps stay as they are.
pub async fn flush(app: &App, units: Vec<Unit<'_>>, doubt: &mut Doubt) -> Result<Vec<Fenced>> {
    let now = app.clock.now();
    let mut units = units;
    units.sort_by_key(|u| u.run.thread_id);
    let mut tx = app.db.begin().await?;
    // Heads by id, then runs by id: the one lock order.
    let take: Vec<_> = units.iter().map(|u| (u.run.thread_id, u.writes.numbers())).collect();
    let heads = threads::advance_many(&mut tx, &take).await?;
    // Under the heads' locks: a commit that is still on its way has them.
    if let Some(Mark { thread_id, seq, run_id, fence }) = doubt.told
        && events::is_stored(&mut tx, thread_id, seq, run_id, fence).await?
    {
        return Ok(doubt.lost.clone());
    }
    let held: Vec<_> = units.iter().map(|u| fenced(u.run)).collect();
    let mine = moves::hold_many(&mut tx, &held).await?;
    if held.iter().any(|h| !mine.contains(h)) {
        // The numbers of a lost run must not be taken: start again without it.
        drop(tx);
        doubt.lost.extend(held.iter().filter(|h| !mine.contains(h)));
        let kept: Vec<_> = units.into_iter().filter(|u| mine.contains(&fenced(u.run))).collect();
        return if kept.is_empty() { Ok(doubt.lost.clone()) } else { Box::pin(flush(app, kept, doubt)).await };
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
    doubt.told = told.map(|(run, seq)| Mark { thread_id: run.thread_id, seq, run_id: run.id, fence: run.fence });
    tx.commit().await?;
    for (run, events) in published {
        after.events(run.thread_id, events);
    }
    after.apply(app);
    for (run, end) in units.iter().filter_map(Unit::ended) {
        metrics::counter!("runmill_runs_ended_total", "kind" => run.kind.as_str(), "state" => end.state.as_str()).increment(1);
    }
    Ok(doubt.lost.clone())
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
    let rows: Vec<_> = units.iter().filter_map(Unit::ended).map(|(run, end)| (fenced(run), end)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    if moves::end(tx, &rows, now).await?.len() != rows.len() {
        return Err(lost());
    }
    for (run, next) in units.iter().filter_map(|u| Some((u.run, u.writes.next.as_ref()?))) {
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

pub(super) fn held_steps<'a>(run: &'a Claimed, writes: &'a Writes) -> impl Iterator<Item = Held<'a>> {
    writes.steps.iter().map(|step| Held { run_id: run.id, fence: run.fence, step })
}

pub(super) fn added_messages<'a>(run: &Claimed, writes: &'a Writes, head: &threads::Head) -> Added<'a> {
    Added { thread_id: run.thread_id, run_id: run.id, messages: &writes.messages, last_seq: head.last_message_seq }
}
