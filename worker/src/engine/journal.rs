//! What this run has done: read once when it is taken up, and written before and after each step.
use std::{collections::HashMap, sync::Arc};

use runmill_shared::{
    App,
    clock::Timestamp,
    domain::{
        approval::NewApproval,
        event::NewEvent,
        message::NewMessage,
        run::{Claimed, RunUsage, Waiting},
        run_input,
        step::{Step, StepKind, StepWrite},
    },
    services::runs::execution::{self, Parked, Writes},
};
use serde_json::Value;

use super::{
    Failure,
    recorder::{Recorder, writes},
};

pub struct Journal {
    pub run: Arc<Claimed>,
    pub recorder: Recorder,
    steps: HashMap<String, Step>,
    next_ordinal: i64,
}

/// The key of a model call. Keys follow from the run alone, so that another worker, or another release, finds them again.
pub fn model_key(iteration: u32) -> String {
    format!("model:{iteration}")
}

/// The key of a summary that is made before an iteration's model call.
pub fn compaction_key(iteration: u32) -> String {
    format!("compact:{iteration}")
}

/// The key of the decision whether a call may be made.
pub fn approval_key(call: &str) -> String {
    format!("approval:{call}")
}

/// The key of a tool call: where it stands in the journaled answer, and what it is asked to do.
pub fn tool_key(iteration: u32, index: usize, tool: &str, arguments: &Value) -> String {
    let hash = run_input::body_hash(&Value::Array(vec![arguments.clone()]));
    format!("tool:{iteration}:{index}:{tool}:{}", &hash[..16])
}

impl Journal {
    pub async fn open(app: &App, run: Arc<Claimed>, recorder: Recorder) -> Result<Self, Failure> {
        // What is executed for the first time has done nothing yet, unless it retries another.
        let is_new = run.fence == 1 && run.retry_of.is_none();
        let steps = if is_new { Vec::new() } else { execution::journal(app, run.id).await? };
        let next_ordinal = steps.iter().map(|s| s.ordinal + 1).max().unwrap_or(0);
        Ok(Self { run, recorder, steps: steps.into_iter().map(|s| (s.key.clone(), s)).collect(), next_ordinal })
    }

    pub fn step(&self, key: &str) -> Option<&Step> {
        self.steps.get(key)
    }

    /// The result of a finished step.
    pub fn finished(&self, key: &str) -> Option<&Value> {
        self.steps.get(key)?.result.as_ref()
    }

    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.values()
    }

    /// A model call that was being streamed when its worker stopped. One that was only asked has no message to be closed.
    pub fn open_model_call(&self) -> Option<&Step> {
        self.steps.values().find(|s| s.kind == StepKind::Model && s.result.is_none() && s.intent["messageId"].is_string())
    }

    /// What the run's own model calls have used, each counted once however often the run was taken up.
    pub fn usage(&self) -> RunUsage {
        let own = self.steps.values().filter(|s| s.kind == StepKind::Model && !s.inherited);
        let used = own.filter_map(|s| serde_json::from_value(s.result.as_ref()?["usage"].clone()).ok());
        used.fold(RunUsage::default(), |mut sum, usage| {
            sum.add(usage);
            sum
        })
    }

    /// The write that starts a step; it counts from now on.
    pub fn starting(&mut self, key: &str, kind: StepKind, name: &str, intent: Value) -> StepWrite {
        let ordinal = self.steps.get(key).map_or(self.next_ordinal, |s| s.ordinal);
        self.next_ordinal = self.next_ordinal.max(ordinal + 1);
        let (key_of, name_of) = (key.to_owned(), name.to_owned());
        let step = Step { key: key_of, ordinal, kind, name: name_of, intent: intent.clone(), result: None, inherited: false };
        self.steps.insert(key.to_owned(), step);
        StepWrite::Start { key: key.to_owned(), ordinal, kind, name: name.to_owned(), intent }
    }

    pub fn finishing(&mut self, key: &str, result: Value) -> StepWrite {
        if let Some(step) = self.steps.get_mut(key) {
            step.result = Some(result.clone());
        }
        StepWrite::Finish { key: key.to_owned(), result }
    }

    pub fn abandoning(&mut self, key: &str) -> StepWrite {
        self.steps.remove(key);
        StepWrite::Abandon { key: key.to_owned() }
    }

    pub fn emit(&self, event: NewEvent) {
        self.recorder.emit(&self.run, event);
    }

    /// As `commit`, with decisions that the run is about to wait for.
    pub async fn commit_asking(
        &self,
        events: Vec<NewEvent>,
        steps: Vec<StepWrite>,
        approvals: Vec<NewApproval>,
    ) -> Result<(), Failure> {
        self.recorder.commit(&self.run, Writes { events, steps, approvals, ..Writes::default() }).await
    }

    /// Lets the run wait without a worker, unless something happened since `wake_seq` was seen.
    pub async fn park(&self, app: &App, wake_seq: i64, waiting: &Waiting) -> Result<Parked, Failure> {
        // What was said is written first: a refused park must not lose it.
        self.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        Ok(execution::park(app, &self.run, wake_seq, waiting, Writes::default()).await?)
    }

    /// Between two steps: lets the run wait as paused when somebody wants it held, at most until `until`. Costs nothing when nobody
    /// does. `true`: it was parked.
    pub async fn checkpoint(&self, app: &App, until: Option<Timestamp>) -> Result<bool, Failure> {
        if !self.recorder.may_be_held(self.run.id) {
            return Ok(false);
        }
        loop {
            let (wake_seq, paused) = execution::holding(app, &self.run).await?;
            // A wake between the look and the park may be the one that resumes it: look again.
            if !paused || self.park(app, wake_seq, &Waiting::Paused { until }).await? == Parked::Yes {
                return Ok(paused);
            }
        }
    }

    pub async fn commit(&self, events: Vec<NewEvent>, steps: Vec<StepWrite>, messages: Vec<NewMessage>) -> Result<(), Failure> {
        self.recorder.commit(&self.run, writes(events, steps, messages)).await
    }
}
