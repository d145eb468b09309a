//! `web_search`: asks the operator's SearXNG server.
use async_trait::async_trait;
use reqwest::Url;
use runmill_shared::{Error, Result, config::Config};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Hop, Web, read};
use crate::tools::{Tool, ToolContext, ToolError, parse};

const DEFAULT_LIMIT: usize = 5;
const MAX_LIMIT: usize = 20;

pub struct WebSearch {
    web: Web,
    endpoint: Url,
}

#[derive(Deserialize)]
struct Arguments {
    query: String,
    #[serde(default)]
    limit: Option<usize>,
}

/// What SearXNG answers to `format=json`, as far as it is used.
#[derive(Deserialize)]
struct Answer {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    title: String,
    url: String,
    #[serde(default)]
    content: String,
}

impl WebSearch {
    /// `None` without an endpoint: then there is no such tool. The endpoint may be private, it is the operator's.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is no http(s) URL.
    pub fn from_config(config: &Config) -> Result<Option<Self>> {
        let endpoint = config.tools.search_endpoint.as_str();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let bad = || Error::invalid("tools.search_endpoint", "must be an http(s) URL, as https://search.example.com/search");
        let endpoint = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(bad)?;
        let host = endpoint.host_str().ok_or_else(bad)?;
        let host = endpoint.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Some(Self { web: Web::with_host(&config.security, host)?, endpoint }))
    }
}

#[async_trait]
impl Tool for WebSearch {
    fn name(&self) -> &str {
        "web_search"
    }

    fn category(&self) -> &str {
        "web"
    }

    fn description(&self) -> &str {
        "Searches the web and answers with titles, URLs and snippets. Read a page that looks right with web_fetch."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["query"], "additionalProperties": false,
            "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": 1000},
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            },
        })
    }

    fn output(&self) -> Value {
        let text = json!({"type": "string"});
        json!({
            "type": "object", "required": ["results"],
            "properties": {"results": {"type": "array", "items": {
                "type": "object", "required": ["title", "url", "snippet"], "properties": {"title": text, "url": text, "snippet": text},
            }}},
        })
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: Arguments = parse(arguments)?;
        let mut url = self.endpoint.clone();
        url.query_pairs_mut().append_pair("q", &arguments.query).append_pair("format", "json");
        let (_, mut response) = self.web.send(Hop::get(url)).await?;
        if !response.status().is_success() {
            return Err(ToolError::new("SEARCH_FAILED", format!("the search server answered {}", response.status())));
        }
        let body = read(&mut response, cx.app.config.tools.max_response_bytes).await?;
        let answer: Answer = serde_json::from_slice(&body.bytes)
            .map_err(|e| ToolError::new("SEARCH_FAILED", format!("the search server's answer cannot be read: {e}")))?;
        let found = answer.results.into_iter().take(arguments.limit.unwrap_or(DEFAULT_LIMIT));
        let results: Vec<_> = found.map(|f| json!({ "title": f.title, "url": f.url, "snippet": f.content })).collect();
        Ok(json!({ "results": results }))
    }
}
