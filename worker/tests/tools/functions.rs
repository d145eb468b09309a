//! The built-in functions: each has a known answer, which its own schema describes.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use runmill_worker::tools::ToolContext;
use serde_json::{Value, json};

use crate::{
    data, encoding, maths,
    support::{context, tools},
    text, time,
};

/// A tool, its arguments, and what its answer has among others.
pub type Answer = (&'static str, Value, Value);
/// A tool, its arguments, and the code and a part of the message of its refusal.
pub type Refusal = (&'static str, Value, &'static str, &'static str);

/// Nothing that a tool is given may keep it longer, on a busy machine in a debug build.
pub const PATIENCE: Duration = Duration::from_secs(60);

async fn patient() -> ToolContext {
    ToolContext { timeout: PATIENCE, max_output_bytes: 16 << 20, ..context().await }
}

pub async fn answers(cases: Vec<Answer>) {
    let (tools, cx) = (tools(&[]), patient().await);
    for (name, arguments, expected) in cases {
        let told: String = arguments.to_string().chars().take(300).collect();
        let result = tools.call(name, &cx, arguments).await.unwrap_or_else(|e| panic!("{name} {told}: {e}"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&result[key], value, "{key} of {name} {told}");
        }
        let schema = tools.get(name).unwrap().output();
        let problems: Vec<_> = jsonschema::validator_for(&schema).unwrap().iter_errors(&result).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{name} {told}: {problems:?}");
    }
}

pub async fn refusals(cases: Vec<Refusal>) {
    let (tools, cx) = (tools(&[]), patient().await);
    for (name, arguments, code, part) in cases {
        let told: String = arguments.to_string().chars().take(300).collect();
        let begun = Instant::now();
        match tools.call(name, &cx, arguments).await {
            Ok(value) => panic!("{name} {told} gives {value:.300}"),
            Err(e) => assert!(e.code == code && e.message.contains(part), "{name} {told}: {e}"),
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{name} {told} took {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn every_tool_is_named_described_and_closed() {
    let all = tools(&[]).descriptors();
    let names: BTreeSet<_> = all.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    for tool in &all {
        let name = &tool.name;
        assert!(
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{name}"
        );
        assert!(tool.description.len() > 20 && !tool.category.is_empty(), "{name}");
        for schema in [&tool.input_schema, &tool.output_schema] {
            assert!(jsonschema::meta::is_valid(schema), "{name}: {schema}");
            jsonschema::validator_for(schema).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert_eq!(
            (&tool.input_schema["type"], &tool.input_schema["additionalProperties"]),
            (&json!("object"), &json!(false)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn every_function_has_a_known_answer_and_describes_its_parameters() {
    let known: BTreeSet<_> = [maths::known(), time::known(), text::known(), data::known(), encoding::known()]
        .concat()
        .into_iter()
        .map(|(name, _, _)| name)
        .collect();
    let mut seen = 0;
    for tool in tools(&[]).descriptors() {
        if !["maths", "time", "text", "data", "encoding"].contains(&tool.category.as_str()) {
            continue;
        }
        seen += 1;
        assert!(known.contains(tool.name.as_str()), "{} has no known answer", tool.name);
        for (parameter, schema) in tool.input_schema["properties"].as_object().unwrap() {
            assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{parameter} of {}", tool.name);
        }
        for required in tool.input_schema["required"].as_array().unwrap() {
            assert!(!tool.input_schema["properties"][required.as_str().unwrap()].is_null(), "{required} of {}", tool.name);
        }
    }
    assert_eq!(seen, known.len());
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_the_work() {
    let wide = json!({"a": vec!["x".repeat(1000); 2000], "b": null});
    refusals(vec![("json_diff", wide, "INPUT_TOO_LARGE", "1048576")]).await;
}
