//! `statistics`: what describes a list of numbers.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::number;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object},
};

const MAX_NUMBERS: usize = 100_000;

#[derive(Deserialize)]
struct Arguments {
    numbers: Vec<f64>,
}

pub fn tool() -> Arc<dyn Tool> {
    let numbers = json!({
        "type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_NUMBERS, "description": "in any order",
    });
    let (one, unless_single) = (json!({"type": "number"}), json!({"type": ["number", "null"]}));
    let quartiles = object(json!({"q1": one, "q2": one, "q3": one}), &["q1", "q2", "q3"]);
    let spec = Spec {
        name: "statistics",
        category: "maths",
        description: "Describes a list of numbers: count, sum, mean, median, mode (all of the most frequent values; none when nothing \
                      repeats), min, max, sample variance and standard deviation (n - 1; null for a single number), those of a whole \
                      population (n), and quartiles (linear interpolation, as spreadsheets do).",
        parameters: object(json!({"numbers": numbers}), &["numbers"]),
        output: object(
            json!({
                "count": {"type": "integer"}, "sum": one, "mean": one, "median": one, "mode": {"type": "array", "items": one},
                "min": one, "max": one, "variance": unless_single, "stdev": unless_single, "population_variance": one,
                "population_stdev": one, "quartiles": quartiles,
            }),
            &["count", "sum", "mean", "median", "mode", "min", "max", "variance", "stdev", "quartiles"],
        ),
    };
    function(spec, |arguments: Arguments| describe(arguments.numbers))
}

fn describe(mut numbers: Vec<f64>) -> Result<Value, ToolError> {
    numbers.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (numbers.first(), numbers.last()) else {
        return Err(ToolError::invalid("numbers: at least one is needed"));
    };
    let count = numbers.len() as f64;
    let total = sum(numbers.iter().copied());
    let mean = total / count;
    let squares = sum(numbers.iter().map(|x| (x - mean) * (x - mean)));
    if !(total.is_finite() && squares.is_finite()) {
        return Err(ToolError::new("OUT_OF_RANGE", "the numbers are too large: their sum or variance is no finite number"));
    }
    let sample = (numbers.len() > 1).then(|| squares / (count - 1.0));
    Ok(json!({
        "count": numbers.len(),
        "sum": number(total),
        "mean": number(mean),
        "median": number(quantile(&numbers, 0.5)),
        "mode": modes(&numbers).into_iter().map(number).collect::<Vec<_>>(),
        "min": number(*min),
        "max": number(*max),
        "variance": sample.map(number),
        "stdev": sample.map(|v| number(v.sqrt())),
        "population_variance": number(squares / count),
        "population_stdev": number((squares / count).sqrt()),
        "quartiles": {
            "q1": number(quantile(&numbers, 0.25)), "q2": number(quantile(&numbers, 0.5)), "q3": number(quantile(&numbers, 0.75)),
        },
    }))
}

/// Neumaier's: what is lost of the small ones is added at the end.
pub fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for x in numbers {
        let next = sum + x;
        lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    if lost.is_finite() { sum + lost } else { sum }
}

/// Of sorted numbers, of which there is at least one.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

fn modes(sorted: &[f64]) -> Vec<f64> {
    let runs: Vec<_> = sorted.chunk_by(|a, b| a == b).collect();
    let most = runs.iter().map(|run| run.len()).max().filter(|most| *most > 1);
    runs.into_iter().filter(|run| Some(run.len()) == most).map(|run| run[0]).collect()
}
