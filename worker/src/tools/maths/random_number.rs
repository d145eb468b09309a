//! `random_number`: from the generator that the operating system seeds. Once journaled, a run keeps what it drew.
use std::sync::Arc;

use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::EXACT;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object},
};

const MAX_COUNT: usize = 1000;

#[derive(Deserialize)]
struct Arguments {
    min: f64,
    max: f64,
    #[serde(default = "one")]
    count: usize,
    #[serde(default = "yes")]
    integer: bool,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "random_number",
        category: "maths",
        description: "Draws random numbers, each as likely as the others: integers from min to max, both included, or (integer: false) \
                      decimals from min up to max.",
        parameters: object(
            json!({
                "min": {"type": "number", "description": "the smallest that may come"},
                "max": {"type": "number", "description": "the largest that may come; not less than min"},
                "count": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT, "description": "how many; 1 when left out"},
                "integer": {"type": "boolean", "description": "whole numbers only; true when left out"},
            }),
            &["min", "max"],
        ),
        output: object(json!({"numbers": {"type": "array", "items": {"type": "number"}}}), &["numbers"]),
    };
    function(spec, |arguments: Arguments| draw(&arguments))
}

fn draw(arguments: &Arguments) -> Result<Value, ToolError> {
    let Arguments { min, max, count, integer } = *arguments;
    if min > max {
        return Err(ToolError::invalid("min: it is greater than max"));
    }
    if !(max - min).is_finite() {
        return Err(ToolError::invalid("max: it is too far from min"));
    }
    let mut source = rand::rng();
    if !integer {
        let numbers: Vec<f64> = (0..count).map(|_| source.random_range(min..=max)).collect();
        return Ok(json!({"numbers": numbers}));
    }
    for (name, bound) in [("min", min), ("max", max)] {
        if bound.fract() != 0.0 || bound.abs() > EXACT {
            return Err(ToolError::invalid(format!("{name}: a whole number of at most 2^53 is needed, unless integer is false")));
        }
    }
    let numbers: Vec<i64> = (0..count).map(|_| source.random_range(min as i64..=max as i64)).collect();
    Ok(json!({"numbers": numbers}))
}
