//! `http_request`: one request to the public internet, redirects followed and each hop checked (see `ssrf`).
use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::{
    Method, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use runmill_shared::domain::tool::http::is_settable_header;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Hop, Web, read};
use crate::tools::{Tool, ToolContext, ToolError, parse};

const MAX_URL_LENGTH: usize = 8192;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// What a model can use of an answer's headers.
const SHOWN_HEADERS: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
];

pub struct HttpRequest {
    web: Web,
}

#[derive(Deserialize)]
struct Arguments {
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
}

impl HttpRequest {
    pub fn new(web: Web) -> Self {
        Self { web }
    }
}

#[async_trait]
impl Tool for HttpRequest {
    fn name(&self) -> &str {
        "http_request"
    }

    fn category(&self) -> &str {
        "web"
    }

    fn description(&self) -> &str {
        "Sends one HTTP request to a public address and answers with the status, some headers and the body as text. Redirects are \
         followed. A status of 400 or above is an answer, not an error."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": METHODS},
                "url": {"type": "string", "maxLength": MAX_URL_LENGTH, "description": "http:// or https://, without credentials"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 50},
                "body": {"type": "string", "description": "sent as application/json unless headers has a content-type"},
            },
            "required": ["method", "url"],
            "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["status", "url", "headers", "body"],
            "properties": {
                "status": {"type": "integer"}, "url": {"type": "string", "description": "after redirects"},
                "headers": {"type": "object"}, "body": {"type": "string"}, "truncated": {"type": "boolean"},
            },
        })
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, arguments: &Value) -> bool {
        matches!(arguments["method"].as_str(), Some("GET" | "HEAD"))
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let first = first_hop(parse(arguments)?, &cx.step_key)?;
        let (url, mut response) = self.web.send(first).await?;
        let body = read(&mut response, cx.max_output_bytes).await?;
        let truncated = body.truncated;
        let mut answer = json!({
            "status": response.status().as_u16(),
            "url": url.as_str(),
            "headers": shown(response.headers()),
            "body": body.into_text(),
        });
        if truncated {
            answer["truncated"] = Value::Bool(true);
        }
        Ok(answer)
    }
}

/// All problems of the arguments at once, or the request that they ask for.
fn first_hop(arguments: Arguments, step_key: &str) -> Result<Hop, ToolError> {
    let mut problems = Vec::new();
    let mut headers = HeaderMap::new();
    for (name, value) in &arguments.headers {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), _) if !is_settable_header(name.as_str()) => {
                problems.push(format!("headers/{name}: this header cannot be set"));
            }
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            (Err(_), _) => problems.push(format!("headers/{name}: no valid header name")),
            (_, Err(_)) => problems.push(format!("headers/{name}: the value has characters that no header may have")),
        }
    }
    let method = Method::from_bytes(arguments.method.as_bytes()).map_err(|e| ToolError::invalid(format!("method: {e}")))?;
    if arguments.body.is_some() {
        if matches!(method, Method::GET | Method::HEAD) {
            problems.push(format!("body: {method} has none"));
        }
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    let key = HeaderValue::try_from(step_key).map_err(|e| ToolError::new("INTERNAL", format!("step key: {e}")))?;
    headers.insert("idempotency-key", key);
    match Url::parse(&arguments.url) {
        Ok(url) if problems.is_empty() => return Ok(Hop { method, url, headers, body: arguments.body, secret_header: None }),
        Ok(_) => {}
        Err(e) => problems.push(format!("url: {e}")),
    }
    Err(ToolError::invalid(problems.join("; ")))
}

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let found = SHOWN_HEADERS.iter().filter_map(|name| headers.get(name).map(|value| (name, value)));
    found.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect()
}
