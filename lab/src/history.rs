//! What was asked of the system and what it answered, as its clients saw it. Clients never guess: what was not answered is unknown.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

/// What a client knows of a run that it asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// Asked, and not answered: it may be there or not.
    Unknown,
    Accepted(Uuid),
    /// Answered with this status: it must not be there.
    Refused(u16),
}

/// What a run's client wants to have seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers of the model, each after the first following a question to a person or a tool call.
    Agent { asks: usize, calls: usize },
    /// Cancelled by its client at some point.
    Cancelled,
    /// Fails after its tool calls; tried again by its client, it succeeds.
    Failing { calls: usize },
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub kind: Kind,
    pub offer: Offer,
}

/// An event as a reader got it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub id: i64,
    pub kind: String,
    pub run_id: Uuid,
    pub data: Value,
}

/// What a reader got of a thread, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// In the order in which they came.
    pub frames: Vec<Frame>,
    /// The stream said that there is no more.
    pub ended: bool,
}

/// What a client has said to a run's question.
#[derive(Clone, Debug)]
pub struct Decision {
    pub approval: Uuid,
    pub approves: bool,
    /// It was told that this is the decision now; else an earlier try, whose answer was lost, has made it, or it came too late.
    pub taken: bool,
}

#[derive(Clone, Debug)]
pub struct Upload {
    /// Where it is, once it was answered.
    pub path: Option<String>,
    pub sha256: String,
}

/// An answer that says that the server is at fault, or none.
#[derive(Clone, Debug)]
pub struct ServerError {
    /// From the beginning of the load to the end of the request.
    pub at: Duration,
    /// How long the request took.
    pub took: Duration,
    /// Which API it was asked of.
    pub api: usize,
    /// `None`: the connection broke, or nothing was answered in time.
    pub status: Option<u16>,
    pub what: String,
}

/// A goal, and the keys of its tasks with what they depend on.
#[derive(Clone, Debug)]
pub struct Goal {
    pub id: Uuid,
    pub tasks: BTreeMap<Uuid, Vec<Uuid>>,
    pub started: bool,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub id: Uuid,
    /// Between two instants.
    pub every: Duration,
    /// Answered as created, and asked to be disabled, in µs since 1970: what lies between them is fired.
    pub created: i64,
    pub stopped: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Seen {
    /// By the client's name of the run; its thread has the same name unless `threads` says otherwise.
    pub runs: BTreeMap<String, Asked>,
    pub reads: BTreeMap<String, Vec<Read>>,
    /// Runs that were accepted as another try, with the name of the first.
    pub retries: Vec<(Uuid, String)>,
    pub decisions: Vec<Decision>,
    pub uploads: Vec<Upload>,
    pub goals: Vec<Goal>,
    pub schedules: Vec<Schedule>,
    pub errors: Vec<ServerError>,
    /// States that were answered to a cancel.
    pub cancelled: Vec<(String, String)>,
    /// Transcripts that were answered.
    pub transcripts: usize,
    /// Requests that were answered.
    pub answered: usize,
    /// Promises that were broken to a client's face.
    pub wrong: Vec<String>,
}

/// Clones write the same one.
#[derive(Clone)]
pub struct History {
    pub began: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl History {
    pub fn new() -> Self {
        Self { began: Instant::now(), seen: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn asks(&self, run: &str, kind: Kind) {
        self.lock().runs.insert(run.to_owned(), Asked { kind, offer: Offer::Unknown });
    }

    pub fn answered(&self, run: &str, offer: Offer) {
        if let Some(asked) = self.lock().runs.get_mut(run) {
            asked.offer = offer;
        }
    }

    pub fn wrong(&self, what: String) {
        self.lock().wrong.push(what);
    }
}
