//! JSON and what can become JSON.
mod csv;
mod json_diff;
mod json_merge;
mod json_query;
mod json_validate;
mod schema_cost;
mod table_aggregate;
mod xml_to_json;
mod yaml_to_json;

use std::sync::Arc;

use serde_json::Value;

use super::{Tool, ToolError};

/// Of a text to read, in characters.
const MAX_TEXT: usize = 500_000;
/// Cells of one table.
const MAX_CELLS: usize = 200_000;
/// Of a result, in bytes. A run's own limit is smaller.
const MAX_RESULT: usize = 4 << 20;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![
        csv::read_tool(),
        csv::write_tool(),
        json_diff::tool(),
        json_merge::tool(),
        json_query::tool(),
        json_validate::tool(),
        table_aggregate::tool(),
        xml_to_json::tool(),
        yaml_to_json::tool(),
    ]
}

fn result_too_large() -> ToolError {
    ToolError::new("RESULT_TOO_LARGE", format!("the result has more than {MAX_RESULT} bytes"))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// How many values are in `value`, itself among them, and how deep the deepest is.
fn measure(value: &Value) -> (usize, usize) {
    children(value).map(measure).fold((1, 1), |(count, depth), (inner, below)| (count + inner, depth.max(below + 1)))
}
