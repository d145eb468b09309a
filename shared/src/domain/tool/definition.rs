//! What a user says of a tool of their own, and the rules for it.
use serde_json::Value;

use super::{ToolType, code::check_code_config, http::HttpTool, schema};
use crate::error::{Error, FieldError, Result};

pub const DEFAULT_CATEGORY: &str = "custom";
const MAX_DESCRIPTION: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    pub name: String,
    pub description: String,
    pub kind: ToolType,
    pub category: String,
    pub input_schema: Value,
    pub output_schema: Option<Value>,
    pub config: Value,
}

impl ToolDefinition {
    /// `max_bytes` is of its schemas and its configuration, each.
    ///
    /// # Errors
    /// `Invalid` with every bad field.
    pub fn check(&self, max_bytes: usize) -> Result<()> {
        let mut bad = Vec::new();
        let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
        if !is_name(&self.name) {
            fail("name", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -".into());
        }
        if !is_name(&self.category) {
            fail("category", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -".into());
        }
        if self.description.chars().count() > MAX_DESCRIPTION {
            fail("description", format!("at most {MAX_DESCRIPTION} characters"));
        }
        if let Err(e) = schema::compile_arguments(&self.input_schema) {
            fail("input_schema", e);
        }
        if let Some(Err(e)) = self.output_schema.as_ref().map(schema::compile) {
            fail("output_schema", e);
        }
        let parts = [
            ("input_schema", Some(&self.input_schema)),
            ("output_schema", self.output_schema.as_ref()),
            ("config", Some(&self.config)),
        ];
        for (field, value) in parts {
            if value.is_some_and(|v| v.to_string().len() > max_bytes) {
                fail(field, format!("at most {max_bytes} bytes of JSON"));
            }
        }
        match self.kind {
            ToolType::Http => bad.extend(HttpTool::parse(&self.config, &self.input_schema).err().into_iter().flatten()),
            ToolType::Code => bad.extend(check_code_config(&self.config)),
            ToolType::Mcp | ToolType::Openapi => fail("type", "such tools come with plugins".into()),
        }
        if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
    }
}

/// What models and URLs take for a name.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        let good = ToolDefinition {
            name: "get_weather".into(),
            description: "x".into(),
            kind: ToolType::Http,
            category: DEFAULT_CATEGORY.into(),
            input_schema: json!({ "type": "object" }),
            output_schema: None,
            config: json!({ "url": "https://x.test/" }),
        };
        assert!(good.check(1000).is_ok());
        let bad = ToolDefinition {
            name: "a b".into(),
            description: "x".repeat(MAX_DESCRIPTION + 1),
            category: String::new(),
            input_schema: json!({}),
            output_schema: Some(json!({ "type": "nothing" })),
            config: json!({ "method": "GET" }),
            ..good.clone()
        };
        let fields: Vec<_> = bad.check(1000).unwrap_err().fields.into_iter().map(|f| f.field).collect();
        assert_eq!(fields, ["name", "category", "description", "input_schema", "output_schema", "config.url"]);
        let long =
            ToolDefinition { config: json!({ "url": "https://x.test/", "body": "x".repeat(1000), "method": "POST" }), ..good };
        assert_eq!(long.check(1000).unwrap_err().fields[0].field, "config");
    }
}
