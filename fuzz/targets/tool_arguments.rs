//! What a model calls tools with: the check of its schema, and the built-in functions behind it. The input is `{"tool", "arguments"}`;
//! or else bytes from which arguments are made that the schema allows.
#![no_main]

use std::{sync::OnceLock, time::Duration};

use jsonschema::Validator;
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use runmill_fuzz::{app, runtime};
use runmill_shared::domain::{caller::Owner, tool::schema};
use runmill_worker::tools::{ToolContext, ToolScope, Tools};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The categories whose tools are functions of their arguments: they reach nothing and start nothing.
const FUNCTIONS: [&str; 5] = ["maths", "time", "text", "data", "encoding"];
const MAX_OUTPUT: usize = 65_536;
const TIMEOUT: Duration = Duration::from_secs(30);

struct Function {
    name: String,
    parameters: Value,
    output: Validator,
}

fn tools() -> &'static (Tools, Vec<Function>) {
    static TOOLS: OnceLock<(Tools, Vec<Function>)> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let tools = Tools::builtin(&app().config).unwrap();
        let functions = tools.descriptors().into_iter().filter(|tool| FUNCTIONS.contains(&tool.category.as_str()));
        let functions = functions.map(|tool| Function {
            output: schema::compile(&tool.output_schema).unwrap(),
            name: tool.name,
            parameters: tool.input_schema,
        });
        let functions: Vec<_> = functions.collect();
        (tools, functions)
    })
}

fn context() -> ToolContext {
    ToolContext {
        app: app().clone(),
        scope: ToolScope {
            owner: Owner::of_row("fuzz"),
            run_id: Uuid::nil(),
            thread_id: Uuid::nil(),
            thread: "fuzz".to_owned(),
            agent_id: None,
            goal_id: None,
        },
        step_key: "tool:1".to_owned(),
        clock: app().clock.clone(),
        cancel: CancellationToken::new(),
        timeout: TIMEOUT,
        max_output_bytes: MAX_OUTPUT,
    }
}

fuzz_target!(|data: &[u8]| {
    let (tools, functions) = tools();
    let Some((function, arguments)) = call(functions, data) else { return };
    let outcome = runtime().block_on(tools.call(&function.name, &context(), arguments.clone()));
    match outcome {
        Ok(result) => {
            assert!(result.to_string().len() <= MAX_OUTPUT + 1024, "{}: an output that was not cut", function.name);
            if result.get("truncated") != Some(&json!(true)) {
                let problems: Vec<_> = function.output.iter_errors(&result).map(|e| e.to_string()).collect();
                assert!(problems.is_empty(), "{} answers {result} to {arguments}: {problems:?}", function.name);
            }
        }
        Err(e) => {
            assert!(e.code != "TIMEOUT" && e.code != "TOOL_FAILED", "{} with {arguments}: {e}", function.name);
            assert!(!e.code.is_empty() && e.message.len() <= 2048);
        }
    }
});

fn call<'a>(functions: &'a [Function], data: &[u8]) -> Option<(&'a Function, Value)> {
    if data.first() == Some(&b'{') {
        let call: Value = serde_json::from_slice(data).ok()?;
        let function = functions.iter().find(|f| call["tool"] == f.name)?;
        return Some((function, call["arguments"].clone()));
    }
    let mut data = Unstructured::new(data);
    let function = data.choose(functions).ok()?;
    Some((function, allowed(&mut data, &function.parameters).ok()?))
}

/// A value that mostly satisfies the schema: what it does not understand of it, the tool's own check will.
fn allowed(data: &mut Unstructured<'_>, schema: &Value) -> Result<Value> {
    for one_of in ["enum", "anyOf", "oneOf"] {
        if let Some(all) = schema[one_of].as_array() {
            let one = data.choose(all)?;
            return if one_of == "enum" { Ok(one.clone()) } else { allowed(data, one) };
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => data.choose(kinds)?.as_str().unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    Ok(match kind {
        "object" => object(data, schema)?,
        "array" => {
            let count = data.int_in_range(0..=4)?;
            (0..count).map(|_| allowed(data, &schema["items"])).collect::<Result<_>>()?
        }
        "string" => json!(data.arbitrary::<String>()?),
        "boolean" => json!(data.arbitrary::<bool>()?),
        "integer" => integer(data, schema)?,
        "number" => json!(data.arbitrary::<f64>()?),
        "null" => Value::Null,
        _ => anything(data, 3)?,
    })
}

fn object(data: &mut Unstructured<'_>, schema: &Value) -> Result<Value> {
    let Some(properties) = schema["properties"].as_object() else { return anything(data, 3) };
    let required = schema["required"].as_array();
    let mut fields = Map::new();
    for (name, property) in properties {
        if required.is_some_and(|names| names.contains(&json!(name))) || data.ratio(1, 2)? {
            fields.insert(name.clone(), allowed(data, property)?);
        }
    }
    Ok(Value::Object(fields))
}

fn integer(data: &mut Unstructured<'_>, schema: &Value) -> Result<Value> {
    let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
    let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
    Ok(json!(data.int_in_range(least..=most.max(least))?))
}

fn anything(data: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let kinds = if depth == 0 { 4 } else { 6 };
    Ok(match data.int_in_range(0..=kinds)? {
        0 => Value::Null,
        1 => json!(data.arbitrary::<bool>()?),
        2 => json!(data.arbitrary::<i64>()?),
        3 => json!(data.arbitrary::<f64>()?),
        4 => json!(data.arbitrary::<String>()?),
        5 => (0..data.int_in_range(0..=4)?).map(|_| anything(data, depth - 1)).collect::<Result<_>>()?,
        _ => {
            let count = data.int_in_range(0..=4)?;
            let fields = (0..count).map(|_| Ok((data.arbitrary::<String>()?, anything(data, depth - 1)?)));
            Value::Object(fields.collect::<Result<_>>()?)
        }
    })
}
