//! `url_parse`: the parts of a URL.
use async_trait::async_trait;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::tools::{Tool, ToolContext, ToolError, parse};

const MAX_URL_LENGTH: usize = 8192;

pub struct UrlParse;

#[derive(Deserialize)]
struct Arguments {
    url: String,
}

#[async_trait]
impl Tool for UrlParse {
    fn name(&self) -> &str {
        "url_parse"
    }

    fn category(&self) -> &str {
        "web"
    }

    fn description(&self) -> &str {
        "Takes a URL apart: scheme, host, port, path, query parameters (each a list of its values, decoded) and fragment."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {"url": {"type": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH}},
        })
    }

    fn output(&self) -> Value {
        let text = json!({"type": "string"});
        json!({
            "type": "object", "required": ["url", "scheme", "path", "query"],
            "properties": {
                "url": {"type": "string", "description": "normalized"}, "scheme": text, "username": text, "host": text,
                "port": {"type": "integer", "description": "the scheme's own when none is given"}, "path": text,
                "query": {"type": "object", "additionalProperties": {"type": "array", "items": text}}, "fragment": text,
            },
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, _cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Arguments { url } = parse(arguments)?;
        let url = Url::parse(url.trim()).map_err(|e| ToolError::new("INVALID_URL", e.to_string()))?;
        let mut query = Map::new();
        for (name, value) in url.query_pairs() {
            if let Some(values) = query.entry(name).or_insert_with(|| json!([])).as_array_mut() {
                values.push(value.into());
            }
        }
        let mut parts = json!({ "url": url.as_str(), "scheme": url.scheme(), "path": url.path(), "query": query });
        let optional = [
            ("username", Some(url.username()).filter(|u| !u.is_empty())),
            ("host", url.host_str()),
            ("fragment", url.fragment()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                parts[name] = value.into();
            }
        }
        if let Some(port) = url.port_or_known_default() {
            parts["port"] = port.into();
        }
        Ok(parts)
    }
}
