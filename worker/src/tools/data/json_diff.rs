//! `json_diff`: what makes one JSON document of another.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::{
    Tool,
    function::{Spec, function, object},
};

#[derive(Deserialize)]
struct Arguments {
    a: Value,
    b: Value,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "json_diff",
        category: "data",
        description: "Compares two JSON documents: a JSON Patch (RFC 6902) that turns a into b, empty when they are the same. Arrays are compared \
                      place by place.",
        parameters: object(
            json!({"a": {"description": "any JSON, before"}, "b": {"description": "any JSON, after"}}),
            &["a", "b"],
        ),
        output: object(
            json!({"equal": {"type": "boolean"}, "patch": {"type": "array", "items": {"type": "object"}}}),
            &["equal", "patch"],
        ),
    };
    function(spec, |arguments: Arguments| {
        let patch = json_patch::diff(&arguments.a, &arguments.b);
        Ok(json!({"equal": patch.0.is_empty(), "patch": patch}))
    })
}
