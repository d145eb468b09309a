//! Answers that have to be JSON of a schema: what the model is told of it, and what is wrong with what it says.
use jsonschema::Validator;
use runmill_shared::domain::tool::schema::compile;
use serde_json::Value;

use super::Failure;

/// How often a model is told what is wrong with its answer.
pub const REPAIRS: u32 = 2;
/// Problems that are told at once, and how long they are all together.
const MAX_PROBLEMS: usize = 20;
const MAX_TOLD: usize = 4000;

pub struct Format {
    schema: Value,
    validator: Validator,
}

impl Format {
    /// # Errors
    /// `OUTPUT_SCHEMA_INVALID` when it is no JSON Schema.
    pub fn new(schema: &Value) -> Result<Self, Failure> {
        let validator = compile(schema).map_err(|e| {
            Failure::run("OUTPUT_SCHEMA_INVALID", format!("the agent's output_schema is no JSON Schema: {e}"), false)
        })?;
        Ok(Self { schema: schema.clone(), validator })
    }

    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// For the system prompt: not every provider takes a schema, and not every model heeds it.
    pub fn instructions(&self) -> String {
        format!(
            "Your final answer must be JSON that satisfies this JSON Schema, and nothing but that JSON: no text before or after it.\n{}",
            self.schema
        )
    }

    /// The JSON of an answer, or everything that is wrong with it, for the model to read.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value: Value = serde_json::from_str(unfenced(text)).map_err(|e| format!("it is not JSON: {e}"))?;
        let told = |e: jsonschema::ValidationError<'_>| match e.instance_path().as_str() {
            "" => e.to_string(),
            path => format!("at {path}: {e}"),
        };
        let problems: Vec<_> = self.validator.iter_errors(&value).take(MAX_PROBLEMS).map(told).collect();
        if problems.is_empty() { Ok(value) } else { Err(problems.join("\n").chars().take(MAX_TOLD).collect()) }
    }
}

/// What the model is told of an answer that does not do.
pub fn correction(problems: &str) -> String {
    format!(
        "Your answer does not satisfy the required JSON Schema:\n{problems}\nAnswer again with the corrected JSON and nothing else."
    )
}

/// Without the fence that many models put around JSON.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|t| t.strip_suffix("```")) else { return text };
    // The first line may name the language.
    inner.split_once('\n').filter(|(name, _)| !name.contains(['{', '[', '"'])).map_or(inner, |(_, rest)| rest).trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn format() -> Format {
        let properties = json!({ "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } });
        Format::new(&json!({ "type": "object", "required": ["name", "age"], "properties": properties })).unwrap()
    }

    #[test]
    fn json_is_read_with_and_without_a_fence() {
        let wanted = json!({ "name": "Ada", "age": 36 });
        for text in [
            r#"{"name":"Ada","age":36}"#,
            "\n```json\n{\"name\": \"Ada\",\n\"age\": 36}\n```\n",
            "```\n{\"name\":\"Ada\",\"age\":36}```",
            "```{\"name\":\"Ada\",\n\"age\":36}```",
        ] {
            assert_eq!(format().read(text), Ok(wanted.clone()), "{text}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let problems = format().read(r#"{"age": -1}"#).unwrap_err();
        assert!(problems.contains("name") && problems.contains("at /age"), "{problems}");
        assert!(format().read("Sure! {}").unwrap_err().starts_with("it is not JSON"));
        assert!(Format::new(&json!({ "type": 7 })).is_err());
    }
}
