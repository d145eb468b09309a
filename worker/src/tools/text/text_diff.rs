//! `text_diff`: a unified diff.
use std::{fmt::Write, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::{MAX_RESULT, result_too_large};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
    maths::number,
};

const MAX_TEXT: usize = 250_000;
/// Past it the diff is right, and longer than it need be.
const TIME: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Arguments {
    a: String,
    b: String,
    #[serde(default = "three")]
    context: usize,
}

fn three() -> usize {
    3
}

pub fn tool() -> Arc<dyn Tool> {
    let count = json!({"type": "integer"});
    let spec = Spec {
        name: "text_diff",
        category: "text",
        description: "Compares two texts by lines: a unified diff (empty when they are the same), how many lines were added and removed, and how \
                      alike they are, from 0 to 1.",
        parameters: object(
            json!({
                "a": text(MAX_TEXT, "the text before"), "b": text(MAX_TEXT, "the text after"),
                "context": {"type": "integer", "minimum": 0, "maximum": 100, "description": "unchanged lines around a change; 3 when left out"},
            }),
            &["a", "b"],
        ),
        output: object(
            json!({
                "equal": {"type": "boolean"}, "diff": {"type": "string"}, "added": count, "removed": count,
                "similarity": {"type": "number", "minimum": 0, "maximum": 1},
            }),
            &["equal", "diff", "added", "removed", "similarity"],
        ),
    };
    function(spec, |arguments: Arguments| diff(&arguments))
}

fn diff(arguments: &Arguments) -> Result<Value, ToolError> {
    let diff = TextDiff::configure().timeout(TIME).diff_lines(arguments.a.as_str(), arguments.b.as_str());
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    let mut unified = String::new();
    write!(unified, "{}", diff.unified_diff().context_radius(arguments.context).header("a", "b"))
        .map_err(|_| ToolError::new("TOOL_FAILED", "the diff cannot be written"))?;
    if unified.len() > MAX_RESULT {
        return Err(result_too_large());
    }
    Ok(json!({
        "equal": arguments.a == arguments.b,
        "diff": unified,
        "added": count(ChangeTag::Insert),
        "removed": count(ChangeTag::Delete),
        "similarity": number((f64::from(diff.ratio()) * 1e4).round() / 1e4),
    }))
}
