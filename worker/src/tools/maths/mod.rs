//! Numbers.
mod calculator;
mod random_number;
pub mod statistics;
mod unit_convert;

use std::sync::Arc;

use serde_json::{Value, json};

use super::Tool;

/// Above it not every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![calculator::tool(), random_number::tool(), statistics::tool(), unit_convert::tool()]
}

/// To 15 significant digits, so that 0.1 + 0.2 is 0.3; what is an integer up to 2^53, or becomes one by that, as such.
pub fn number(value: f64) -> Value {
    let integer = |value: f64| value.fract() == 0.0 && value.abs() <= EXACT;
    if integer(value) {
        return json!(value as i64);
    }
    let rounded = format!("{value:.14e}").parse::<f64>().unwrap_or(value);
    if integer(rounded) { json!(rounded as i64) } else { json!(rounded) }
}
