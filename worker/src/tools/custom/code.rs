//! A user's tool of the kind `code`: JavaScript in the sandbox, whose result is the tool's.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runmill_shared::{
    Error, Result,
    domain::tool::{
        CustomTool,
        code::{CodeConfig, check_code_config},
    },
};
use serde_json::{Value, json};

use crate::{
    sandbox::{Limits, Sandbox},
    tools::{Tool, ToolContext, ToolError},
};

/// QuickJS itself needs this much.
const LEAST_MEMORY: u64 = 4 << 20;

struct CodeTool {
    sandbox: Sandbox,
    definition: CustomTool,
    code: String,
    limits: Limits,
}

/// # Errors
/// `Invalid`, naming each bad field of its config.
pub fn code_tool(sandbox: &Sandbox, definition: CustomTool) -> Result<Arc<dyn Tool>> {
    let problems = check_code_config(&definition.config);
    if !problems.is_empty() {
        return Err(Error::invalid_fields(problems));
    }
    let config: CodeConfig = serde_json::from_value(definition.config.clone())?;
    let limits = capped(sandbox.limits(), &config);
    Ok(Arc::new(CodeTool { sandbox: sandbox.clone(), definition, code: config.code, limits }))
}

/// What the tool asks for, and no more than the settings allow.
fn capped(most: Limits, config: &CodeConfig) -> Limits {
    let timeout = config.timeout_ms.map_or(most.timeout, Duration::from_millis).min(most.timeout);
    let memory = config.memory_mb.map_or(most.memory_bytes, |mb| (mb << 20).max(LEAST_MEMORY));
    Limits { timeout, memory_bytes: memory.min(most.memory_bytes), ..most }
}

#[async_trait]
impl Tool for CodeTool {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn category(&self) -> &str {
        &self.definition.category
    }

    fn description(&self) -> &str {
        &self.definition.description
    }

    fn parameters(&self) -> Value {
        self.definition.input_schema.clone()
    }

    fn output(&self) -> Value {
        self.definition.output_schema.clone().unwrap_or_else(|| json!({}))
    }

    fn is_limited(&self) -> bool {
        true
    }

    /// It computes, and reaches nothing.
    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, _cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        Ok(self.sandbox.run_code(&self.code, &arguments, self.limits).await?.result)
    }
}
