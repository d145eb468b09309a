//! THE list of job kinds, and what is the same for all: claim, execute, and end as the run's policy says.
mod agent_run;
mod delivery;
mod goal;
mod goal_plan;
mod memory_extraction;
mod model_test;
mod plugin_sync;
mod task;
mod team;
mod tool_call;
mod transcription;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use rand::Rng;
use runmill_shared::{
    App, Error, ErrorKind, Result,
    domain::{
        Lane,
        event::{NewEvent, kind},
        run::{Claimed, RunError, RunKind},
    },
    group::Group,
    queue::Hint,
    services::runs::execution::{self, Claim, Claims, End, Writes},
    telemetry,
};
use tracing::{Instrument, field::Empty};

use crate::{
    asr::Asr,
    deliveries::Deliveries,
    engine::{Failure, Left, Recorder},
    executions::{Entry, Executions, Stop},
    lanes::{Handle, Outcome},
    lease::Leases,
    sandbox::Sandbox,
    tools::Tools,
};

/// How long a drained run waits until what it has said is written.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Statements that claim, on their way at once, and what one of them claims at most.
const CLAIMS_AT_ONCE: usize = 2;
const CLAIMS: usize = 64;

/// What every job is given.
pub struct Jobs {
    app: App,
    recorder: Recorder,
    executions: Executions,
    leases: Leases,
    claims: Group<Claims>,
    tools: Tools,
    asr: Asr,
    deliveries: Deliveries,
}

impl Jobs {
    pub fn new(app: &App, recorder: Recorder, executions: Executions, leases: Leases) -> Result<Self> {
        let (sandbox, asr) = (Sandbox::new(&app.config.sandbox), Asr::from_config(&app.config)?);
        let tools = Tools::of_worker(&app.config, &sandbox, &asr)?;
        let deliveries = Deliveries::open(app, tools.means(app)?.web)?;
        let claims = Group::new(Claims(app.clone()), CLAIMS_AT_ONCE, CLAIMS);
        Ok(Self { app: app.clone(), recorder, executions, leases, claims, tools, asr, deliveries })
    }

    /// One line a kind. Boxed: the compiler need not know how large the largest job is.
    fn execute<'a>(&'a self, run: &'a Arc<Claimed>) -> BoxFuture<'a, Result<Left, Failure>> {
        match run.kind {
            RunKind::Agent => agent_run::execute(self, run).boxed(),
            RunKind::Transcription => transcription::execute(self, run).boxed(),
            RunKind::Team => team::execute(self, run).boxed(),
            RunKind::GoalPlan => goal_plan::execute(self, run).boxed(),
            RunKind::Goal => goal::execute(self, run).boxed(),
            RunKind::Task => task::execute(self, run).boxed(),
            RunKind::ToolCall => tool_call::execute(self, run).boxed(),
            RunKind::ModelTest => model_test::execute(self, run).boxed(),
            RunKind::PluginSync => plugin_sync::execute(self, run).boxed(),
            RunKind::MemoryExtraction => memory_extraction::execute(self, run).boxed(),
            RunKind::Delivery => delivery::execute(self, run).boxed(),
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
            Stop::Ended | Stop::LeaseLost => {
                self.recorder.forget(run);
                Err(Failure::Lost)
            }
            Stop::Unwritable(error) => {
                self.recorder.take(run.id).await;
                self.fail(run, error, None).await
            }
            Stop::Drain => {
                let said = self.recorder.commit(run, Writes::default());
                // A process that has to stop does not wait for a database that is away: the lease lapses by itself.
                if let Ok(outcome) = tokio::time::timeout(DRAIN_PATIENCE, said).await {
                    outcome?;
                }
                Ok(execution::release(&self.app, run).await?)
            }
        }
    }

    /// Tries again later, or ends the run, as its policy says.
    async fn fail(&self, run: &Claimed, error: RunError, retry_after: Option<Duration>) -> Result<(), Failure> {
        let delay = error.retryable.then(|| run.policy.delay(run.attempt + 1, rand::rng().random(), retry_after)).flatten();
        let last = self.recorder.take(run.id).await;
        match self.leave_failed(run, &error, delay, last).await {
            // What it said last is what cannot be written: the failure must not hang on it.
            Err(e) if e.kind == ErrorKind::Internal => {
                tracing::error!(error = %e, "a run fails without its last words");
                Ok(self.leave_failed(run, &error, delay, Writes::default()).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn leave_failed(&self, run: &Claimed, error: &RunError, delay: Option<Duration>, mut last: Writes) -> Result<()> {
        if let Some(delay) = delay {
            tracing::info!(code = error.code, ?delay, "the run is tried again");
            return execution::back_off(&self.app, run, error, delay, last).await;
        }
        last.events.extend(half_said(&self.app, run, &last).await?);
        tracing::info!(code = error.code, "the run failed");
        last.events.push(NewEvent::failed(error, false));
        execution::end(&self.app, run, End::failed(error.clone()), last).await
    }
}

#[async_trait]
impl Handle for Jobs {
    async fn handle(&self, hint: Hint, lane: Lane) -> Result<Outcome> {
        // The hint of a run that is leaving is kept by its entry.
        let Some(mut entry) = self.executions.claim(hint.run_id) else { return Ok(Outcome::Done) };
        let session = tokio::select! {
            biased;
            _ = entry.stopped() => return Ok(Outcome::PutBack),
            session = self.leases.session() => session,
        };
        let Some(run) = self.claims.ask(Claim { run: hint.run_id, session }).await? else {
            return Ok(Outcome::Done);
        };
        entry.begin(run.fence, run.paused);
        let waited = self.app.clock.now().since(run.ready_at);
        metrics::histogram!("runmill_pickup_seconds", "lane" => lane.as_str()).record(waited);
        let run = Arc::new(run);
        let span =
            tracing::info_span!("run", run = %run.id, kind = run.kind.as_str(), attempt = run.attempt + 1, trace_id = Empty);
        telemetry::continue_from(run.trace.as_deref(), &span);
        let outcome = self.attend(&run, &mut entry).instrument(span).await;
        if run.kind == RunKind::Transcription {
            transcription::tidy(self, &run).await;
        }
        match outcome {
            Ok(()) | Err(Failure::Lost) => {}
            // The row still says that this worker has it; the reconciler gives it back.
            Err(Failure::Unavailable(e)) => tracing::warn!(run = %run.id, error = %e, "left to the reconciler"),
            Err(Failure::Run { error, .. }) => {
                return Err(Error::internal(format!("run {} could not be ended: {}", run.id, error.message)));
            }
        }
        Ok(if entry.leave() { Outcome::PutBack } else { Outcome::Done })
    }
}

/// What closes an answer that would stay open once `last` is written.
async fn half_said(app: &App, run: &Claimed, last: &Writes) -> Result<Option<NewEvent>> {
    let mut open = execution::open_message(app, run).await?;
    for event in &last.events {
        let message = event.data["messageId"].as_str();
        match event.kind {
            kind::MESSAGE_STARTED => open = message.map(str::to_owned),
            kind::MESSAGE_FINISHED if open.as_deref() == message => open = None,
            _ => {}
        }
    }
    Ok(open.map(|id| NewEvent::discarded(&id)))
}
