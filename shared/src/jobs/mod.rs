//! What each kind of run reads from its row: the payloads. Their lanes are in `domain::run::RunKind`.
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An agent's run reads the request as it was accepted; its messages are in the thread.
pub use crate::domain::run_input::RunInput as AgentRun;

/// A recording that is stored as a temporary attachment. The result is a `domain::transcript::Transcript`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcription {
    pub attachment_id: Uuid,
    pub path: String,
    /// Seconds, as the file declares.
    pub duration: f64,
}
