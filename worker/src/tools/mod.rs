//! Tools that run on the worker: THE list, and the one way to call them. What a tool refuses or fails at is data for the model,
//! never an error of the run.
mod calculator;
mod http_request;
mod now;
mod output;
pub mod ssrf;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jsonschema::Validator;
use runmill_shared::{Error, Result, clock::Clock, config::Config};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Problems and messages are cut here: a model gains nothing from more.
const MAX_MESSAGE_BYTES: usize = 2048;

#[async_trait]
pub trait Tool: Send + Sync {
    fn name(&self) -> &'static str;

    /// What it does and when to use it, as the model reads it.
    fn description(&self) -> &'static str;

    /// JSON Schema of the arguments: an object, closed to keys that it does not name.
    fn parameters(&self) -> Value;

    /// Whether a call with these arguments may run again after a crash under the same step key.
    fn idempotent(&self, _arguments: &Value) -> bool {
        false
    }

    /// `arguments` satisfy `parameters`. Dropping the future must stop the work.
    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError>;
}

#[derive(Clone)]
pub struct ToolContext {
    /// The journal's key of this call: the same when it is made again after a crash.
    pub step_key: String,
    pub clock: Clock,
    pub cancel: CancellationToken,
    pub timeout: Duration,
    /// Of the result as JSON text.
    pub max_output_bytes: usize,
}

/// What the model is told: the code is stable, the message is for it to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolError {
    pub code: &'static str,
    pub message: String,
}

impl ToolError {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
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

struct Entry {
    tool: Arc<dyn Tool>,
    arguments: Validator,
}

/// Tools by name, with their schemas compiled. A clone is cheap.
#[derive(Clone)]
pub struct Tools(Arc<BTreeMap<&'static str, Entry>>);

impl Tools {
    /// The list. A new tool is one line here and one file beside this one.
    ///
    /// # Errors
    /// `Invalid` when `security.allow_private_hosts` has an entry that is no host.
    pub fn builtin(config: &Config) -> Result<Self> {
        Self::new(vec![
            Arc::new(now::Now),
            Arc::new(calculator::Calculator),
            Arc::new(http_request::HttpRequest::new(&config.security)?),
        ])
    }

    /// # Errors
    /// `Internal` when a tool's schema is no JSON Schema.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Result<Self> {
        let entry = |tool: Arc<dyn Tool>| {
            let arguments = jsonschema::validator_for(&tool.parameters()).map_err(|e| Error::internal(e.to_string()))?;
            Ok((tool.name(), Entry { tool, arguments }))
        };
        Ok(Self(Arc::new(tools.into_iter().map(entry).collect::<Result<_>>()?)))
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.0.get(name).map(|entry| Arc::clone(&entry.tool))
    }

    /// Name, description and schema of those of `names` that are here, in their order.
    pub fn specs(&self, names: &[String]) -> Vec<(&'static str, &'static str, Value)> {
        let found = names.iter().filter_map(|name| self.0.get(name.as_str()));
        found.map(|Entry { tool, .. }| (tool.name(), tool.description(), tool.parameters())).collect()
    }

    /// Validates, runs within the context's timeout until it is cancelled, and cuts the result to its size. An output that was cut
    /// says `truncated: true`.
    ///
    /// # Errors
    /// `UNKNOWN_TOOL`, `INVALID_ARGUMENTS` (all problems at once), `TIMEOUT`, `CANCELLED`, or the tool's own.
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
        let known: Vec<_> = self.0.keys().copied().collect();
        ToolError::new("UNKNOWN_TOOL", format!("there is no tool named {name:?}; there are {}", known.join(", ")))
    }
}

impl Entry {
    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        self.validate(&arguments)?;
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(ToolError::new("CANCELLED", "the run was cancelled")),
            () = tokio::time::sleep(cx.timeout) => {
                Err(ToolError::new("TIMEOUT", format!("no result after {:?}", cx.timeout)))
            }
            result = self.tool.call(cx, arguments) => result,
        }
    }

    fn validate(&self, arguments: &Value) -> Result<(), ToolError> {
        let problems: Vec<_> = self
            .arguments
            .iter_errors(arguments)
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
