//! The queue inside one process: for the embedded start and for tests. Start-up refills it from the database.
use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::Hint;
use crate::domain::Lane;

#[derive(Clone)]
pub struct MemoryQueue(Arc<Inner>);

struct Inner {
    lanes: [LaneQueue; Lane::ALL.len()],
    block: Duration,
}

#[derive(Default)]
struct LaneQueue {
    ordered: Mutex<Ordered>,
    pushed: Notify,
}

/// Ids compare as their text does, so ties are broken as Redis breaks them.
#[derive(Default)]
struct Ordered {
    hints: BTreeSet<(i64, Uuid)>,
    scores: HashMap<Uuid, i64>,
}

impl MemoryQueue {
    /// `block`: how long a pop waits.
    pub fn new(block: Duration) -> Self {
        Self(Arc::new(Inner { lanes: Default::default(), block }))
    }

    pub(super) fn push(&self, lane: Lane, hints: &[Hint]) {
        let mut ordered = self.lock(lane);
        for hint in hints {
            if let std::collections::hash_map::Entry::Vacant(free) = ordered.scores.entry(hint.run_id) {
                free.insert(hint.score);
                ordered.hints.insert((hint.score, hint.run_id));
            }
        }
        drop(ordered);
        self.lane(lane).pushed.notify_one();
    }

    pub(super) fn remove(&self, lane: Lane, run_id: Uuid) -> bool {
        let mut ordered = self.lock(lane);
        let Some(score) = ordered.scores.remove(&run_id) else { return false };
        ordered.hints.remove(&(score, run_id))
    }

    pub(super) fn depth(&self, lane: Lane) -> u64 {
        self.lock(lane).hints.len() as u64
    }

    /// Counts, so it takes time in proportion to the place: milliseconds at 100,000, asked for by people.
    pub(super) fn place(&self, lane: Lane, run_id: Uuid) -> Option<u64> {
        let ordered = self.lock(lane);
        let score = *ordered.scores.get(&run_id)?;
        Some(ordered.hints.range(..(score, run_id)).count() as u64)
    }

    pub(super) fn min_score(&self, lane: Lane) -> Option<i64> {
        self.lock(lane).hints.first().map(|(score, _)| *score)
    }

    pub(super) async fn pop_until(&self, lane: Lane, max: usize, stop: impl Future<Output = ()>) -> Vec<Hint> {
        let mut stop = pin!(stop);
        let deadline = Instant::now() + self.0.block;
        loop {
            let pushed = self.lane(lane).pushed.notified();
            let hints = self.take(lane, max);
            if !hints.is_empty() {
                return hints;
            }
            tokio::select! {
                () = pushed => {}
                () = sleep_until(deadline) => return hints,
                () = &mut stop => return hints,
            }
        }
    }

    fn take(&self, lane: Lane, max: usize) -> Vec<Hint> {
        let mut ordered = self.lock(lane);
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((score, run_id)) = ordered.hints.pop_first()
        {
            ordered.scores.remove(&run_id);
            taken.push(Hint { run_id, score });
        }
        if !ordered.hints.is_empty() {
            // A push wakes one consumer; whoever leaves something wakes the next.
            self.lane(lane).pushed.notify_one();
        }
        taken
    }

    fn lane(&self, lane: Lane) -> &LaneQueue {
        &self.0.lanes[lane as usize]
    }

    fn lock(&self, lane: Lane) -> MutexGuard<'_, Ordered> {
        self.lane(lane).ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
