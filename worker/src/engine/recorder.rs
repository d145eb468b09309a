//! One recorder a process: it writes the events, steps and messages of all its runs, many runs in one transaction. It writes at
//! once when it was idle; else it gathers for `events.flush`, and up to `events.max_flush` as more runs stream, so that the
//! database pays for flushes and not for tokens. Neighbouring deltas of one message become one event.
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runmill_shared::{
    App, Error,
    domain::{
        event::NewEvent,
        message::NewMessage,
        run::{Claimed, RunError},
        step::StepWrite,
    },
    services::runs::execution::{self, Doubt, End, Fenced, Unit, Writes},
    tasks,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Failure;
use crate::executions::{Executions, Stop};

/// Runs whose writes share a transaction.
const RUNS: usize = 64;
/// An active stream's share of the time between flushes.
const PER_STREAM: Duration = Duration::from_micros(500);
/// Between tries while the database is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    app: App,
    executions: Executions,
    state: Mutex<State>,
    /// Something is there to be written.
    work: Notify,
    /// A flush has ended.
    flushed: Notify,
}

#[derive(Default)]
struct State {
    pending: HashMap<Uuid, Pending>,
    in_flight: HashSet<Uuid>,
    /// Somebody waits for a flush: do not gather.
    urgent: bool,
}

struct Pending {
    run: Arc<Claimed>,
    /// What is waiting longest goes first: nobody is passed by for ever.
    since: Instant,
    writes: Writes,
    /// What comes with the run's end.
    last: Option<Writes>,
    waiting: Vec<oneshot::Sender<Result<(), Failure>>>,
}

impl Recorder {
    /// Writes until `ended`.
    pub fn start(app: &App, executions: Executions, ended: CancellationToken) -> Self {
        let (work, flushed) = (Notify::new(), Notify::new());
        let recorder = Self(Arc::new(Inner { app: app.clone(), executions, state: Mutex::default(), work, flushed }));
        let writing = recorder.clone().write();
        tasks::spawn("recorder", async move {
            ended.run_until_cancelled(writing).await;
        });
        recorder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody may have asked, since it was looked at last, that the run be held.
    pub fn may_be_held(&self, run_id: Uuid) -> bool {
        self.0.executions.take_look(run_id)
    }

    /// Says something, soon.
    pub fn emit(&self, run: &Arc<Claimed>, event: NewEvent) {
        self.state().pending(run).say(event);
        self.0.work.notify_one();
    }

    /// Writes what the run has said so far together with these; returns once it is committed.
    pub async fn commit(&self, run: &Arc<Claimed>, writes: Writes) -> Result<(), Failure> {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.state();
            state.urgent = true;
            let pending = state.pending(run);
            match writes.end {
                // Apart: a run that is out of time before its end is written fails, without saying that it has succeeded.
                Some(_) => pending.last = Some(writes),
                None => pending.add(writes),
            }
            pending.waiting.push(tell);
        }
        self.0.work.notify_one();
        told.await.unwrap_or(Err(Failure::Lost))
    }

    /// Takes what the run has said and is not written, for a transaction of its own; waits for a flush that has some of it.
    pub async fn take(&self, run_id: Uuid) -> Writes {
        loop {
            let flushed = self.0.flushed.notified();
            tokio::pin!(flushed);
            flushed.as_mut().enable();
            {
                let mut state = self.state();
                if !state.in_flight.contains(&run_id) {
                    return state.pending.remove(&run_id).map(|p| p.writes).unwrap_or_default();
                }
            }
            flushed.await;
        }
    }

    /// Ends the run, with what it has said so far and `add`. Tries until the database answers: an answer that is paid for is not
    /// given up. The caller drops this when the execution has to stop.
    pub async fn end(&self, run: &Arc<Claimed>, end: End, add: Writes) -> Result<(), Failure> {
        self.commit(run, Writes { end: Some(end), ..add }).await
    }

    /// Drops what the run has said and is not written: its execution may not write any more.
    pub fn forget(&self, run: &Claimed) {
        let mut state = self.state();
        if state.pending.get(&run.id).is_some_and(|p| p.run.fence == run.fence) {
            state.pending.remove(&run.id);
        }
    }

    async fn write(self) {
        let mut last = Instant::now();
        loop {
            if self.state().pending.is_empty() {
                self.0.work.notified().await;
                continue;
            }
            self.gather(last).await;
            let batch = self.state().next_batch();
            if batch.is_empty() {
                continue;
            }
            last = Instant::now();
            metrics::histogram!("runmill_flush_runs").record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            self.flush(batch).await;
            self.state().in_flight.clear();
            self.0.flushed.notify_waiters();
        }
    }

    /// Waits until it is time for the next flush, or somebody waits for one.
    async fn gather(&self, last: Instant) {
        let (flush, most) = (self.0.app.config.events.flush, self.0.app.config.events.max_flush);
        loop {
            let (urgent, runs) = {
                let state = self.state();
                (state.urgent, state.pending.len())
            };
            let pause = (PER_STREAM * u32::try_from(runs).unwrap_or(u32::MAX)).clamp(flush, most.max(flush));
            let due = last + pause;
            if urgent || Instant::now() >= due {
                return;
            }
            tokio::time::timeout_at(due, self.0.work.notified()).await.ok();
        }
    }

    async fn flush(&self, batch: Vec<Pending>) {
        match self.attempt(&batch).await {
            Ok(lost) => self.settle(batch, &lost),
            // One of them cannot be written: find it, and do not let the others pay. While the database is away none can be, and what was
            // committed without an answer must not be tried alone, without that doubt.
            Err(e) if batch.len() > 1 && !is_away(&e) => {
                for one in batch {
                    Box::pin(self.flush(vec![one])).await;
                }
            }
            Err(e) => batch.into_iter().for_each(|one| self.refuse(one, &e)),
        }
    }

    /// Tries until the database answers, or nothing in the batch is executed here any more.
    async fn attempt(&self, batch: &[Pending]) -> Result<Vec<Fenced>, Error> {
        let mut pause = FIRST_PAUSE;
        let mut doubt = Doubt::default();
        loop {
            let units = batch.iter().map(|p| Unit { run: &p.run, writes: p.writes.clone() }).collect();
            match execution::flush(&self.0.app, units, &mut doubt).await {
                Err(e) if is_away(&e) && batch.iter().any(|p| self.is_executed(&p.run)) => {
                    tracing::warn!(error = %e, "what runs say is kept until the database answers");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn is_executed(&self, run: &Claimed) -> bool {
        self.0.executions.is_executed(run.id, run.fence)
    }

    fn settle(&self, batch: Vec<Pending>, lost: &[Fenced]) {
        for one in batch {
            let is_lost = lost.contains(&Fenced { id: one.run.id, fence: one.run.fence });
            if is_lost {
                self.0.executions.stop(one.run.id, one.run.fence, Stop::Ended);
            }
            for waiting in one.waiting {
                waiting.send(if is_lost { Err(Failure::Lost) } else { Ok(()) }).ok();
            }
        }
    }

    fn refuse(&self, one: Pending, e: &Error) {
        tracing::error!(run = %one.run.id, error = %e, "what a run says cannot be written");
        let error = unwritable();
        self.0.executions.stop(one.run.id, one.run.fence, Stop::Unwritable(error.clone()));
        for waiting in one.waiting {
            waiting.send(Err(Failure::Run { error: error.clone(), retry_after: None })).ok();
        }
    }
}

impl State {
    fn pending(&mut self, run: &Arc<Claimed>) -> &mut Pending {
        let pending = self.pending.entry(run.id).or_insert_with(|| Pending::of(run));
        if pending.run.fence != run.fence {
            // Left behind by an earlier execution of the same run here.
            *pending = Pending::of(run);
        }
        pending
    }

    fn next_batch(&mut self) -> Vec<Pending> {
        let mut ids: Vec<_> = self.pending.keys().copied().collect();
        // Those that somebody waits for first.
        ids.sort_by_key(|id| self.pending.get(id).map(|p| (p.waiting.is_empty(), p.since)));
        let batch: Vec<_> = ids.into_iter().take(RUNS).filter_map(|id| self.pending.remove(&id)).map(Pending::whole).collect();
        self.in_flight = batch.iter().map(|p| p.run.id).collect();
        self.urgent = self.pending.values().any(|p| !p.waiting.is_empty());
        batch
    }
}

impl Pending {
    fn of(run: &Arc<Claimed>) -> Self {
        Self { run: run.clone(), since: Instant::now(), writes: Writes::default(), last: None, waiting: Vec::new() }
    }

    fn add(&mut self, writes: Writes) {
        writes.events.into_iter().for_each(|e| self.say(e));
        self.writes.steps.extend(writes.steps);
        self.writes.messages.extend(writes.messages);
        self.writes.approvals.extend(writes.approvals);
        self.writes.end = writes.end;
        self.writes.next = writes.next;
    }

    fn whole(mut self) -> Self {
        if let Some(last) = self.last.take() {
            self.add(last);
        }
        self
    }

    fn say(&mut self, event: NewEvent) {
        match self.writes.events.last_mut() {
            Some(last) if last.joins(&event) => last.join(&event),
            _ => self.writes.events.push(event),
        }
    }
}

/// The database does not answer; whether it has committed is unknown.
fn is_away(e: &Error) -> bool {
    e.code == "DATABASE_UNAVAILABLE"
}

fn unwritable() -> RunError {
    RunError::new("UNWRITABLE", "what the run produced could not be stored", false)
}

/// Shorthand for what goes into one commit.
pub fn writes(events: Vec<NewEvent>, steps: Vec<StepWrite>, messages: Vec<NewMessage>) -> Writes {
    Writes { events, steps, messages, ..Writes::default() }
}

#[cfg(test)]
mod tests {
    use runmill_shared::{
        clock::Timestamp,
        config::Config,
        domain::{
            Lane, new_id,
            run::{RetryPolicy, RunKind},
        },
    };
    use serde_json::Value;

    use super::*;

    fn claimed(config: &Config) -> Arc<Claimed> {
        let id = new_id();
        Arc::new(Claimed {
            id,
            owner: "local".into(),
            thread_id: new_id(),
            thread: id.to_string(),
            external_id: id.to_string(),
            kind: RunKind::Agent,
            lane: Lane::Runs,
            fence: 1,
            attempt: 0,
            wake_seq: 0,
            run_deadline: Timestamp(0),
            policy: RetryPolicy::of(&config.runs),
            parent_run_id: None,
            root_run_id: id,
            retry_of: None,
            watcher: None,
            paused: false,
            agent_id: None,
            model: None,
            input: Value::Null,
            trace: None,
            ready_at: Timestamp(0),
        })
    }

    #[test]
    fn more_runs_than_a_flush_takes_have_their_turns() {
        let config = Config::defaults().unwrap();
        let (mut state, runs) = (State::default(), (0..3 * RUNS).map(|_| claimed(&config)).collect::<Vec<_>>());
        let mut turns: HashMap<Uuid, usize> = HashMap::new();
        for _ in 0..6 {
            // All stream on.
            for run in &runs {
                state.pending(run).say(NewEvent::new("text.delta", serde_json::json!({ "delta": "x" })));
            }
            state.next_batch().iter().for_each(|one| *turns.entry(one.run.id).or_default() += 1);
        }
        assert!(runs.iter().all(|run| turns.get(&run.id) == Some(&2)), "{:?}", turns.values());
    }
}
