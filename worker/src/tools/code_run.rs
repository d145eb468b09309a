//! `code_run`: JavaScript that a model writes, in the sandbox.
use async_trait::async_trait;
use runmill_shared::domain::tool::code::MAX_CODE_BYTES;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, parse};
use crate::sandbox::Sandbox;

pub struct CodeRun {
    sandbox: Sandbox,
}

#[derive(Deserialize)]
struct Arguments {
    code: String,
    #[serde(default)]
    input: Value,
}

impl CodeRun {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self { sandbox: sandbox.clone() }
    }
}

#[async_trait]
impl Tool for CodeRun {
    fn name(&self) -> &str {
        "code_run"
    }

    fn category(&self) -> &str {
        "operations"
    }

    fn description(&self) -> &str {
        "Runs JavaScript and answers with what it returns. The code is the body of an async function of `input` and has to `return` a \
         value that JSON has. It can compute and nothing else: there is no fetch, require, process, file or timer. What console.log is \
         given is in `logs`."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "code": {
                    "type": "string", "minLength": 1, "maxLength": MAX_CODE_BYTES,
                    "description": "for example: return input.numbers.reduce((sum, n) => sum + n, 0)",
                },
                "input": {"description": "any JSON; null when left out"},
            },
            "required": ["code"],
            "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["result", "logs"],
            "properties": {"result": {}, "logs": {"type": "array", "items": {"type": "string"}}, "truncated": {"type": "boolean"}},
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, _cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { code, input } = parse(arguments)?;
        let output = self.sandbox.run_code(&code, &input, self.sandbox.limits()).await?;
        Ok(json!({"result": output.result, "logs": output.logs}))
    }
}
