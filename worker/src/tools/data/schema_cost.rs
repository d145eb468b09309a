//! How much work a JSON Schema can ask for. References that are followed twice in each of n steps are followed 2^n times, so this is
//! reckoned before a schema that somebody sent is used.
use std::collections::HashMap;

use serde_json::Value;

/// Deeper is no schema that somebody wrote, and each step of it is a stack frame of the validator.
const MAX_STEPS: usize = 500;
/// What holds schemas for the same value as the schema itself.
const IN_PLACE: [&str; 10] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "$ref"];
/// What holds schemas by name.
const MAPS: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "dependencies"];
/// What holds no schema that is applied where it stands.
const INERT: [&str; 8] = ["$defs", "definitions", "enum", "const", "default", "examples", "title", "description"];
/// What this reckoning cannot follow.
const REFUSED: [&str; 5] = ["$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor"];

/// # Errors
/// Why the schema cannot be used here.
pub fn of(schema: &Value, data_depth: usize) -> Result<usize, String> {
    let mut reckoning = Reckoning { root: schema, known: HashMap::new(), steps: 0 };
    reckoning.schema(schema, data_depth)
}

struct Reckoning<'a> {
    root: &'a Value,
    /// By the address of a schema and the depth of the data below; `None` while it is being reckoned.
    known: HashMap<(*const Value, usize), Option<usize>>,
    steps: usize,
}

impl<'a> Reckoning<'a> {
    /// How often a schema is applied on the way from a value to one of its leaves, `depth` levels below.
    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<usize, String> {
        match self.known.get(&(std::ptr::from_ref(schema), depth)) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err("a $ref leads back to itself without going down in the data".to_owned()),
            None => {}
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!("references are nested deeper than {MAX_STEPS}"));
        }
        self.known.insert((schema, depth), None);
        let mut cost = 1_usize;
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            cost = cost.saturating_add(self.keyword(schema, keyword, value, depth)?);
        }
        self.steps -= 1;
        self.known.insert((schema, depth), Some(cost));
        Ok(cost)
    }

    fn keyword(&mut self, schema: &'a Value, keyword: &str, value: &'a Value, depth: usize) -> Result<usize, String> {
        if REFUSED.contains(&keyword) && value.is_string() && !(keyword == "$id" && std::ptr::eq(schema, self.root)) {
            return Err(format!("{keyword} is not supported; refer as #/$defs/name"));
        }
        if keyword == "$ref" {
            return match value.as_str() {
                Some(reference) => self.reference(reference, depth),
                None => Ok(0),
            };
        }
        if INERT.contains(&keyword) {
            return Ok(0);
        }
        if IN_PLACE.contains(&keyword) {
            return self.held(keyword, value, depth);
        }
        if depth == 0 {
            return Ok(super::measure(value).0);
        }
        match (keyword, value) {
            // Each child has one name, so one of these alone is applied to it.
            ("properties", Value::Object(named)) => {
                named.values().try_fold(0, |most, inner| Ok(self.schema(inner, depth - 1)?.max(most)))
            }
            _ => self.held(keyword, value, depth - 1),
        }
    }

    /// A schema, or a list or map of schemas, or neither.
    fn held(&mut self, keyword: &str, value: &'a Value, depth: usize) -> Result<usize, String> {
        match value {
            Value::Object(_) if !MAPS.contains(&keyword) => self.schema(value, depth),
            _ => super::children(value).try_fold(0_usize, |sum, inner| Ok(sum.saturating_add(self.schema(inner, depth)?))),
        }
    }

    fn reference(&mut self, reference: &str, depth: usize) -> Result<usize, String> {
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let pointer = pointer.ok_or_else(|| format!("$ref {reference:?} leads out of the schema; only #/… is followed"))?;
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        let target = self.root.pointer(&pointer).ok_or_else(|| format!("$ref {reference:?} leads nowhere"))?;
        self.schema(target, depth)
    }
}
