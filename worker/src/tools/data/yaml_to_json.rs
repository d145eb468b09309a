//! `yaml_to_json`: YAML 1.2. Aliases are counted as what they stand for, so a few lines cannot become a billion values.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::MAX_TEXT;
use crate::{
    tools::{
        Tool, ToolError,
        function::{Spec, function, object, text},
    },
    yaml,
};

/// Bytes, once its aliases are expanded.
const MAX_EXPANDED: usize = 4 * MAX_TEXT;

#[derive(Deserialize)]
struct Arguments {
    yaml: String,
    #[serde(default)]
    all_documents: bool,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "yaml_to_json",
        category: "data",
        description: "Reads YAML 1.2 as JSON. Aliases are resolved; a key that comes twice is an error. all_documents: true reads documents between \
                      --- as an array.",
        parameters: object(
            json!({
                "yaml": text(MAX_TEXT, "YAML"),
                "all_documents": {"type": "boolean", "description": "data is an array of all documents; false when left out"},
            }),
            &["yaml"],
        ),
        output: object(json!({"data": {}}), &["data"]),
    };
    function(spec, |arguments: Arguments| read(&arguments))
}

fn read(arguments: &Arguments) -> Result<Value, ToolError> {
    let data = if arguments.all_documents {
        yaml::parse_all(&arguments.yaml, MAX_EXPANDED).map(Value::Array)
    } else {
        yaml::parse(&arguments.yaml, MAX_EXPANDED)
    };
    Ok(json!({"data": data.map_err(|e| ToolError::new("INVALID_YAML", e))?}))
}
