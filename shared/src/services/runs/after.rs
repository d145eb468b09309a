//! What follows a commit: hints, live events, stops and notices. All of it may be lost; the reconciler and the readers find it in
//! the database.
use uuid::Uuid;

use super::sweep;
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        Lane,
        event::{Event, NewEvent},
    },
    error::Result,
    events::live::Order,
    queue::Hint,
    store::{
        db::Tx,
        events::{self, Append},
        outbox::{self, Notice, NoticeKind},
        runs::Ready,
        threads::{self, Advance},
    },
    tasks,
};

/// Gathered in a transaction, done after its commit.
#[derive(Default)]
pub struct After {
    events: Vec<(Uuid, Vec<Event>)>,
    ready: Vec<Ready>,
    notices: Vec<Notice>,
    /// Runs that ended while a worker or the queue may still have them.
    stopped: Vec<(Lane, Uuid)>,
    /// Runs that a worker has to look at between two steps.
    marked: Vec<Uuid>,
}

/// Whose event it is.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub thread_id: Uuid,
    pub run_id: Uuid,
    /// The client's name of the run.
    pub run: &'a str,
    pub fence: i64,
}

impl After {
    pub fn ready(&mut self, ready: impl IntoIterator<Item = Ready>) {
        self.ready.extend(ready);
    }

    /// Sends notices, and remembers to apply them.
    pub async fn send(&mut self, tx: &mut Tx, notices: Vec<Notice>, now: Timestamp) -> Result<()> {
        outbox::send(tx, &notices, now).await?;
        self.notices.extend(notices);
        Ok(())
    }

    /// As `send`: the same to each of these runs.
    pub async fn tell(
        &mut self,
        tx: &mut Tx,
        runs: impl IntoIterator<Item = Uuid>,
        kind: NoticeKind,
        reason: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.send(tx, runs.into_iter().map(|run| Notice::new(run, kind, reason)).collect(), now).await
    }

    pub fn stopped(&mut self, lane: Lane, run_id: Uuid) {
        self.stopped.push((lane, run_id));
    }

    pub fn marked(&mut self, run_id: Uuid) {
        self.marked.push(run_id);
    }

    pub fn events(&mut self, thread_id: Uuid, events: Vec<Event>) {
        self.events.push((thread_id, events));
    }

    /// Appends events to the log, under the head's lock, and remembers to tell of them.
    pub async fn append(&mut self, tx: &mut Tx, source: Source<'_>, new: Vec<NewEvent>, now: Timestamp) -> Result<()> {
        let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
        let head = threads::advance(tx, source.thread_id, Advance { events: count, ..Advance::default() }).await?;
        self.append_numbered(tx, source, new, head.last_seq, now).await
    }

    /// As `append`, with numbers that were taken before: the last is `last_seq`.
    pub async fn append_numbered(
        &mut self,
        tx: &mut Tx,
        source: Source<'_>,
        new: Vec<NewEvent>,
        last_seq: i64,
        now: Timestamp,
    ) -> Result<()> {
        let events = number(source, new, last_seq, now);
        events::append(tx, &rows(source, &events)?).await?;
        self.events(source.thread_id, events);
        Ok(())
    }

    /// Returns at once; what needs another process is done in the background.
    pub fn apply(self, app: &App) {
        for (thread_id, events) in self.events {
            app.live.publish(thread_id, events);
        }
        for (_, run_id) in &self.stopped {
            app.live.order(Order::Stop(*run_id));
        }
        for run_id in self.marked {
            app.live.order(Order::Look(run_id));
        }
        if self.ready.is_empty() && self.notices.is_empty() && self.stopped.is_empty() {
            return;
        }
        let app = app.clone();
        let (ready, notices, stopped) = (self.ready, self.notices, self.stopped);
        tasks::spawn("after a commit", async move {
            hint(&app, &ready).await;
            for notice in notices {
                if let Err(e) = sweep::apply_notice(&app, &notice).await {
                    tracing::warn!(error = %e, "a notice is left to the reconciler");
                }
            }
            // Last, because it only tidies up, and each waits for its time-out while Redis is away.
            for (lane, run_id) in stopped {
                app.queue.remove(lane, run_id).await.ok();
            }
        });
    }
}

/// Numbers events so that the last is `last_seq`.
pub fn number(source: Source<'_>, new: Vec<NewEvent>, last_seq: i64, now: Timestamp) -> Vec<Event> {
    let first = last_seq + 1 - i64::try_from(new.len()).unwrap_or(0);
    let numbered = new.into_iter().zip(first..).map(|(event, seq)| Event {
        seq,
        run_id: source.run_id,
        run: source.run.to_owned(),
        kind: event.kind.to_owned(),
        data: event.data,
        at: now,
    });
    numbered.collect()
}

pub fn rows<'a>(source: Source<'_>, events: &'a [Event]) -> Result<Vec<Append<'a>>> {
    let row = |e: &'a Event| {
        Ok(Append {
            thread_id: source.thread_id,
            seq: e.seq,
            run_id: source.run_id,
            fence: source.fence,
            kind: &e.kind,
            data: serde_json::to_string(&e.data)?,
            created_at: e.at.0,
        })
    };
    events.iter().map(row).collect()
}

/// Pushes hints, by lane. A failure is no loss: the rows are ready, and the reconciler pushes them again.
pub async fn hint(app: &App, ready: &[Ready]) {
    for lane in Lane::ALL {
        let hints: Vec<_> = ready.iter().filter(|r| r.lane == lane).map(|r| Hint { run_id: r.id, score: r.score }).collect();
        if hints.is_empty() {
            continue;
        }
        if let Err(e) = app.queue.push(lane, &hints).await {
            tracing::debug!(error = %e, lane = lane.as_str(), "hints were not pushed; workers find the rows");
        }
    }
}
