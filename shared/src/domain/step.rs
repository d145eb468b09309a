//! The journal: what a run has done, so that a worker that takes it over does none of it twice.
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    Model,
    Tool,
    Timer,
    Child,
    Approval,
    /// What the run has decided, and must not decide again.
    Decision,
}

impl StepKind {
    pub const ALL: [Self; 6] = [Self::Model, Self::Tool, Self::Timer, Self::Child, Self::Approval, Self::Decision];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Timer => "timer",
            Self::Child => "child",
            Self::Approval => "approval",
            Self::Decision => "decision",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// A row of the journal. Its key follows from the run alone (`model:2`, `tool:2:0:now:…`), never from a position in code.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub key: String,
    /// The order in which steps were started.
    pub ordinal: i64,
    pub kind: StepKind,
    pub name: String,
    /// What was about to happen, written before it did: for a model call the id of the message it streams.
    pub intent: Value,
    /// `None`: started, and its outcome is unknown.
    pub result: Option<Value>,
    /// It was finished by the run that this one tries again: what it cost is in that run's account.
    pub inherited: bool,
}

/// A change of the journal, committed together with the events that tell of it.
#[derive(Clone, Debug, PartialEq)]
pub enum StepWrite {
    Start {
        key: String,
        ordinal: i64,
        kind: StepKind,
        name: String,
        intent: Value,
    },
    Finish {
        key: String,
        result: Value,
    },
    /// Takes a step back that was started and came to nothing, so that the next try starts it anew.
    Abandon {
        key: String,
    },
}
