//! Following a thread's log: replay from the database, then the live tail, without a hole or a duplicate. Every stream, every
//! waiting request and every dialect is this one function and an encoder.
use std::{collections::VecDeque, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        event::Event,
    },
    error::{Error, Result},
    events::{Signal, live::Subscription},
    services::tokens::Issued,
    store::{events, threads},
    tasks,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Event(Arc<Event>),
    /// The events `from..=to` are past retention.
    Gap {
        from: i64,
        to: i64,
    },
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// After this number; 0 is the whole log.
    After(i64),
    /// The first event of the oldest run that has not ended, else of the latest run.
    Natural,
    /// The first event of this run.
    Run(Uuid),
    /// What comes from now on.
    Now,
}

/// A reader of one thread. It holds no database connection between calls, and memory for one page.
pub struct Follow {
    app: App,
    thread_id: Uuid,
    /// The last number that was answered.
    cursor: i64,
    ready: VecDeque<Item>,
    subscription: Subscription,
    /// Whether the log may have more than the signals told.
    behind: bool,
    /// Whether the last thing seen may have been the last thing there is.
    may_end: bool,
    over: bool,
}

/// Begins to follow a caller's thread.
///
/// # Errors
/// `NotFound` for a thread that is unknown or another's; `Malformed` for a number past the end.
pub async fn follow(app: &App, caller: &Caller, thread: &str, from: From) -> Result<Follow> {
    let owner = caller.can(Scope::Stream { thread })?;
    let found = threads::by_name(&app.db, owner, thread).await?;
    let thread_id = found.ok_or_else(|| Error::not_found("THREAD_NOT_FOUND", "no such thread"))?.id;
    let subscription = app.live.subscribe(thread_id).await;
    let start = match from {
        From::Natural => Some(events::natural_start(&app.db, thread_id).await? - 1),
        From::Run(run) => events::first_of_run(&app.db, run).await?.map(|first| first - 1),
        From::After(seq) => Some(seq),
        From::Now => None,
    };
    let extent = events::extent(&app.db, thread_id).await?;
    let cursor = start.unwrap_or(extent.last_seq);
    if cursor < 0 || cursor > extent.last_seq {
        return Err(Error::malformed(format!("the last event id must be between 0 and {}", extent.last_seq)));
    }
    let over = cursor == extent.last_seq && !extent.active;
    let (app, ready) = (app.clone(), VecDeque::new());
    Ok(Follow { app, thread_id, cursor, ready, subscription, behind: true, may_end: true, over })
}

/// A token with which somebody who cannot send headers follows this thread and does nothing else.
pub async fn token(app: &App, caller: &Caller, thread: &str) -> Result<Issued> {
    let found = threads::by_name(&app.db, caller.can(Scope::Read)?, thread).await?;
    found.ok_or_else(|| Error::not_found("THREAD_NOT_FOUND", "no such thread"))?;
    app.tokens.issue_stream(caller, thread, &app.clock)
}

impl Follow {
    /// The last number that was answered.
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// Whether there was nothing after the cursor, and no run that could bring more, when this began.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Shows the events up to the cursor, a page at a time, to an encoder that has to know what is open: from the first of the
    /// run that was under way there.
    pub async fn before_cursor(&self, mut see: impl FnMut(&[Event]) -> Result<()>) -> Result<()> {
        let limit = self.app.config.events.page;
        let mut seen = events::first_of_started(&self.app.db, self.thread_id, self.cursor).await? - 1;
        while seen < self.cursor {
            let mut page = events::page(&self.app.db, self.thread_id, seen, limit).await?;
            page.retain(|e| e.seq <= self.cursor);
            let Some(last) = page.last() else { break };
            seen = last.seq;
            see(&page)?;
        }
        Ok(())
    }

    /// The next event, waiting for it as long as a run of the thread has not ended; `None` when none is left that could bring
    /// more. May be dropped while it waits and called again.
    pub async fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.cursor = match &item {
                    Item::Event(event) => event.seq,
                    Item::Gap { to, .. } => *to,
                };
                return Ok(Some(item));
            }
            if self.behind {
                self.read_page().await?;
            } else if self.may_end {
                let extent = events::extent(&self.app.db, self.thread_id).await?;
                if extent.last_seq > self.cursor {
                    self.behind = true;
                } else if extent.active {
                    self.may_end = false;
                } else {
                    return Ok(None);
                }
            } else {
                self.take_signal().await;
            }
        }
    }

    /// What is ready without waiting: lets an encoder write many events at once.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        match self.ready.front() {
            Some(Item::Event(_)) => match self.ready.pop_front() {
                Some(Item::Event(event)) => {
                    self.cursor = event.seq;
                    Some(event)
                }
                _ => None,
            },
            _ => None,
        }
    }

    async fn read_page(&mut self) -> Result<()> {
        let limit = self.app.config.events.page;
        let page = events::page(&self.app.db, self.thread_id, self.cursor, limit).await?;
        if page.is_empty() {
            let first = events::extent(&self.app.db, self.thread_id).await?.first_seq;
            // After the last await: dropped before it, the next call reads the page again.
            self.behind = false;
            if first > self.cursor + 1 {
                self.ready.push_back(Item::Gap { from: self.cursor + 1, to: first - 1 });
            }
            return Ok(());
        }
        self.behind = i64::try_from(page.len()).unwrap_or(0) >= limit;
        self.push(page.into_iter().map(Arc::new).collect());
        Ok(())
    }

    fn push(&mut self, page: Vec<Arc<Event>>) {
        if let Some(first) = page.first().filter(|e| e.seq > self.cursor + 1) {
            self.ready.push_back(Item::Gap { from: self.cursor + 1, to: first.seq - 1 });
        }
        self.may_end |= page.iter().any(|e| e.is_terminal());
        self.ready.extend(page.into_iter().map(Item::Event));
    }

    async fn take_signal(&mut self) {
        match self.subscription.next().await {
            Signal::Check => {
                self.behind = true;
                self.may_end = true;
            }
            Signal::Events(events) => {
                let new: Vec<_> = events.iter().filter(|e| e.seq > self.cursor).cloned().collect();
                match new.first() {
                    None => {}
                    Some(first) if first.seq == self.cursor + 1 => self.push(new),
                    // Something between was missed: the log has it.
                    Some(_) => self.behind = true,
                }
            }
        }
    }
}

/// Looks once a second, in one statement for all followed threads, for events that were not signalled. Ends with the process.
pub fn watch(app: &App) {
    let app = app.clone();
    tasks::spawn("watch followed threads", async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            app.pulse.beat("streams");
            let followed = app.live.followed();
            metrics::gauge!("runmill_stream_readers").set(f64::from(u32::try_from(app.live.readers()).unwrap_or(u32::MAX)));
            for chunk in followed.chunks(500) {
                let ids: Vec<_> = chunk.iter().map(|(id, _)| *id).collect();
                let Ok(last) = events::last_seqs(&app.db, &ids).await else { continue };
                for thread in last {
                    let seen = chunk.iter().find(|(id, _)| *id == thread.thread_id).map_or(0, |(_, seen)| *seen);
                    if thread.last_seq > seen {
                        app.live.saw(thread.thread_id, thread.last_seq);
                    }
                }
            }
        }
    });
}
