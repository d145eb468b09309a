//! The agent loop. `recorder` writes what runs say and do, `journal` remembers what a run has done, `context` assembles what the
//! model sees, `conversation` is that, and `compaction` what happens when it is too long, `turn` is one model call, `calls` are the
//! tools it asked for, `waiting` and `approval` those that wait, `budget` and `format` what a run may use and has to answer, `agent`
//! is the loop itself; `tool_call` is a call without an agent, `team` several agents on one message, `planning` how a goal gets its tasks.
pub mod agent;
mod approval;
mod budget;
mod calls;
mod compaction;
mod context;
mod conversation;
mod format;
mod journal;
pub mod planning;
mod recorder;
pub mod team;
pub mod tool_call;
mod turn;
mod waiting;

pub use self::{
    format::{Format, correction},
    journal::Journal,
    recorder::Recorder,
    turn::ask,
    waiting::descriptors as tool_descriptors,
};

use std::time::Duration;

use runmill_shared::{Error, ErrorKind, domain::run::RunError};

use crate::models::{ModelError, ModelErrorKind};

/// How an execution left its run.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    Ended,
    Parked,
}

/// Why an execution did not come to its end.
#[derive(Debug)]
pub enum Failure {
    /// The run is somebody else's now, or has ended: write nothing.
    Lost,
    /// The database does not answer: nobody can write anything; the run is taken up again when it does.
    Unavailable(Error),
    /// The run's own: its policy decides whether it is tried again.
    Run { error: RunError, retry_after: Option<Duration> },
}

impl Failure {
    pub fn run(code: &str, message: impl Into<String>, retryable: bool) -> Self {
        Self::Run { error: RunError::new(code, message, retryable), retry_after: None }
    }

    /// Whether it is a model's, of that kind.
    pub fn is(&self, kind: ModelErrorKind) -> bool {
        matches!(self, Self::Run { error, .. } if error.code == kind.code())
    }
}

impl From<ModelError> for Failure {
    fn from(e: ModelError) -> Self {
        let error = RunError::new(e.kind.code(), e.message.clone(), e.retryable());
        Self::Run { error, retry_after: e.retry_after }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        if e.code == runmill_shared::services::runs::execution::LOST {
            return Self::Lost;
        }
        if e.code == "DATABASE_UNAVAILABLE" {
            return Self::Unavailable(e);
        }
        if e.kind == ErrorKind::Internal {
            tracing::error!(error = %e, "an execution failed");
        }
        let retryable = matches!(e.kind, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::Limited);
        Self::Run { error: RunError::new(e.code, e.message.clone(), retryable), retry_after: e.retry_after }
    }
}
