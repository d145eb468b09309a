//! THE list of job kinds, and what is the same for all: claim, execute, and end as the run's policy says.
mod agent_run;
mod transcription;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use rand::Rng;
use runmill_shared::{
    App, Error, Result,
    domain::{
        Lane,
        event::NewEvent,
        run::{Claimed, RunError, RunKind, RunState},
    },
    queue::Hint,
    services::runs::execution::{self, End},
    telemetry,
};
use tracing::Instrument;

use crate::{
    asr::Asr,
    engine::{Failure, Left, Recorder},
    executions::{Entry, Executions, Stop},
    lanes::{Handle, Outcome},
    lease::Leases,
    tools::Tools,
};

/// What every job is given.
pub struct Jobs {
    app: App,
    recorder: Recorder,
    executions: Executions,
    leases: Leases,
    tools: Tools,
    asr: Asr,
}

impl Jobs {
    pub fn new(app: &App, recorder: Recorder, executions: Executions, leases: Leases) -> Result<Self> {
        let (tools, asr) = (Tools::builtin(&app.config)?, Asr::from_config(&app.config)?);
        Ok(Self { app: app.clone(), recorder, executions, leases, tools, asr })
    }

    /// One line a kind. Boxed: the compiler need not know how large the largest job is.
    fn execute<'a>(&'a self, run: &'a Arc<Claimed>) -> BoxFuture<'a, Result<Left, Failure>> {
        match run.kind {
            RunKind::Agent => agent_run::execute(self, run).boxed(),
            RunKind::Transcription => transcription::execute(self, run).boxed(),
        }
    }

    /// Executes until the end, the run's time limit, or a stop.
    async fn attend(&self, run: &Arc<Claimed>, entry: &mut Entry) -> Result<(), Failure> {
        let left = run.run_deadline.since(self.app.clock.now());
        let work = AssertUnwindSafe(self.execute(run)).catch_unwind();
        let outcome = tokio::select! {
            biased;
            stop = entry.stopped() => return self.stopped(run, stop).await,
            outcome = tokio::time::timeout(left, work) => outcome,
        };
        match outcome {
            Ok(Ok(Ok(Left::Ended | Left::Parked))) => Ok(()),
            Ok(Ok(Err(Failure::Run { error, retry_after }))) => self.fail(run, error, retry_after).await,
            Ok(Ok(Err(other))) => Err(other),
            Ok(Err(_panic)) => {
                tracing::error!(run = %run.id, "an execution panicked");
                self.fail(run, RunError::new("PANIC", "the execution failed unexpectedly", true), None).await
            }
            Err(_elapsed) => self.fail(run, RunError::new("RUN_TIMEOUT", "the run took too long", false), None).await,
        }
    }

    async fn stopped(&self, run: &Arc<Claimed>, stop: Stop) -> Result<(), Failure> {
        match stop {
            Stop::Ended | Stop::LeaseLost => Err(Failure::Lost),
            Stop::Unwritable(error) => {
                self.recorder.take(run.id).await;
                self.fail(run, error, None).await
            }
            Stop::Drain => {
                self.recorder.commit(run, execution::Writes::default()).await?;
                Ok(execution::release(&self.app, run).await?)
            }
        }
    }

    /// Tries again later, or ends the run, as its policy says.
    async fn fail(&self, run: &Claimed, error: RunError, retry_after: Option<Duration>) -> Result<(), Failure> {
        let mut last = self.recorder.take(run.id).await;
        let delay = error.retryable.then(|| run.policy.delay(run.attempt + 1, rand::rng().random(), retry_after)).flatten();
        if let Some(delay) = delay {
            tracing::info!(code = error.code, ?delay, "the run is tried again");
            return Ok(execution::back_off(&self.app, run, &error, delay, last).await?);
        }
        tracing::info!(code = error.code, "the run failed");
        last.events.extend(execution::half_said(&self.app, run).await?);
        last.events.push(NewEvent::failed(&error, false));
        let end = End { state: RunState::Failed, result: None, error: Some(&error), usage: None };
        Ok(execution::end(&self.app, run, end, last).await?)
    }
}

#[async_trait]
impl Handle for Jobs {
    async fn handle(&self, hint: Hint, lane: Lane) -> Result<Outcome> {
        let Some(mut entry) = self.executions.claim(hint.run_id) else { return Ok(Outcome::Done) };
        let session = self.leases.session().await;
        let Some(run) = execution::claim(&self.app, hint.run_id, session).await? else {
            return Ok(Outcome::Done);
        };
        entry.begin(run.fence);
        let waited = self.app.clock.now().since(run.ready_at);
        metrics::histogram!("runmill_pickup_seconds", "lane" => lane.as_str()).record(waited);
        let run = Arc::new(run);
        let span = tracing::info_span!("run", run = %run.id, kind = run.kind.as_str(), attempt = run.attempt + 1, trace_id = tracing::field::Empty);
        telemetry::continue_from(run.trace.as_deref(), &span);
        match self.attend(&run, &mut entry).instrument(span).await {
            Ok(()) | Err(Failure::Lost) => {}
            // The row still says that this worker has it; the reconciler gives it back.
            Err(Failure::Unavailable(e)) => tracing::warn!(run = %run.id, error = %e, "left to the reconciler"),
            Err(Failure::Run { error, .. }) => {
                return Err(Error::internal(format!("run {} could not be ended: {}", run.id, error.message)));
            }
        }
        Ok(Outcome::Done)
    }
}
