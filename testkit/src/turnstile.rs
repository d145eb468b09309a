//! Lets a test decide how many requests servers take: the others stand before it, seen by no server, until they are let in or leave.
use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, watch};

const DEADLINE: Duration = Duration::from_secs(120);

/// Clones are the same turnstile.
#[derive(Clone)]
pub struct Turnstile {
    admitted: Arc<Semaphore>,
    standing: watch::Sender<usize>,
    turned_away: watch::Sender<()>,
}

impl Turnstile {
    /// That lets nobody in.
    pub fn new() -> Self {
        Self { admitted: Arc::new(Semaphore::new(0)), standing: watch::Sender::new(0), turned_away: watch::Sender::new(()) }
    }

    /// Lets so many more in.
    pub fn admit(&self, requests: usize) {
        self.admitted.add_permits(requests);
    }

    /// Those who stand before it go unseen: a server may not notice that its client is dead.
    pub fn turn_away(&self) {
        self.turned_away.send_replace(());
    }

    /// Lets everybody in from now on.
    pub fn open(&self) {
        self.admitted.close();
    }

    /// Waits until so many stand before it.
    ///
    /// # Errors
    /// When they do not within two minutes.
    pub async fn until_standing(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let mut standing = self.standing.subscribe();
        let reached = tokio::time::timeout(DEADLINE, standing.wait_for(|n| wanted(*n))).await.map(|found| found.map(|_| ()));
        Ok(reached.with_context(|| format!("{} stand before the turnstile", *self.standing.borrow()))??)
    }

    /// `false`: turned away.
    pub(crate) async fn pass(&self) -> bool {
        let mut turned_away = self.turned_away.subscribe();
        self.standing.send_modify(|n| *n += 1);
        let _standing = Standing(&self.standing);
        tokio::select! {
            biased;
            _ = turned_away.changed() => return false,
            admitted = self.admitted.acquire() => {
                // Closed is open: see `open`.
                admitted.into_iter().for_each(tokio::sync::SemaphorePermit::forget);
            }
        }
        true
    }
}

impl Default for Turnstile {
    fn default() -> Self {
        Self::new()
    }
}

struct Standing<'a>(&'a watch::Sender<usize>);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}
