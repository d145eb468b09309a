//! What this process executes: where a stop finds its run, and what the reconciler compares with the database.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runmill_shared::domain::run::RunError;
use tokio::sync::watch;
use uuid::Uuid;

/// Why an execution has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The run has been ended, or taken away, by somebody else: write nothing.
    Ended,
    /// This process cannot prove its lease: write nothing.
    LeaseLost,
    /// This process stops: put the run back.
    Drain,
    /// What the run wanted to write cannot be written.
    Unwritable(RunError),
}

#[derive(Clone, Default)]
pub struct Executions(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    count: watch::Sender<usize>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { table: Mutex::default(), count: watch::Sender::new(0) }
    }
}

#[derive(Default)]
struct Table {
    slots: HashMap<Uuid, Slot>,
    /// Set: whatever is entered from now on is stopped from its beginning.
    closed: Option<Stop>,
}

struct Slot {
    /// `None`: the claim was sent and is not answered yet.
    fence: Option<i64>,
    stop: watch::Sender<Option<Stop>>,
    /// Its row may say that it is to be held: the next checkpoint looks.
    look: bool,
    /// A hint of the run came meanwhile: it may have been parked and woken before its slot was free.
    hinted: bool,
}

impl Slot {
    /// The first reason stays.
    fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| if stop.is_none() { stop.replace(why).is_none() } else { false });
    }
}

/// One claim or execution in the table, for as long as it lives.
pub struct Entry {
    executions: Executions,
    run_id: Uuid,
    stop: watch::Receiver<Option<Stop>>,
    left: bool,
}

impl Executions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a claim before it is sent, so that one whose answer is lost can be told from one that is on its way, and that a stop
    /// finds it. `None`: this process is at it already; the entry that is there learns of the hint when it leaves.
    pub fn claim(&self, run_id: Uuid) -> Option<Entry> {
        let mut table = self.table();
        if let Some(slot) = table.slots.get_mut(&run_id) {
            slot.hinted = true;
            return None;
        }
        let (stop, stopped) = watch::channel(table.closed.clone());
        table.slots.insert(run_id, Slot { fence: None, stop, look: false, hinted: false });
        self.0.count.send_replace(table.slots.len());
        Some(Entry { executions: self.clone(), run_id, stop: stopped, left: false })
    }

    /// The run has been ended from outside: whatever is done with it here stops.
    pub fn ended(&self, run_id: Uuid) {
        if let Some(slot) = self.table().slots.get(&run_id) {
            slot.stop(Stop::Ended);
        }
    }

    /// Stops that execution, and not a later one of the same run.
    pub fn stop(&self, run_id: Uuid, fence: i64, why: Stop) {
        if let Some(slot) = self.table().slots.get(&run_id).filter(|slot| slot.fence == Some(fence)) {
            slot.stop(why);
        }
    }

    /// At its next checkpoint the run looks whether it is to be held.
    pub fn look(&self, run_id: Uuid) {
        if let Some(slot) = self.table().slots.get_mut(&run_id) {
            slot.look = true;
        }
    }

    /// Whether the run was told to look, since it did so last.
    pub fn take_look(&self, run_id: Uuid) -> bool {
        self.table().slots.get_mut(&run_id).is_some_and(|slot| std::mem::take(&mut slot.look))
    }

    /// Stops everything, the claims on their way too.
    pub fn stop_all(&self, why: &Stop) {
        self.table().slots.values().for_each(|slot| slot.stop(why.clone()));
    }

    /// Stops everything, now and from now on.
    pub fn close(&self, why: Stop) {
        let mut table = self.table();
        table.slots.values().for_each(|slot| slot.stop(why.clone()));
        table.closed = Some(why);
    }

    /// Claims and executions.
    pub fn len(&self) -> usize {
        self.table().slots.len()
    }

    /// Returns when nothing is claimed or executed.
    pub async fn empty(&self) {
        self.0.count.subscribe().wait_for(|n| *n == 0).await.ok();
    }

    /// What is executed here, with its fence.
    pub fn running(&self) -> Vec<(Uuid, i64)> {
        self.table().slots.iter().filter_map(|(id, slot)| Some((*id, slot.fence?))).collect()
    }

    pub fn is_executed(&self, run_id: Uuid, fence: i64) -> bool {
        self.table().slots.get(&run_id).is_some_and(|slot| slot.fence == Some(fence))
    }

    /// As `is_executed`, or its claim is on its way.
    pub fn is_known(&self, run_id: Uuid, fence: i64) -> bool {
        self.table().slots.get(&run_id).is_some_and(|slot| slot.fence.is_none_or(|f| f == fence))
    }
}

impl Entry {
    /// The claim was granted.
    pub fn begin(&self, fence: i64, paused: bool) {
        if let Some(slot) = self.executions.table().slots.get_mut(&self.run_id) {
            slot.fence = Some(fence);
            slot.look |= paused;
        }
    }

    /// Waits until the execution has to stop.
    pub async fn stopped(&mut self) -> Stop {
        match self.stop.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            _ => std::future::pending().await,
        }
    }

    /// Leaves the table; answers whether a hint of the run came meanwhile.
    pub fn leave(mut self) -> bool {
        self.remove()
    }

    fn remove(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        let mut table = self.executions.table();
        let hinted = table.slots.remove(&self.run_id).is_some_and(|slot| slot.hinted);
        self.executions.0.count.send_replace(table.slots.len());
        hinted
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use runmill_shared::domain::new_id;

    use super::*;

    #[tokio::test]
    async fn a_stop_finds_a_claim_that_is_on_its_way_and_one_that_comes_later() {
        let executions = Executions::default();
        let (early, late) = (new_id(), new_id());
        let mut claimed = executions.claim(early).unwrap();
        executions.close(Stop::Drain);
        claimed.begin(3, false);
        assert_eq!(claimed.stopped().await, Stop::Drain);
        assert_eq!(executions.claim(late).unwrap().stopped().await, Stop::Drain);
        drop(claimed);
        executions.empty().await;
    }

    #[tokio::test]
    async fn a_stop_of_an_earlier_execution_leaves_the_later_one_alone() {
        let (executions, run) = (Executions::default(), new_id());
        let mut entry = executions.claim(run).unwrap();
        entry.begin(7, false);
        executions.stop(run, 5, Stop::Ended);
        assert!(entry.stopped().now_or_never().is_none());
        executions.stop(run, 7, Stop::Ended);
        assert_eq!(entry.stopped().await, Stop::Ended);
    }

    #[test]
    fn a_run_that_is_told_to_look_does_so_once_though_its_claim_was_on_its_way() {
        let (executions, run) = (Executions::default(), new_id());
        executions.look(run);
        let entry = executions.claim(run).unwrap();
        executions.look(run);
        entry.begin(1, false);
        assert_eq!((executions.take_look(run), executions.take_look(run)), (true, false));
        entry.leave();
        let entry = executions.claim(run).unwrap();
        assert!(!executions.take_look(run), "another execution");
        entry.begin(2, true);
        assert!(executions.take_look(run));
    }

    #[test]
    fn a_hint_that_comes_while_the_run_is_leaving_is_not_lost() {
        let (executions, run) = (Executions::default(), new_id());
        let entry = executions.claim(run).unwrap();
        assert!(executions.claim(run).is_none());
        assert!(entry.leave());
        assert!(!executions.claim(run).unwrap().leave());
    }
}
