//! Tools that run on the worker: THE list, and the one way to call them. What a tool refuses or fails at is data for the model,
//! never an error of the run.
mod code_run;
pub mod custom;
mod data;
mod encoding;
mod files;
mod function;
mod maths;
mod memory;
mod operations;
mod output;
mod planning;
pub mod ssrf;
mod text;
mod time;
mod transcribe_audio;
pub mod web;

pub(crate) use output::prefix;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jsonschema::Validator;
use runmill_shared::{
    App, Error, Result,
    clock::Clock,
    config::Config,
    domain::{
        caller::Owner,
        chat::ToolSpec,
        run::Claimed,
        tool::{ToolDescriptor, schema},
    },
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::custom::Means;
use crate::{asr::Asr, sandbox::Sandbox};

/// Problems and messages are cut here: a model gains nothing from more.
const MAX_MESSAGE_BYTES: usize = 2048;
const MAX_PROBLEMS: usize = 50;

#[async_trait]
pub trait Tool: Send + Sync {
    fn name(&self) -> &str;

    /// What it is about: maths, time, text, data, encoding, web, files, audio, memory, agents, planning, operations; or the owner's own word.
    fn category(&self) -> &str;

    /// What it does and when to use it, as the model reads it.
    fn description(&self) -> &str;

    /// JSON Schema of the arguments: an object, closed to keys that it does not name.
    fn parameters(&self) -> Value;

    /// JSON Schema of a result that was not cut.
    fn output(&self) -> Value;

    /// Whether a call with these arguments may run again after a crash under the same step key.
    fn idempotent(&self, _arguments: &Value) -> bool {
        false
    }

    /// Whether its calls count against `tools.calls_per_minute` of the run's owner.
    fn is_limited(&self) -> bool {
        false
    }

    /// How long a call may take, where `tools.timeout` does not fit.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// `arguments` satisfy `parameters`. Dropping the future must stop the work.
    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError>;
}

#[derive(Clone)]
pub struct ToolContext {
    pub app: App,
    pub scope: ToolScope,
    /// The journal's key of this call: the same when it is made again after a crash.
    pub step_key: String,
    pub clock: Clock,
    pub cancel: CancellationToken,
    pub timeout: Duration,
    /// Of the result as JSON text.
    pub max_output_bytes: usize,
}

/// For whom a tool works: everything that it reads or writes is theirs.
#[derive(Clone, Debug)]
pub struct ToolScope {
    pub owner: Owner,
    pub run_id: Uuid,
    pub thread_id: Uuid,
    /// The client's name of the thread.
    pub thread: String,
    pub agent_id: Option<String>,
    /// What the run is about.
    pub goal_id: Option<Uuid>,
}

impl ToolScope {
    pub fn of(run: &Claimed) -> Self {
        Self {
            owner: Owner::of_row(&run.owner),
            run_id: run.id,
            thread_id: run.thread_id,
            thread: run.thread.clone(),
            agent_id: run.agent_id.clone(),
            goal_id: goal_of(&run.input),
        }
    }
}

/// Of an agent's run, or of the run of a task.
fn goal_of(input: &Value) -> Option<Uuid> {
    let options = input.get("agent").unwrap_or(input).get("options")?;
    options.get("goal_id")?.as_str()?.parse().ok()
}

/// What the model is told: the code is stable, the message is for it to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolError {
    pub code: Cow<'static, str>,
    pub message: String,
}

impl ToolError {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("INVALID_ARGUMENTS", message)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ToolError {}

fn descriptor(tool: &dyn Tool) -> ToolDescriptor {
    ToolDescriptor {
        name: tool.name().to_owned(),
        category: tool.category().to_owned(),
        description: tool.description().to_owned(),
        input_schema: tool.parameters(),
        output_schema: tool.output(),
    }
}

struct Entry {
    tool: Arc<dyn Tool>,
    arguments: Validator,
}

/// Tools by name, with their schemas compiled. A clone is cheap.
#[derive(Clone)]
pub struct Tools(Arc<BTreeMap<String, Arc<Entry>>>, Option<Means>);

const MINUTE: Duration = Duration::from_secs(60);

impl Tools {
    /// The list, with a sandbox and a transcriber of its own.
    ///
    /// # Errors
    /// `Invalid` when `security.allow_private_hosts` has an entry that is no host.
    pub fn builtin(config: &Config) -> Result<Self> {
        Self::of_worker(config, &Sandbox::new(&config.sandbox), &Asr::from_config(config)?)
    }

    /// The list. A new tool is one line here or in the `all` of its category, and one file beside that.
    ///
    /// # Errors
    /// As `builtin`.
    pub fn of_worker(config: &Config, sandbox: &Sandbox, asr: &Asr) -> Result<Self> {
        let mut all: Vec<Arc<dyn Tool>> =
            vec![Arc::new(code_run::CodeRun::new(sandbox)), Arc::new(memory::MemorySave), Arc::new(memory::MemorySearch)];
        let functions =
            [maths::all(), time::all(), text::all(), data::all(), encoding::all(), planning::all(), operations::all()];
        all.extend(functions.into_iter().flatten());
        all.extend(files::tools(sandbox));
        all.extend(transcribe_audio::tool(config, asr));
        let means = Means { web: web::Web::new(&config.security)?, sandbox: sandbox.clone() };
        all.extend(web::tools(config, &means.web)?);
        Ok(Self(Self::new(all)?.0, Some(means)))
    }

    /// # Errors
    /// `Internal` when a tool's schema is no JSON Schema.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Result<Self> {
        let entry = |tool: Arc<dyn Tool>| {
            let arguments = schema::compile(&tool.parameters()).map_err(Error::internal)?;
            Ok((tool.name().to_owned(), Arc::new(Entry { tool, arguments })))
        };
        Ok(Self(Arc::new(tools.into_iter().map(entry).collect::<Result<_>>()?), None))
    }

    /// These and more, which go before those of the same name.
    ///
    /// # Errors
    /// `Internal` when a schema is no JSON Schema.
    pub fn with(&self, more: Vec<Arc<dyn Tool>>) -> Result<Self> {
        if more.is_empty() {
            return Ok(self.clone());
        }
        let mut all = (*self.0).clone();
        all.extend((*Self::new(more)?.0).clone());
        Ok(Self(Arc::new(all), self.1.clone()))
    }

    /// What the tools of users work with: the same as the built-in ones, where there are such.
    ///
    /// # Errors
    /// `Invalid` when `security.allow_private_hosts` has an entry that is no host.
    pub fn means(&self, app: &App) -> Result<Means> {
        let made = || Ok(Means { web: web::Web::new(&app.config.security)?, sandbox: Sandbox::new(&app.config.sandbox) });
        self.1.clone().map_or_else(made, Ok)
    }

    pub fn descriptors(&self) -> Vec<ToolDescriptor> {
        self.0.values().map(|entry| descriptor(&*entry.tool)).collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.0.get(name).map(|entry| Arc::clone(&entry.tool))
    }

    /// As models see those of `names` that are here, in their order.
    pub fn specs(&self, names: &[String]) -> Vec<ToolSpec> {
        let found = names.iter().filter_map(|name| self.0.get(name.as_str()));
        let spec = |tool: &dyn Tool| ToolSpec {
            name: tool.name().to_owned(),
            description: tool.description().to_owned(),
            parameters: tool.parameters(),
        };
        found.map(|entry| spec(&*entry.tool)).collect()
    }

    /// Validates, runs within the context's timeout until it is cancelled, and cuts the result to its size. An output that was cut
    /// says `truncated: true`.
    ///
    /// # Errors
    /// `UNKNOWN_TOOL`, `INVALID_ARGUMENTS` (all problems at once), `RATE_LIMITED`, `TIMEOUT`, `CANCELLED`, or the tool's own.
    pub async fn call(&self, name: &str, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let outcome = match self.0.get(name) {
            Some(entry) => entry.call(cx, arguments).await,
            None => Err(self.unknown(name)),
        };
        match outcome {
            Ok(value) => Ok(output::limit(value, cx.max_output_bytes)),
            Err(e) => Err(ToolError { message: output::prefix(&e.message, MAX_MESSAGE_BYTES).to_owned(), ..e }),
        }
    }

    fn unknown(&self, name: &str) -> ToolError {
        let known: Vec<_> = self.0.keys().map(String::as_str).collect();
        ToolError::new("UNKNOWN_TOOL", format!("there is no tool named {name:?}; there are {}", known.join(", ")))
    }
}

impl Entry {
    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        self.validate(&arguments)?;
        self.count(cx).await?;
        let timeout = self.tool.timeout().unwrap_or(cx.timeout);
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(ToolError::new("CANCELLED", "the run was cancelled")),
            () = tokio::time::sleep(timeout) => {
                Err(ToolError::new("TIMEOUT", format!("no result after {timeout:?}")))
            }
            result = self.tool.call(cx, arguments) => result,
        }
    }

    async fn count(&self, cx: &ToolContext) -> Result<(), ToolError> {
        let limit = cx.app.config.tools.calls_per_minute;
        if limit == 0 || !self.tool.is_limited() {
            return Ok(());
        }
        let key = format!("tools:{}", cx.scope.owner.as_str());
        let taken = cx.app.limiter.take(&key, limit, MINUTE, &cx.app.clock).await;
        taken.map_err(|e| ToolError::new(e.code, e.message.into_owned()))
    }

    fn validate(&self, arguments: &Value) -> Result<(), ToolError> {
        let problems: Vec<_> = self
            .arguments
            .iter_errors(arguments)
            .take(MAX_PROBLEMS)
            .map(|e| match e.instance_path().as_str().trim_start_matches('/') {
                "" => e.to_string(),
                path => format!("{path}: {e}"),
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(ToolError::invalid(problems.join("; "))) }
    }
}

/// The arguments as a tool's own struct. The schema was checked before, so a mismatch is a schema that lags behind its struct.
fn parse<T: serde::de::DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|e| ToolError::invalid(e.to_string()))
}
