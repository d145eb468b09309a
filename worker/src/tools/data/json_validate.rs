//! `json_validate`: a document against a JSON Schema.
use std::sync::Arc;

use jsonschema::PatternOptions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{measure, schema_cost};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, exceeds, function, object},
};

const MAX_SCHEMA_BYTES: usize = 100_000;
const MAX_PROBLEMS: usize = 100;
/// Values of the document times schemas that can apply to one.
const MAX_WORK: usize = 20_000_000;
const MAX_PATTERN_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Arguments {
    data: Value,
    schema: Value,
}

pub fn tool() -> Arc<dyn Tool> {
    let problem = object(json!({"path": {"type": "string"}, "message": {"type": "string"}}), &["path", "message"]);
    let spec = Spec {
        name: "json_validate",
        category: "data",
        description: "Checks a JSON document against a JSON Schema (draft 2020-12 unless $schema says another) and tells all problems with their \
                      place as a JSON pointer. References stay inside the schema: #/$defs/name.",
        parameters: object(
            json!({"data": {"description": "any JSON"}, "schema": {"type": ["object", "boolean"], "description": "JSON Schema"}}),
            &["data", "schema"],
        ),
        output: object(
            json!({
                "valid": {"type": "boolean"}, "errors": {"type": "array", "items": problem},
                "more": {"type": "boolean", "description": "there are more problems than are told"},
            }),
            &["valid", "errors", "more"],
        ),
    };
    function(spec, |arguments: Arguments| validate(&arguments))
}

fn validate(arguments: &Arguments) -> Result<Value, ToolError> {
    if exceeds(&arguments.schema, MAX_SCHEMA_BYTES) {
        return Err(ToolError::new("INPUT_TOO_LARGE", format!("the schema has more than {MAX_SCHEMA_BYTES} bytes")));
    }
    let invalid = |e: String| ToolError::new("INVALID_SCHEMA", e);
    let (size, depth) = measure(&arguments.data);
    let cost = schema_cost::of(&arguments.schema, depth).map_err(invalid)?;
    if cost.saturating_mul(size) > MAX_WORK {
        return Err(ToolError::new("TOO_COMPLEX", "the schema's references multiply; it would take too long on this document"));
    }
    let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
    let validator =
        jsonschema::options().with_pattern_options(patterns).build(&arguments.schema).map_err(|e| invalid(e.to_string()))?;
    let mut problems = validator.iter_errors(&arguments.data);
    let errors: Vec<_> = problems
        .by_ref()
        .take(MAX_PROBLEMS)
        .map(|e| json!({"path": e.instance_path().as_str(), "message": crate::tools::output::prefix(&e.to_string(), 500)}))
        .collect();
    Ok(json!({"valid": errors.is_empty(), "errors": errors, "more": problems.next().is_some()}))
}
