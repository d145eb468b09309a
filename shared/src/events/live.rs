//! The live path. What a transaction appended is published after its commit; each process fans out to its own readers. Everything
//! here may be lost: a reader that misses something reads it from the log.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use uuid::Uuid;

use super::redis::RedisTransport;
use crate::{config::Config, domain::event::Event, error::Result};

/// Orders that a process may have before it, before it starts to miss some and asks the database instead.
const ORDERS: usize = 1024;

/// What the worker that executes a run is told of it, whichever worker that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Somebody else has ended it.
    Stop(Uuid),
    /// Its row says whether it is to be held at its next checkpoint.
    Look(Uuid),
}

#[derive(Clone, Debug)]
pub enum Signal {
    Events(Arc<[Arc<Event>]>),
    /// There may be more than was seen: read the log.
    Check,
}

#[derive(Clone)]
pub struct Live {
    hub: Arc<Hub>,
    /// `None`: one process is all there is.
    redis: Option<RedisTransport>,
}

/// The readers of this process.
pub(super) struct Hub {
    threads: Mutex<HashMap<Uuid, Followed>>,
    orders: broadcast::Sender<Order>,
    /// Batches a reader may be behind.
    buffer: usize,
}

struct Followed {
    signals: broadcast::Sender<Signal>,
    /// The highest number that was delivered here.
    seen: i64,
}

/// A place among a thread's readers, given back when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    thread_id: Uuid,
    /// `None` once it is being dropped.
    signals: Option<broadcast::Receiver<Signal>>,
}

impl Live {
    pub fn open(config: &Config) -> Result<Self> {
        let (orders, _) = broadcast::channel(ORDERS);
        let hub = Arc::new(Hub { threads: Mutex::default(), orders, buffer: config.events.buffer });
        let redis = if config.is_distributed() { Some(RedisTransport::open(&config.redis, hub.clone())?) } else { None };
        Ok(Self { hub, redis })
    }

    /// Tells every process of events that are committed.
    pub fn publish(&self, thread_id: Uuid, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        match &self.redis {
            Some(redis) => redis.publish(thread_id, events),
            None => self.hub.deliver(thread_id, events),
        }
    }

    /// Tells the worker that executes a run, whichever it is.
    pub fn order(&self, order: Order) {
        match &self.redis {
            Some(redis) => redis.order(order),
            None => self.hub.order(order),
        }
    }

    /// What workers are told. It may lag: the row is the truth.
    pub fn orders(&self) -> broadcast::Receiver<Order> {
        if let Some(redis) = &self.redis {
            redis.listen_for_orders();
        }
        self.hub.orders.subscribe()
    }

    /// Once this returns, every event that is committed from now on is signalled, or found by the watch over `followed`.
    pub async fn subscribe(&self, thread_id: Uuid) -> Subscription {
        let subscription = self.hub.subscribe(thread_id);
        if let Some(redis) = &self.redis {
            redis.listen_for_events().await;
        }
        subscription
    }

    /// The threads that have readers here, and the last number each was told.
    pub fn followed(&self) -> Vec<(Uuid, i64)> {
        self.hub.threads().iter().map(|(id, f)| (*id, f.seen)).collect()
    }

    pub fn readers(&self) -> usize {
        self.hub.threads().values().map(|f| f.signals.receiver_count()).sum()
    }

    /// The log of a followed thread goes up to `last_seq`: its readers look for what they were not told.
    pub fn saw(&self, thread_id: Uuid, last_seq: i64) {
        if let Some(followed) = self.hub.threads().get_mut(&thread_id) {
            followed.seen = followed.seen.max(last_seq);
            followed.signals.send(Signal::Check).ok();
        }
    }
}

impl Hub {
    fn threads(&self) -> MutexGuard<'_, HashMap<Uuid, Followed>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, thread_id: Uuid, events: Vec<Event>) {
        if let Some(followed) = self.threads().get_mut(&thread_id) {
            followed.seen = events.last().map_or(followed.seen, |e| followed.seen.max(e.seq));
            // Each reader keeps a pointer, and not a copy, until it has written the event.
            let events = events.into_iter().map(Arc::new).collect();
            followed.signals.send(Signal::Events(events)).ok();
        }
    }

    pub(super) fn check(&self, thread_id: Uuid) {
        if let Some(followed) = self.threads().get(&thread_id) {
            followed.signals.send(Signal::Check).ok();
        }
    }

    /// After messages may have been lost.
    pub(super) fn check_all(&self) {
        for followed in self.threads().values() {
            followed.signals.send(Signal::Check).ok();
        }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send(order).ok();
    }

    fn subscribe(self: &Arc<Self>, thread_id: Uuid) -> Subscription {
        let mut threads = self.threads();
        let followed =
            threads.entry(thread_id).or_insert_with(|| Followed { signals: broadcast::channel(self.buffer).0, seen: 0 });
        Subscription { hub: self.clone(), thread_id, signals: Some(followed.signals.subscribe()) }
    }
}

impl Subscription {
    /// The next signal. A reader that fell too far behind is told to read the log.
    pub async fn next(&mut self) -> Signal {
        let Some(signals) = &mut self.signals else { return std::future::pending().await };
        match signals.recv().await {
            Ok(signal) => signal,
            Err(broadcast::error::RecvError::Lagged(_)) => Signal::Check,
            // The sender lives as long as its subscriptions: it is removed by the last one's drop.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut threads = self.hub.threads();
        // Under the lock: of two that leave at once, the second must see that the first is gone.
        self.signals = None;
        if threads.get(&self.thread_id).is_some_and(|f| f.signals.receiver_count() == 0) {
            threads.remove(&self.thread_id);
        }
    }
}
