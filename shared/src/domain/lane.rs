//! A lane is one queue with its own concurrency, so that slow or CPU-bound work never holds up the rest.
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Agent runs: mostly waiting for models and tools.
    Runs,
    /// Planning and the runs of goals.
    Plans,
    /// CPU-bound: transcription, parsing.
    Media,
    /// What may wait.
    Bulk,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Runs, Self::Plans, Self::Media, Self::Bulk];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Plans => "plans",
            Self::Media => "media",
            Self::Bulk => "bulk",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.as_str() == text)
    }
}
