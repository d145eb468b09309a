//! Our log as AG-UI 1.0 events, in an order that the stock client's verifier accepts.
//!
//! Runs of a thread follow each other, so that the stream is RUN_STARTED … RUN_FINISHED or RUN_ERROR, once per run. Where one
//! of our events becomes several frames only the last carries the `id:`; an event that says nothing to AG-UI makes none.
#[cfg(test)]
mod generator;
mod run;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verifier;
mod wire;

use bytes::Bytes;
use runmill_shared::{
    Result,
    clock::Timestamp,
    domain::event::{Event, kind},
};
use serde_json::{Value, json};
use uuid::Uuid;

use self::{
    run::OpenRun,
    wire::{AguiEvent, Frames},
};

/// What waits for a run to carry it; the oldest goes when more come.
const MAX_HELD: usize = 16;

/// One per stream. It remembers what is open, so that nothing is opened twice and nothing is left open at a run's end.
pub struct AguiEncoder {
    thread: String,
    only: Option<Uuid>,
    run: Option<OpenRun>,
    ended: Option<Uuid>,
    /// Events between runs: AG-UI has no place for them but inside the next one.
    held: Vec<(String, Value)>,
    /// What is open was opened on an earlier stream, and this one has not opened it yet.
    reopen: bool,
    out: Frames,
}

impl AguiEncoder {
    /// `thread` is the client's name of the thread.
    pub fn new(thread: impl Into<String>) -> Self {
        Self {
            thread: thread.into(),
            only: None,
            run: None,
            ended: None,
            held: Vec::new(),
            reopen: false,
            out: Frames::default(),
        }
    }

    /// Leaves out the thread's other runs: the answer to a `POST /agui` tells of the run that it started.
    #[must_use]
    pub fn only(mut self, run_id: Uuid) -> Self {
        self.only = Some(run_id);
        self
    }

    /// For a stream that resumes by id: takes in what the client has had, in order, and says nothing. It needs the events
    /// from the first of the run at the cursor up to the cursor; it may be called once a page, and given more than that.
    /// The first frames after it open again what was open.
    pub fn skip(&mut self, prior: &[Event]) -> Result<()> {
        self.out.mute(true);
        prior.iter().try_for_each(|event| self.step(event))?;
        self.out.mute(false);
        self.reopen = self.run.is_some();
        Ok(())
    }

    /// The event's frames; empty when it has none.
    pub fn encode(&mut self, event: &Event) -> Result<Bytes> {
        self.out.at(event.at);
        let mark = self.open_again()?;
        self.step(event)?;
        Ok(self.close(mark, event.seq))
    }

    /// Says that the events `from..=to` are past retention. What was open may have ended in there: it is closed.
    pub fn gap(&mut self, from: i64, to: i64, at: Timestamp) -> Result<Bytes> {
        self.out.at(at);
        let mark = self.open_again()?;
        let value = json!({ "from": from, "to": to });
        match &mut self.run {
            Some(run) => {
                run.lose_sight(&mut self.out)?;
                self.out.push(&AguiEvent::Custom { name: kind::STREAM_GAP, value: &value })?;
            }
            None => self.hold(kind::STREAM_GAP, value),
        }
        Ok(self.close(mark, to))
    }

    /// Writes what re-opens, and answers how long it is.
    fn open_again(&mut self) -> Result<usize> {
        if let Some(run) = self.run.as_ref().filter(|_| self.reopen) {
            self.out.push(&run.started(&self.thread))?;
            run.open_again(&mut self.out)?;
        }
        Ok(self.out.len())
    }

    /// The frames, unless there is nothing beyond the `mark`: then what re-opens waits for the next.
    fn close(&mut self, mark: usize, id: i64) -> Bytes {
        if self.out.len() == mark {
            self.out.clear();
            return Bytes::new();
        }
        self.reopen = false;
        self.out.finish(id)
    }

    fn step(&mut self, event: &Event) -> Result<()> {
        if event.kind == kind::RUN_QUEUED || self.only.is_some_and(|only| only != event.run_id) {
            return Ok(());
        }
        if let Some(run) = self.run.as_ref().filter(|run| run.id != event.run_id) {
            // A run that waits for its turn can end, too: that is news inside the active one. But one that starts, or
            // tells anything after a gap, says that the active one has ended where nobody can see it.
            if event.kind != kind::RUN_STARTED && !run.out_of_sight {
                return self.out.push(&AguiEvent::Custom { name: &event.kind, value: &with_run(event) });
            }
            self.out.push(&AguiEvent::RunError { message: "the end of this run is past retention", code: "gap" })?;
            self.ended = Some(run.id);
            self.run = None;
        }
        let mut run = match self.run.take() {
            Some(run) => run,
            None if self.ended == Some(event.run_id) || event.kind == kind::MESSAGES_DROPPED => {
                self.hold(&event.kind, with_run(event));
                return Ok(());
            }
            None => {
                let run = self.start(event)?;
                if event.kind == kind::RUN_STARTED {
                    self.run = Some(run);
                    return Ok(());
                }
                run
            }
        };
        run.tell(event, &self.thread, &mut self.out)?;
        if event.is_terminal() {
            self.ended = Some(run.id);
        } else {
            self.run = Some(run);
        }
        Ok(())
    }

    fn start(&mut self, event: &Event) -> Result<OpenRun> {
        let run = OpenRun::new(event);
        self.out.push(&run.started(&self.thread))?;
        for (name, value) in self.held.drain(..) {
            self.out.push(&AguiEvent::Custom { name: &name, value: &value })?;
        }
        Ok(run)
    }

    fn hold(&mut self, name: &str, value: Value) {
        if self.held.len() == MAX_HELD {
            self.held.remove(0);
        }
        self.held.push((name.to_owned(), value));
    }
}

/// The event's data, and whose it is.
fn with_run(event: &Event) -> Value {
    let mut value = event.data.clone();
    if let Value::Object(fields) = &mut value {
        fields.insert("runId".into(), json!(event.run));
    }
    value
}
