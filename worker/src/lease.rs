//! The lease of this worker process: one session row, renewed on a connection and a thread of its own, so that neither busy
//! runs nor a busy pool can make it lapse. A worker that cannot prove its lease fences itself.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runmill_shared::{
    App, ErrorKind, Result,
    services::leases::{self, Beat},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::executions::{Executions, Stop};

#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    app: App,
    /// The session in force; `None` while there is none.
    session: watch::Sender<Option<Uuid>>,
    closed: CancellationToken,
}

impl Leases {
    /// Opens a session and keeps it alive until `close`, or until `closed`.
    pub async fn open(app: &App, executions: Executions, closed: CancellationToken) -> Result<Self> {
        let inner = Inner { app: app.clone(), session: watch::Sender::new(None), closed };
        let leases = Self(Arc::new(inner));
        match leases::open(app).await {
            Ok(session) => drop(leases.0.session.send_replace(Some(session))),
            // As later on, when its lease is lost: it has a session once the database answers.
            Err(e) if app.db.is_postgres() && e.kind == ErrorKind::Unavailable => {
                tracing::warn!(error = %e, "this worker waits for the database");
            }
            Err(e) => return Err(e),
        }
        if app.db.is_postgres() {
            leases.clone().keep(executions)?;
        }
        Ok(leases)
    }

    /// The session to claim under; waits while there is none.
    pub async fn session(&self) -> Uuid {
        match self.0.session.subscribe().wait_for(Option::is_some).await.map(|id| *id) {
            Ok(Some(id)) => id,
            _ => std::future::pending().await,
        }
    }

    pub fn current(&self) -> Option<Uuid> {
        *self.0.session.borrow()
    }

    /// Gives the session up: what it still names is anybody's at once.
    pub async fn close(&self) {
        self.0.closed.cancel();
        if let Some(id) = self.0.session.send_replace(None)
            && let Err(e) = leases::give_up(&self.0.app, id).await
        {
            tracing::warn!(error = %e, "the session was not given up; it expires by itself");
        }
    }

    fn keep(self, executions: Executions) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("lease".into()).spawn(move || runtime.block_on(self.beat(executions)))?;
        Ok(())
    }

    async fn beat(self, executions: Executions) {
        let (beat, lease) = (self.0.app.config.worker.heartbeat, self.0.app.config.worker.lease);
        let mut last_good = Instant::now();
        let mut connection = None;
        while self.0.closed.run_until_cancelled(tokio::time::sleep(beat)).await.is_some() {
            let Some(session) = self.current() else {
                last_good = self.renew_from_nothing().await.unwrap_or(last_good);
                continue;
            };
            let started = Instant::now();
            // What is not answered within a heartbeat is as good as lost; the next one tries on a new connection.
            let outcome = tokio::time::timeout(beat, leases::beat(&self.0.app, &mut connection, session)).await;
            match outcome {
                Ok(Ok(Beat::Renewed(now))) => {
                    last_good = started;
                    self.0.app.clock.align(now, started + started.elapsed() / 2);
                }
                Ok(Ok(Beat::Lost)) => self.lose(&executions, "the database says that it has expired"),
                Ok(Err(_)) | Err(_) => connection = None,
            }
            if self.current().is_some() && last_good.elapsed() + beat > lease {
                self.lose(&executions, "it could not be renewed in time");
            }
        }
    }

    fn lose(&self, executions: &Executions, why: &str) {
        tracing::error!(why, runs = executions.len(), "this worker's lease is lost: it stops what it does and writes nothing");
        self.0.session.send_replace(None);
        executions.stop_all(&Stop::LeaseLost);
        metrics::counter!("runmill_worker_fenced_total").increment(1);
    }

    /// A lost session is never renewed: a new one takes its place once the database answers.
    async fn renew_from_nothing(&self) -> Option<Instant> {
        let started = Instant::now();
        let opened = tokio::time::timeout(Duration::from_secs(5), leases::open(&self.0.app)).await;
        let id = opened.ok()?.ok()?;
        self.0.session.send_replace(Some(id));
        Some(started)
    }
}
