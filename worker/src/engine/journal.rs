//! What this run has done: read once when it is taken up, and written before and after each step.
use std::{collections::HashMap, sync::Arc};

use runmill_shared::{
    App,
    domain::{
        event::NewEvent,
        message::NewMessage,
        run::Claimed,
        run_input,
        step::{Step, StepKind, StepWrite},
    },
    services::runs::execution,
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

/// The key of a tool call: where it stands in the journaled answer, and what it is asked to do.
pub fn tool_key(iteration: u32, index: usize, tool: &str, arguments: &Value) -> String {
    let hash = run_input::body_hash(&Value::Array(vec![arguments.clone()]));
    format!("tool:{iteration}:{index}:{tool}:{}", &hash[..16])
}

impl Journal {
    pub async fn open(app: &App, run: Arc<Claimed>, recorder: Recorder) -> Result<Self, Failure> {
        let steps = execution::journal(app, run.id).await?;
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

    /// A model call that was being streamed when its worker stopped.
    pub fn open_model_call(&self) -> Option<&Step> {
        self.steps.values().find(|s| s.kind == StepKind::Model && s.result.is_none())
    }

    /// The write that starts a step; it counts from now on.
    pub fn starting(&mut self, key: &str, kind: StepKind, name: &str, intent: Value) -> StepWrite {
        let ordinal = self.steps.get(key).map_or(self.next_ordinal, |s| s.ordinal);
        self.next_ordinal = self.next_ordinal.max(ordinal + 1);
        let step = Step { key: key.to_owned(), ordinal, kind, name: name.to_owned(), intent: intent.clone(), result: None };
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

    pub async fn commit(&self, events: Vec<NewEvent>, steps: Vec<StepWrite>, messages: Vec<NewMessage>) -> Result<(), Failure> {
        self.recorder.commit(&self.run, writes(events, steps, messages)).await
    }
}
