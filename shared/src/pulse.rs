//! Whether a process makes progress: its loops say that they have come round, and one that has not for too long is stuck.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A loop that has not come round for this long is stuck: each waits for at most a statement's timeout at a time.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<&'static str, Instant>>>);

impl Pulse {
    /// `of` has come round.
    pub fn beat(&self, of: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(of, Instant::now());
    }

    /// `of` has ended, and will not come round any more.
    pub fn rest(&self, of: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(of);
    }

    /// What is stuck; what has never begun is not.
    pub fn stuck(&self) -> Vec<&'static str> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().filter(|(_, last)| last.elapsed() > STUCK).map(|(of, _)| *of).collect()
    }
}
