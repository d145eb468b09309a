//! `json_merge`: JSON Merge Patch.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::{
    Tool,
    function::{Spec, function, object},
};

#[derive(Deserialize)]
struct Arguments {
    base: Value,
    patch: Value,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "json_merge",
        category: "data",
        description: "Merges a patch into a JSON document (RFC 7386): objects are merged key by key, null removes a key, all else replaces.",
        parameters: object(
            json!({"base": {"description": "any JSON"}, "patch": {"description": "any JSON; what it leaves out stays"}}),
            &["base", "patch"],
        ),
        output: object(json!({"result": {}}), &["result"]),
    };
    function(spec, |arguments: Arguments| {
        let mut result = arguments.base;
        json_patch::merge(&mut result, &arguments.patch);
        Ok(json!({"result": result}))
    })
}
