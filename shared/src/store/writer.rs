//! SQLite has one writer. Writers take turns on it, and those that wait while a transaction is open join it (each in a
//! savepoint of its own): one fsync commits them together, and each returns only after that commit. Alone, a writer
//! commits at once.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::sync::oneshot;

use super::db::Class;
use crate::error::{Error, Result};

/// Transactions that one commit may hold: bounds how long the first of them waits.
const GROUP: usize = 64;

#[derive(Clone)]
pub struct Writer(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    idle: Option<Box<Session>>,
    requests: VecDeque<oneshot::Sender<Baton>>,
    background: VecDeque<oneshot::Sender<Baton>>,
    closed: bool,
}

struct Session {
    connection: SqliteConnection,
    /// Members of the open transaction that have finished and wait for its commit.
    committing: Vec<oneshot::Sender<Result<()>>>,
    /// Whether BEGIN was sent.
    open: bool,
    /// What the last holder left behind.
    undo: Undo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    Nothing,
    Savepoint,
    Transaction,
}

/// The right to use the connection. Dropped, it passes on to the next in line.
pub struct Baton {
    writer: Writer,
    session: Option<Box<Session>>,
}

/// One transaction of one writer.
pub struct Turn {
    baton: Baton,
    savepoint: bool,
    finished: bool,
}

impl Writer {
    pub fn new(connection: SqliteConnection) -> Self {
        let session = Session { connection, committing: Vec::new(), open: false, undo: Undo::Nothing };
        Self(Arc::new(Mutex::new(Queue { idle: Some(Box::new(session)), ..Queue::default() })))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn turn(&self, class: Class) -> Result<Turn> {
        let mut baton = self.baton(class).await?;
        let session = baton.session()?;
        session.clean().await?;
        let savepoint = session.open;
        // Said first: a caller that goes away while the statement runs leaves it done or not done, and both are undone alike.
        session.undo = if savepoint { Undo::Savepoint } else { Undo::Transaction };
        session.connection.execute(if savepoint { "SAVEPOINT turn" } else { "BEGIN IMMEDIATE" }).await?;
        session.undo = Undo::Nothing;
        session.open = true;
        Ok(Turn { baton, savepoint, finished: false })
    }

    /// The connection without a transaction, for migrations, which open their own.
    pub async fn alone(&self) -> Result<Baton> {
        let mut baton = self.baton(Class::Request).await?;
        let session = baton.session()?;
        session.clean().await?;
        if session.open {
            session.commit().await?;
        }
        Ok(baton)
    }

    async fn baton(&self, class: Class) -> Result<Baton> {
        let wait = {
            let mut queue = self.queue();
            if queue.closed {
                return Err(Error::unavailable("DATABASE_UNAVAILABLE", "the database is closed"));
            }
            if let Some(session) = queue.idle.take() {
                return Ok(Baton { writer: self.clone(), session: Some(session) });
            }
            let (pass, wait) = oneshot::channel();
            match class {
                Class::Request => queue.requests.push_back(pass),
                Class::Background => queue.background.push_back(pass),
            }
            wait
        };
        wait.await.map_err(|_| Error::unavailable("DATABASE_UNAVAILABLE", "the database is closed"))
    }

    /// Hands the connection to the next in line; with nobody there, settles what is open and lets it rest.
    fn pass(&self, mut session: Box<Session>) {
        loop {
            let mut queue = self.queue();
            let Some(next) = queue.requests.pop_front().or_else(|| queue.background.pop_front()) else {
                if !session.open && session.undo == Undo::Nothing {
                    queue.idle = Some(session);
                    return;
                }
                drop(queue);
                return self.settle(session);
            };
            drop(queue);
            match next.send(Baton { writer: self.clone(), session: Some(session) }) {
                Ok(()) => return,
                // The one in line gave up: take the connection back out, so that its drop does not pass it on again.
                Err(mut baton) => match baton.session.take() {
                    Some(back) => session = back,
                    None => return,
                },
            }
        }
    }

    fn settle(&self, mut session: Box<Session>) {
        let writer = self.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if session.clean().await.is_ok() && session.open {
                session.commit().await.ok();
            }
            writer.pass(session);
        });
    }

    pub async fn close(&self) {
        if let Ok(mut baton) = self.baton(Class::Background).await {
            self.queue().closed = true;
            if let Some(session) = baton.session.take() {
                session.connection.close().await.ok();
            }
        }
        let mut queue = self.queue();
        queue.requests.clear();
        queue.background.clear();
    }
}

impl Session {
    async fn clean(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.undo, Undo::Nothing) {
            Undo::Nothing => {}
            Undo::Savepoint => {
                // No such savepoint: it was never made, or released whole by a caller that did not wait for the answer.
                if self.connection.execute("ROLLBACK TO turn").await.is_ok() {
                    self.connection.execute("RELEASE turn").await?;
                }
            }
            Undo::Transaction => {
                self.open = false;
                self.connection.execute("ROLLBACK").await.ok();
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        self.open = false;
        let outcome = self.connection.execute("COMMIT").await;
        if outcome.is_err() {
            self.connection.execute("ROLLBACK").await.ok();
        }
        for member in self.committing.drain(..) {
            let told = match &outcome {
                Ok(_) => Ok(()),
                Err(e) => Err(Error::unavailable("DATABASE_UNAVAILABLE", "the database could not commit").because(e.to_string())),
            };
            member.send(told).ok();
        }
        outcome.map(|_| ()).map_err(Error::from)
    }
}

impl Baton {
    pub fn connection(&mut self) -> Result<&mut SqliteConnection> {
        Ok(&mut self.session()?.connection)
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_deref_mut().ok_or_else(|| Error::internal("the connection was passed on"))
    }

    fn take(&mut self) -> Self {
        Self { writer: self.writer.clone(), session: self.session.take() }
    }

    /// In a task of its own: a caller that goes away in the middle must not take the group's answer with it.
    async fn commit(mut self) -> Result<()> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        let writer = self.writer.clone();
        #[expect(clippy::disallowed_methods, reason = "no span to keep, and its end is awaited here")]
        let done = tokio::spawn(async move {
            let outcome = session.commit().await;
            writer.pass(session);
            outcome
        });
        done.await.map_err(Error::internal)?
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.writer.pass(session);
        }
    }
}

impl Turn {
    pub fn connection(&mut self) -> Result<&mut SqliteConnection> {
        Ok(&mut self.baton.session()?.connection)
    }

    pub async fn commit(mut self) -> Result<()> {
        let others_wait = {
            let queue = self.baton.writer.queue();
            !queue.requests.is_empty() || !queue.background.is_empty()
        };
        let savepoint = self.savepoint;
        let session = self.baton.session()?;
        if savepoint {
            session.connection.execute("RELEASE turn").await?;
        }
        self.finished = true;
        if others_wait && session.committing.len() + 1 < GROUP {
            let (tell, told) = oneshot::channel();
            session.committing.push(tell);
            drop(self);
            return told.await.map_err(|_| Error::unavailable("DATABASE_UNAVAILABLE", "the database is closed"))?;
        }
        self.baton.take().commit().await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let undo = if self.savepoint { Undo::Savepoint } else { Undo::Transaction };
        if let Some(session) = self.baton.session.as_deref_mut() {
            session.undo = undo;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};

    use super::*;

    async fn writer() -> Writer {
        let mut c = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)").await.unwrap();
        Writer::new(c)
    }

    async fn insert(w: &Writer, n: i64, keep: bool) -> Result<()> {
        let mut turn = w.turn(Class::Request).await?;
        sqlx::query("INSERT INTO t VALUES (?)").bind(n).execute(turn.connection()?).await?;
        if keep { turn.commit().await } else { Ok(()) }
    }

    async fn kept(w: &Writer) -> Vec<i64> {
        let mut turn = w.turn(Class::Background).await.unwrap();
        let rows = sqlx::query("SELECT n FROM t ORDER BY n").fetch_all(turn.connection().unwrap()).await.unwrap();
        rows.iter().map(|r| r.get(0)).collect()
    }

    #[tokio::test]
    async fn members_of_a_group_commit_together_and_fail_alone() {
        let w = writer().await;
        let all = join_all((0..300).map(|n| insert(&w, n / 2 * 2 + i64::from(n % 3 == 0), n % 5 != 0))).await;
        let ok = all.iter().filter(|r| r.is_ok()).count();
        assert!(ok > 100 && ok < 300, "some collide: {ok}");
        let expected: std::collections::BTreeSet<i64> =
            (0..300).filter(|n| n % 5 != 0).map(|n| n / 2 * 2 + i64::from(n % 3 == 0)).collect();
        assert_eq!(kept(&w).await, expected.into_iter().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_turn_that_is_dropped_leaves_nothing_and_blocks_nobody() {
        let w = writer().await;
        let held = w.turn(Class::Request).await.unwrap();
        let mut given_up = Box::pin(w.turn(Class::Request));
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(held);
        insert(&w, 7, true).await.unwrap();
        insert(&w, 8, false).await.unwrap();
        assert_eq!(kept(&w).await, [7]);
    }
}
