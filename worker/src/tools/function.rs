//! Tools that are functions of their arguments: they read nothing, change nothing, and end by themselves.
use std::{io, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, parse};

/// Of the arguments as JSON text. With the bounds of each tool it bounds the work of one call.
const MAX_ARGUMENT_BYTES: usize = 1 << 20;

/// What the model and the list of tools are told.
pub struct Spec {
    pub name: &'static str,
    pub category: &'static str,
    pub description: &'static str,
    /// JSON Schemas, as `Tool` has them.
    pub parameters: Value,
    pub output: Value,
}

type Run = dyn Fn(Value, DateTime<Utc>) -> Result<Value, ToolError> + Send + Sync;

pub struct Function {
    spec: Spec,
    run: Arc<Run>,
}

/// A tool whose answer follows from its arguments (or from chance).
pub fn function<A: DeserializeOwned + 'static>(
    spec: Spec,
    run: impl Fn(A) -> Result<Value, ToolError> + Send + Sync + 'static,
) -> Arc<dyn Tool> {
    timed(spec, move |arguments, _| run(arguments))
}

/// The same, of the time as well.
pub fn timed<A: DeserializeOwned + 'static>(
    spec: Spec,
    run: impl Fn(A, DateTime<Utc>) -> Result<Value, ToolError> + Send + Sync + 'static,
) -> Arc<dyn Tool> {
    let run = Arc::new(move |arguments: Value, now| run(parse(arguments)?, now));
    Arc::new(Function { spec, run })
}

/// The schema of an object that is closed to other keys.
pub fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// The schema of a text of at most `max` characters.
pub fn text(max: usize, description: &str) -> Value {
    json!({"type": "string", "maxLength": max, "description": description})
}

/// Whether the JSON text of `value` has more than `max` bytes.
pub fn exceeds(value: &Value, max: usize) -> bool {
    struct Budget(usize);
    impl io::Write for Budget {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Budget(max), value).is_err()
}

#[async_trait]
impl Tool for Function {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn category(&self) -> &str {
        self.spec.category
    }

    fn description(&self) -> &str {
        self.spec.description
    }

    fn parameters(&self) -> Value {
        self.spec.parameters.clone()
    }

    fn output(&self) -> Value {
        self.spec.output.clone()
    }

    /// Nothing happens twice when it is called twice; a result that was journaled stays.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    /// Works on a thread of its own. A call that nobody waits for any more ends by itself: its work is bounded.
    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        if exceeds(&arguments, MAX_ARGUMENT_BYTES) {
            return Err(ToolError::new("INPUT_TOO_LARGE", format!("the arguments have more than {MAX_ARGUMENT_BYTES} bytes")));
        }
        let (run, now) = (Arc::clone(&self.run), cx.clock.now().utc());
        let work = tokio::task::spawn_blocking(move || run(arguments, now));
        work.await.unwrap_or_else(|e| {
            tracing::error!(tool = self.spec.name, error = %e, "a tool panicked");
            Err(ToolError::new("TOOL_FAILED", "the tool cannot work with this input"))
        })
    }
}
