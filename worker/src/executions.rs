//! What this process executes: where a stop finds its run, and what the reconciler compares with the database.
use std::{
    collections::{HashMap, HashSet},
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
    /// Claims that were sent and not answered yet.
    claiming: HashSet<Uuid>,
    running: HashMap<Uuid, Running>,
}

struct Running {
    fence: i64,
    stop: watch::Sender<Option<Stop>>,
}

impl Running {
    /// The first reason counts.
    fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| if stop.is_none() { stop.replace(why).is_none() } else { false });
    }
}

/// One claim or execution in the table, for as long as it lives.
pub struct Entry {
    executions: Executions,
    run_id: Uuid,
    stop: watch::Receiver<Option<Stop>>,
}

impl Executions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a claim before it is sent, so that one whose answer is lost can be told from one that is on its way. `None`: this
    /// process is at it already.
    pub fn claim(&self, run_id: Uuid) -> Option<Entry> {
        let mut table = self.table();
        if table.running.contains_key(&run_id) || !table.claiming.insert(run_id) {
            return None;
        }
        let (_, stop) = watch::channel(None);
        Some(Entry { executions: self.clone(), run_id, stop })
    }

    pub fn stop(&self, run_id: Uuid, why: Stop) {
        if let Some(running) = self.table().running.get(&run_id) {
            running.stop(why);
        }
    }

    /// As `stop`, for what is known of one execution: a later one of the same run is left alone.
    pub fn stop_at(&self, run_id: Uuid, fence: i64, why: Stop) {
        if let Some(running) = self.table().running.get(&run_id).filter(|running| running.fence == fence) {
            running.stop(why);
        }
    }

    pub fn stop_all(&self, why: Stop) {
        let all: Vec<_> = self.table().running.keys().copied().collect();
        for run_id in all {
            self.stop(run_id, why.clone());
        }
    }

    pub fn len(&self) -> usize {
        self.table().running.len()
    }

    /// Returns when nothing is executed.
    pub async fn empty(&self) {
        self.0.count.subscribe().wait_for(|n| *n == 0).await.ok();
    }

    /// What is executed here, with its fence.
    pub fn running(&self) -> Vec<(Uuid, i64)> {
        self.table().running.iter().map(|(id, r)| (*id, r.fence)).collect()
    }

    pub fn is_known(&self, run_id: Uuid, fence: i64) -> bool {
        let table = self.table();
        table.claiming.contains(&run_id) || table.running.get(&run_id).is_some_and(|r| r.fence == fence)
    }
}

impl Entry {
    /// The claim was granted.
    pub fn begin(&mut self, fence: i64) {
        let (stop, stopped) = watch::channel(None);
        self.stop = stopped;
        let mut table = self.executions.table();
        table.claiming.remove(&self.run_id);
        table.running.insert(self.run_id, Running { fence, stop });
        self.executions.0.count.send_replace(table.running.len());
    }

    /// Waits until the execution has to stop.
    pub async fn stopped(&mut self) -> Stop {
        match self.stop.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            _ => std::future::pending().await,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.executions.table();
        table.claiming.remove(&self.run_id);
        table.running.remove(&self.run_id);
        self.executions.0.count.send_replace(table.running.len());
    }
}
