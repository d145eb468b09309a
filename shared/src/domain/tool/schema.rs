//! JSON Schemas that users write. A pattern is matched in linear time, and no schema reaches outside itself.
use jsonschema::{PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};

use crate::error::FieldError;

/// Of one compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;
const MAX_PARTS: usize = 10_000;
const MAX_DEPTH: usize = 128;

/// # Errors
/// Why it is no JSON Schema that can be used here.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    Size { root: schema, parts: 0, open: Vec::new() }.visit(schema, 0)?;
    let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options().offline().with_pattern_options(patterns).build(schema).map_err(|e| e.masked().to_string())
}

/// A schema of arguments: what it describes is an object.
///
/// # Errors
/// As `compile`, and for a schema of anything but an object.
pub fn compile_arguments(schema: &Value) -> Result<Validator, String> {
    if schema.get("type") != Some(&json!("object")) {
        return Err("must be a JSON Schema with \"type\": \"object\"".to_owned());
    }
    compile(schema)
}

/// What of `value` breaks the schema: dotted paths that begin with `at`.
pub fn problems(validator: &Validator, value: &Value, at: &str) -> Vec<FieldError> {
    validator.iter_errors(value).map(|e| problem(&e, at)).collect()
}

fn problem(e: &jsonschema::ValidationError<'_>, at: &str) -> FieldError {
    let mut path = vec![at.to_owned()];
    path.extend(e.instance_path().into_iter().map(|segment| segment.to_string()));
    let message = match e.kind() {
        ValidationErrorKind::Required { property } => {
            path.push(property.as_str().unwrap_or_default().to_owned());
            "is required".to_owned()
        }
        // Masked: what was sent may be a secret.
        _ => e.masked().to_string(),
    };
    FieldError { field: path.join("."), message }
}

/// What a value can be judged by must be small: no schema is part of itself, and all of it, written out, has at most `MAX_PARTS` parts.
/// Else few lines could keep a validator busy for ever, or use up its stack.
struct Size<'a> {
    root: &'a Value,
    parts: usize,
    /// The references that are being followed.
    open: Vec<&'a str>,
}

impl<'a> Size<'a> {
    fn visit(&mut self, at: &'a Value, depth: usize) -> Result<(), String> {
        self.parts += 1;
        if self.parts > MAX_PARTS || depth > MAX_DEPTH {
            return Err(format!(
                "it is too large: at most {MAX_PARTS} parts and {MAX_DEPTH} levels, with every $ref written out"
            ));
        }
        match at {
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(item, depth + 1)),
            Value::Object(fields) => fields.iter().try_for_each(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => self.follow(target, depth),
                ("$id", Value::String(_)) if depth == 0 => Ok(()),
                ("$dynamicRef" | "$recursiveRef" | "$id" | "$anchor" | "$dynamicAnchor", Value::String(_)) => {
                    Err(format!("{key} is not supported; use $ref with a place in the schema itself"))
                }
                _ => self.visit(value, depth + 1),
            }),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, target: &'a str, depth: usize) -> Result<(), String> {
        let pointer = target.strip_prefix('#').ok_or("a $ref must begin with #, a place in the schema itself")?;
        if self.open.contains(&pointer) || pointer.is_empty() {
            return Err("a $ref leads back to itself".to_owned());
        }
        let Some(found) = self.root.pointer(pointer) else { return Err(format!("there is nothing at the $ref {target}")) };
        self.open.push(pointer);
        self.visit(found, depth + 1)?;
        self.open.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_and_every_problem_has_its_path() {
        let schema = json!({
            "type": "object", "required": ["city"], "additionalProperties": false,
            "properties": { "city": { "type": "string" }, "days": { "type": "array", "items": { "type": "integer" } } },
        });
        let validator = compile_arguments(&schema).unwrap();
        let bad = problems(&validator, &json!({ "days": [1, "sk-secret"], "x": 1 }), "arguments");
        let mut fields: Vec<_> = bad.iter().map(|p| p.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["arguments", "arguments.city", "arguments.days.1"]);
        assert!(bad.iter().all(|p| !p.message.contains("sk-secret")));
        assert!(problems(&validator, &json!({ "city": "Linz" }), "arguments").is_empty());
        for no_object in [json!({}), json!(true), json!([]), json!({ "type": "string" }), json!({ "type": ["object", "null"] })] {
            assert!(compile_arguments(&no_object).is_err(), "{no_object}");
        }
        assert!(compile(&json!({ "type": "nothing" })).is_err());
    }

    #[test]
    fn what_would_be_followed_for_ever_or_reach_outside_is_refused() {
        let endless = [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "$ref": "#" }] }),
            json!({ "properties": { "a": { "$ref": "#/$defs/a" } }, "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
            json!({ "$ref": "http://127.0.0.1:1/schema.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "$dynamicRef": "#a" }),
            json!({ "properties": { "a": { "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] } } }),
            json!({ "$ref": "#/nothing" }),
        ];
        for schema in endless {
            assert!(compile(&schema).is_err(), "{schema}");
        }
        let doubling: serde_json::Map<_, _> = (0..40)
            .map(|n| {
                (
                    n.to_string(),
                    json!({ "anyOf": [{ "$ref": format!("#/$defs/{}", n + 1) }, { "$ref": format!("#/$defs/{}", n + 1) }] }),
                )
            })
            .collect();
        let mut doubling = json!({ "$ref": "#/$defs/0", "$defs": doubling });
        doubling["$defs"]["40"] = json!({ "type": "string" });
        assert!(compile(&doubling).is_err(), "2^40 ways to be judged");
        let shared = json!({ "$id": "x", "type": "object", "$defs": { "d": { "type": "integer" } },
            "properties": { "a": { "$ref": "#/$defs/d" }, "b": { "$ref": "#/$defs/d" } } });
        let validator = compile_arguments(&shared).unwrap();
        assert_eq!(problems(&validator, &json!({ "a": 1, "b": "x" }), "arguments")[0].field, "arguments.b");
    }

    #[test]
    fn a_pattern_takes_linear_time() {
        let validator = compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
        assert!(!validator.is_valid(&json!(format!("{}!", "a".repeat(50_000)))));
        assert!(compile(&json!({ "pattern": "^(a)\\1$" })).is_err(), "no back-references");
        assert!(compile(&json!({ "pattern": "(((a{100}){100}){100}){100}" })).is_err(), "a pattern that explodes");
    }
}
