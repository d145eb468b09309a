//! The `config` of a tool whose kind is `code`: `{code, timeout_ms?, memory_mb?}`.
use serde::Deserialize;
use serde_json::Value;

use crate::error::FieldError;

pub const MAX_CODE_BYTES: usize = 65_536;
const MAX_TIMEOUT_MS: u64 = 600_000;
const MAX_MEMORY_MB: u64 = 4096;
const KEYS: [&str; 3] = ["code", "timeout_ms", "memory_mb"];

/// The settings of the deployment hold where a tool asks for more than they allow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeConfig {
    /// The body of an async function of `input`.
    pub code: String,
    pub timeout_ms: Option<u64>,
    pub memory_mb: Option<u64>,
}

/// What is wrong with a config, each field as `config.timeout_ms`; empty: nothing.
pub fn check_code_config(config: &Value) -> Vec<FieldError> {
    let bad = |field: &str, message: String| FieldError { field: field.to_owned(), message };
    let Some(fields) = config.as_object() else { return vec![bad("config", "must be an object".to_owned())] };
    let mut problems = Vec::new();
    match fields.get("code") {
        Some(Value::String(code)) if code.trim().is_empty() => problems.push(bad("config.code", "is empty".to_owned())),
        Some(Value::String(code)) if code.len() > MAX_CODE_BYTES => {
            problems.push(bad("config.code", format!("has more than {MAX_CODE_BYTES} bytes")));
        }
        Some(Value::String(_)) => {}
        Some(_) => problems.push(bad("config.code", "must be a text".to_owned())),
        None => problems.push(bad("config.code", "is required".to_owned())),
    }
    for (name, max) in [("timeout_ms", MAX_TIMEOUT_MS), ("memory_mb", MAX_MEMORY_MB)] {
        let is_fine = match fields.get(name) {
            None | Some(Value::Null) => true,
            Some(value) => value.as_u64().is_some_and(|n| (1..=max).contains(&n)),
        };
        if !is_fine {
            problems.push(bad(&format!("config.{name}"), format!("must be a whole number from 1 to {max}")));
        }
    }
    let unknown = fields.keys().filter(|key| !KEYS.contains(&key.as_str()));
    problems.extend(unknown.map(|key| bad(&format!("config.{key}"), format!("is not known; there are {}", KEYS.join(", ")))));
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        let fields = |config: Value| check_code_config(&config).into_iter().map(|e| e.field).collect::<Vec<_>>();
        for good in [json!({"code": "return 1"}), json!({"code": "return 1", "timeout_ms": 600_000, "memory_mb": null})] {
            assert_eq!(fields(good.clone()), Vec::<String>::new());
            serde_json::from_value::<CodeConfig>(good).unwrap();
        }
        assert_eq!(fields(json!("return 1")), ["config"]);
        assert_eq!(
            fields(json!({"timeout_ms": 0, "memory_mb": 1.5, "url": "x"})),
            ["config.code", "config.timeout_ms", "config.memory_mb", "config.url"]
        );
        for code in [json!(" "), json!(1), json!("x".repeat(MAX_CODE_BYTES + 1))] {
            assert_eq!(fields(json!({"code": code})), ["config.code"]);
        }
    }
}
