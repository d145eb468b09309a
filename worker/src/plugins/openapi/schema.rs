//! What an OpenAPI document says of values, as JSON Schema with everything in it: references are resolved within the document,
//! cycles and excess are cut.
use std::cell::Cell;

use serde_json::{Map, Value, json};

use super::{described, invalid};
use crate::tools::ToolError;

/// References within references.
const MAX_DEPTH: usize = 10;
/// Schemas within the schema of one value; what is beyond accepts anything.
const MAX_NODES: usize = 1000;
/// References that only name another one.
const MAX_CHAIN: usize = 16;
/// Keywords whose values are not schemas.
const PLAIN: [&str; 17] = [
    "type",
    "format",
    "pattern",
    "enum",
    "const",
    "default",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
];

pub struct Document<'a> {
    root: &'a Value,
    left: Cell<usize>,
}

impl<'a> Document<'a> {
    pub fn new(root: &'a Value) -> Self {
        Self { root, left: Cell::new(0) }
    }

    pub fn root(&self) -> &'a Value {
        self.root
    }

    /// What `value` is, or names.
    ///
    /// # Errors
    /// For a reference that leads out of the document, nowhere, or in a circle.
    pub fn resolve(&self, mut value: &'a Value) -> Result<&'a Value, ToolError> {
        for _ in 0..MAX_CHAIN {
            match value.get("$ref").and_then(Value::as_str) {
                Some(reference) => value = self.target(reference)?,
                None => return Ok(value),
            }
        }
        Err(invalid("a $ref leads in a circle"))
    }

    fn target(&self, reference: &str) -> Result<&'a Value, ToolError> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(invalid(format!("$ref {reference:.200}: only references within the document are followed")));
        };
        let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        self.root
            .pointer(&decoded)
            .ok_or_else(|| invalid(format!("$ref {reference:.200}: there is no such thing in the document")))
    }

    /// The JSON Schema of one value; `description` where it has none of its own.
    pub fn schema(&self, schema: &'a Value, description: Option<&str>) -> Result<Value, ToolError> {
        self.left.set(MAX_NODES);
        let mut schema = self.inline(schema, &mut Vec::new())?;
        if let (Some(map), Some(description)) = (schema.as_object_mut(), description) {
            map.entry("description").or_insert_with(|| described(description).into());
        }
        Ok(schema)
    }

    /// `within`: the references that lead here.
    fn inline(&self, schema: &'a Value, within: &mut Vec<&'a str>) -> Result<Value, ToolError> {
        let Some(map) = schema.as_object() else {
            return Ok(if schema.is_boolean() { schema.clone() } else { json!({}) });
        };
        let cost = 1 + map.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
        let Some(left) = self.left.get().checked_sub(cost) else { return Ok(json!({})) };
        self.left.set(left);
        let Some(reference) = map.get("$ref").and_then(Value::as_str) else { return self.object(map, within) };
        let target = self.target(reference)?;
        if within.contains(&reference) || within.len() >= MAX_DEPTH {
            return Ok(target.get("type").filter(|t| t.is_string()).map_or_else(|| json!({}), |t| json!({ "type": t })));
        }
        within.push(reference);
        let found = self.inline(target, within);
        within.pop();
        found
    }

    fn object(&self, map: &'a Map<String, Value>, within: &mut Vec<&'a str>) -> Result<Value, ToolError> {
        let mut out = Map::new();
        for keyword in PLAIN {
            if let Some(value) = map.get(keyword) {
                out.insert(keyword.to_owned(), value.clone());
            }
        }
        if let Some(text) = map.get("description").or_else(|| map.get("title")).and_then(Value::as_str) {
            out.insert("description".into(), described(text).into());
        }
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            let kept = self.properties(properties, &mut out, within)?;
            out.insert("properties".into(), kept);
        }
        for keyword in ["items", "additionalProperties", "not"] {
            if let Some(inner) = map.get(keyword) {
                out.insert(keyword.into(), self.inline(inner, within)?);
            }
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            if let Some(list) = map.get(keyword).and_then(Value::as_array) {
                let list = list.iter().map(|s| self.inline(s, within)).collect::<Result<Vec<_>, _>>()?;
                out.insert(keyword.into(), list.into());
            }
        }
        limits(map, &mut out);
        nullable(map, &mut out);
        Ok(out.into())
    }

    /// Without what only an answer has.
    fn properties(
        &self,
        properties: &'a Map<String, Value>,
        out: &mut Map<String, Value>,
        within: &mut Vec<&'a str>,
    ) -> Result<Value, ToolError> {
        let mut kept = Map::new();
        for (name, schema) in properties {
            if schema["readOnly"] != true {
                kept.insert(name.clone(), self.inline(schema, within)?);
            }
        }
        let is_gone = |name: &Value| name.as_str().is_some_and(|n| properties.contains_key(n) && !kept.contains_key(n));
        if let Some(required) = out.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| !is_gone(name));
        }
        Ok(kept.into())
    }
}

/// 3.0 says `minimum: 3, exclusiveMinimum: true` where JSON Schema says `exclusiveMinimum: 3`.
fn limits(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match map.get(exclusive) {
            Some(Value::Bool(true)) => {
                if let Some(value) = out.remove(limit) {
                    out.insert(exclusive.to_owned(), value);
                }
            }
            Some(value @ Value::Number(_)) => drop(out.insert(exclusive.to_owned(), value.clone())),
            _ => {}
        }
    }
}

/// 3.0 says `nullable: true` where JSON Schema has a type `null`.
fn nullable(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    if map.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(Value::String(kind)) = out.get("type") {
        let both = json!([kind, "null"]);
        out.insert("type".into(), both);
    }
    if let Some(Value::Array(values)) = out.get_mut("enum") {
        values.push(Value::Null);
    }
}
