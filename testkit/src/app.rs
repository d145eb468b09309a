//! A whole Runmill without its HTTP part, in the test's own process: the services, a worker, and what a test wants to know of them.
use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::TryFutureExt;
use runmill_shared::{
    App,
    config::{Config, Secret},
    domain::{
        caller::{Caller, Scope},
        event::Event,
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{Run, RunKind},
        run_input::{RunInput, RunOptions},
    },
    services::{
        runs::{
            accept::{self, Accepted, Work},
            control,
        },
        stream::{self, From, Item},
    },
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use crate::{database::TestDatabase, model_server::ModelServer};

/// How long a test waits for what should come at once.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct TestApp {
    pub app: App,
    pub caller: Caller,
    database: TestDatabase,
    worker: Option<TestWorker>,
}

/// A worker in the test's process; dropped, it dies.
pub struct TestWorker {
    task: JoinHandle<runmill_shared::Result<()>>,
    shutdown: CancellationToken,
}

/// What a dead worker held is taken over soon, and yet a worker on a busy machine keeps its lease.
pub fn quick_recovery(config: &mut Config) {
    config.worker.reconcile = Duration::from_millis(50);
    config.worker.heartbeat = Duration::from_millis(300);
    config.worker.lease = Duration::from_millis(1500);
}

impl TestWorker {
    pub fn start(app: &App) -> Self {
        let shutdown = CancellationToken::new();
        let run = runmill_worker::run(app.clone(), shutdown.clone());
        // A test that waits for what this worker should do would not say why it waits in vain.
        let run = run.inspect_err(|e| eprintln!("the worker ended: {e:?}"));
        #[expect(clippy::disallowed_methods, reason = "the test joins it")]
        let task = tokio::spawn(run);
        Self { task, shutdown }
    }

    /// As SIGTERM does; returns when it holds nothing any more.
    pub async fn drain(mut self) -> Result<()> {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, &mut self.task).await.context("the worker did not drain")???;
        Ok(())
    }

    /// As a crash does: nothing is put back, and the lease is not given up.
    pub async fn kill(mut self) {
        self.task.abort();
        (&mut self.task).await.ok();
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestApp {
    /// On a database of its own, with settings changed by `tweak`, and one worker.
    pub async fn start(database: TestDatabase, tweak: impl FnOnce(&mut Config)) -> Result<Self> {
        // With RUST_LOG set, a test tells what its parts log.
        tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer().try_init().ok();
        let mut config = database.config();
        tweak(&mut config);
        let app = App::open(config).await?;
        stream::watch(&app);
        let mut this = Self { app, caller: Caller::local(), database, worker: None };
        this.start_worker();
        Ok(this)
    }

    pub fn name(&self) -> &'static str {
        self.database.name()
    }

    /// With a scripted model as the default one.
    pub async fn with_model(database: TestDatabase, model: &ModelServer, tweak: impl FnOnce(&mut Config)) -> Result<Self> {
        let with = |config: &mut Config| {
            config.models.openai_base_url = model.base_url();
            config.models.openai_api_key = Secret::new("sk-test");
            config.models.default = "openai:test".into();
            tweak(config);
        };
        Self::start(database, with).await
    }

    /// The handles of another process on the same database: what this one has in memory, it does not see.
    pub async fn another(&self) -> Result<App> {
        Ok(App::open((*self.app.config).clone()).await?)
    }

    pub fn start_worker(&mut self) {
        self.worker = Some(TestWorker::start(&self.app));
    }

    /// Drains the worker, as SIGTERM does.
    pub async fn stop_worker(&mut self) -> Result<()> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        worker.drain().await
    }

    /// The worker dies.
    pub async fn kill_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill().await;
        }
    }

    /// Accepts a user's message as an agent run; `options` say how.
    pub async fn say(&self, thread: &str, text: &str, options: RunOptions) -> Result<Accepted> {
        let message = NewMessage { id: new_id().to_string(), role: MessageRole::User, body: MessageBody::text(text) };
        self.submit(thread, vec![message], options).await
    }

    pub async fn submit(&self, thread: &str, messages: Vec<NewMessage>, options: RunOptions) -> Result<Accepted> {
        let run = format!("run-{}", new_id());
        let input = RunInput {
            thread_id: thread.to_owned(),
            run_id: run.clone(),
            messages: Vec::new(),
            state: None,
            tools: Vec::new(),
            context: Vec::new(),
            forwarded_props: serde_json::Value::Null,
            parent_run_id: None,
            options: options.clone(),
        };
        self.accept(input, messages).await
    }

    pub async fn accept(&self, input: RunInput, messages: Vec<NewMessage>) -> Result<Accepted> {
        let work = Work {
            kind: RunKind::Agent,
            thread: input.thread_id.clone(),
            listed: true,
            run: input.run_id.clone(),
            input: serde_json::to_string(&input)?,
            hash: input.run_id.clone(),
            idempotency_key: None,
            messages,
            priority: input.options.priority,
            run_at: input.options.run_at,
            multitask: input.options.multitask,
            agent_id: input.options.agent_id.clone(),
            model: input.options.model.clone(),
            retry_of: None,
            watcher: None,
            trace: None,
        };
        Ok(accept::accept(&self.app, self.caller.can(Scope::Write)?, &work).await?)
    }

    pub async fn run(&self, id: Uuid) -> Result<Run> {
        Ok(control::get(&self.app, &self.caller, id).await?)
    }

    /// Follows a thread from its first event until `done`, or until nothing can come any more; the log must have no hole.
    pub async fn events_until(&self, thread: &str, done: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        let mut follow = stream::follow(&self.app, &self.caller, thread, From::After(0)).await?;
        let mut events: Vec<Event> = Vec::new();
        loop {
            let next = tokio::time::timeout(DEADLINE, follow.next()).await;
            let next = next.with_context(|| format!("nothing came after {:?}", events.last()))??;
            match next {
                Some(Item::Event(event)) => {
                    ensure!(event.seq == events.last().map_or(1, |e| e.seq + 1), "a hole before {event:?}");
                    let last = done(&event);
                    events.push(Arc::unwrap_or_clone(event));
                    if last {
                        return Ok(events);
                    }
                }
                Some(Item::Gap { from, to }) => anyhow::bail!("a gap from {from} to {to}"),
                None => return Ok(events),
            }
        }
    }

    /// All events of a thread, once every run of it has ended.
    pub async fn events(&self, thread: &str) -> Result<Vec<Event>> {
        self.events_until(thread, |_| false).await
    }
}
