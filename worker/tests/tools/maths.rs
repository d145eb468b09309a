use serde_json::json;

use crate::{
    functions::{Answer, Refusal, answers, refusals},
    support::{context, tools},
};

pub fn known() -> Vec<Answer> {
    let convert = |value: f64, from: &str, to: &str, result: f64| {
        let result = if result.fract() == 0.0 { json!(result as i64) } else { json!(result) };
        ("unit_convert", json!({"value": value, "from": from, "to": to}), json!({"result": result}))
    };
    vec![
        ("calculator", json!({"expression": "(2 + 3) * sqrt(16) / 8"}), json!({"result": 2.5})),
        (
            "statistics",
            json!({"numbers": [2, 4, 4, 4, 5, 5, 7, 9]}),
            json!({
                "count": 8, "sum": 40, "mean": 5, "median": 4.5, "mode": [4], "min": 2, "max": 9, "variance": 4.571_428_571_428_57,
                "stdev": 2.138_089_935_299_4, "population_variance": 4, "population_stdev": 2,
                "quartiles": {"q1": 4, "q2": 4.5, "q3": 5.5},
            }),
        ),
        (
            "statistics",
            json!({"numbers": [3]}),
            json!({"mean": 3, "mode": [], "variance": null, "stdev": null, "quartiles": {"q1": 3, "q2": 3, "q3": 3}}),
        ),
        ("statistics", json!({"numbers": [1e16, 1, -1e16]}), json!({"sum": 1})),
        ("statistics", json!({"numbers": [1, 2, 2, 3, 3]}), json!({"mode": [2, 3]})),
        convert(26.2, "mi", "km", 42.164_812_8),
        convert(1.0, "pounds", "g", 453.592_37),
        convert(100.0, "F", "C", 37.777_777_777_8),
        convert(-40.0, "celsius", "fahrenheit", -40.0),
        convert(0.0, "K", "C", -273.15),
        convert(1.0, "GiB", "MB", 1_073.741_824),
        convert(8.0, "Mb", "MB", 1.0),
        convert(2.0, "acres", "m2", 8_093.712_844_8),
        convert(1.0, "gallon", "l", 3.785_411_784),
        convert(90.0, "km/h", "m/s", 25.0),
        convert(1.0, "atm", "mmHg", 759.999_891_725_611),
        convert(1.0, "kWh", "J", 3_600_000.0),
        convert(2.0, "weeks", "hours", 336.0),
        convert(12.0, "inches", "feet", 1.0),
        ("random_number", json!({"min": 7, "max": 7, "count": 3}), json!({"numbers": [7, 7, 7]})),
    ]
}

#[tokio::test]
async fn known_answers() {
    answers(known()).await;
}

#[tokio::test]
async fn bad_inputs() {
    let refused: Vec<Refusal> = vec![
        ("statistics", json!({"numbers": []}), "INVALID_ARGUMENTS", "numbers"),
        ("statistics", json!({"numbers": ["1"]}), "INVALID_ARGUMENTS", "numbers/0"),
        ("statistics", json!({"numbers": [1e308, 1e308]}), "OUT_OF_RANGE", "too large"),
        ("unit_convert", json!({"value": 1, "from": "parsec", "to": "km"}), "UNKNOWN_UNIT", "length: m nm"),
        ("unit_convert", json!({"value": 1, "from": "kg", "to": "km"}), "INCOMPATIBLE_UNITS", "kg is a unit of mass"),
        ("unit_convert", json!({"value": 1e308, "from": "ly", "to": "nm"}), "OUT_OF_RANGE", "finite"),
        ("random_number", json!({"min": 2, "max": 1}), "INVALID_ARGUMENTS", "greater"),
        ("random_number", json!({"min": 0.5, "max": 1}), "INVALID_ARGUMENTS", "whole number"),
        ("random_number", json!({"min": -1e308, "max": 1e308, "integer": false}), "INVALID_ARGUMENTS", "too far"),
        ("random_number", json!({"min": 1, "max": 2, "count": 100_000}), "INVALID_ARGUMENTS", "count"),
    ];
    refusals(refused).await;
}

#[tokio::test]
async fn random_numbers_cover_their_range_and_no_more() {
    let (tools, cx) = (tools(&[]), context().await);
    let dice = tools.call("random_number", &cx, json!({"min": 1, "max": 6, "count": 1000})).await.unwrap();
    let seen: std::collections::BTreeSet<_> = dice["numbers"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let decimals = tools.call("random_number", &cx, json!({"min": 0, "max": 1, "count": 1000, "integer": false})).await.unwrap();
    let decimals: Vec<_> = decimals["numbers"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert!(decimals.iter().all(|x| (0.0..=1.0).contains(x)));
    let mean = decimals.iter().sum::<f64>() / 1000.0;
    // Twenty standard errors.
    assert!((mean - 0.5).abs() < 0.18, "{mean}");
}
