//! `http_request`: one request to the public internet, redirects followed and each hop checked (see `ssrf`).
use std::{collections::BTreeMap, fmt::Write};

use async_trait::async_trait;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use runmill_shared::{Result, config::Security};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Tool, ToolContext, ToolError, parse,
    ssrf::{Guard, Refused},
};

const MAX_REDIRECTS: usize = 5;
const MAX_URL_LENGTH: usize = 8192;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// They belong to the connection, or to us.
const REFUSED_HEADERS: [&str; 9] =
    ["connection", "content-length", "expect", "host", "idempotency-key", "te", "trailer", "transfer-encoding", "upgrade"];
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
    guard: Guard,
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

/// What one hop sends.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
}

impl HttpRequest {
    /// # Errors
    /// `Invalid` when `allow_private_hosts` has an entry that is no host.
    pub fn new(security: &Security) -> Result<Self> {
        Ok(Self { guard: Guard::new(&security.allow_private_hosts)? })
    }

    /// The answer of the last hop, and its URL.
    async fn send(&self, mut hop: Hop) -> Result<(Url, Response), ToolError> {
        for _ in 0..=MAX_REDIRECTS {
            let client = self.guard.client(&hop.url).map_err(refused)?;
            let mut request = client.request(hop.method.clone(), hop.url.clone()).headers(hop.headers.clone());
            if let Some(body) = &hop.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(failed)?;
            match redirected(&hop, &response)? {
                Some(next) => hop = next,
                None => return Ok((hop.url, response)),
            }
        }
        Err(ToolError::new("TOO_MANY_REDIRECTS", format!("more than {MAX_REDIRECTS} redirects")))
    }
}

#[async_trait]
impl Tool for HttpRequest {
    fn name(&self) -> &'static str {
        "http_request"
    }

    fn description(&self) -> &'static str {
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

    fn idempotent(&self, arguments: &Value) -> bool {
        matches!(arguments["method"].as_str(), Some("GET" | "HEAD"))
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let first = first_hop(parse(arguments)?, &cx.step_key)?;
        let (url, mut response) = self.send(first).await?;
        let (body, truncated) = read(&mut response, cx.max_output_bytes).await?;
        let mut answer = json!({
            "status": response.status().as_u16(),
            "url": url.as_str(),
            "headers": shown(response.headers()),
            "body": body,
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
            (Ok(name), _) if REFUSED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") => {
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
        Ok(url) if problems.is_empty() => return Ok(Hop { method, url, headers, body: arguments.body }),
        Ok(_) => {}
        Err(e) => problems.push(format!("url: {e}")),
    }
    Err(ToolError::invalid(problems.join("; ")))
}

/// The next hop, when the answer asks for one. As browsers do: 303, and 301 or 302 to a POST, go on as GET without the body; another
/// origin never sees the credentials.
fn redirected(hop: &Hop, response: &Response) -> Result<Option<Hop>, ToolError> {
    use StatusCode as S;
    let status = response.status();
    let asks = matches!(status, S::MOVED_PERMANENTLY | S::FOUND | S::SEE_OTHER | S::TEMPORARY_REDIRECT | S::PERMANENT_REDIRECT);
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| asks) else { return Ok(None) };
    let target = std::str::from_utf8(location.as_bytes()).ok().and_then(|l| hop.url.join(l).ok());
    let url = target.ok_or_else(|| ToolError::new("REQUEST_FAILED", "redirected to what is no URL"))?;
    let mut headers = hop.headers.clone();
    if url.origin() != hop.url.origin() {
        for name in [header::AUTHORIZATION, header::COOKIE] {
            headers.remove(name);
        }
    }
    let as_get = match status {
        S::SEE_OTHER => hop.method != Method::HEAD,
        S::MOVED_PERMANENTLY | S::FOUND => hop.method == Method::POST,
        _ => false,
    };
    if !as_get {
        return Ok(Some(Hop { method: hop.method.clone(), url, headers, body: hop.body.clone() }));
    }
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        headers.remove(name);
    }
    Ok(Some(Hop { method: Method::GET, url, headers, body: None }))
}

/// At most `max` bytes of the body as text, and whether there was more: the rest is never read.
async fn read(response: &mut Response, max: usize) -> Result<(String, bool), ToolError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let room = max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            let whole = std::str::from_utf8(&bytes)
                .map_or_else(|e| if e.error_len().is_none() { e.valid_up_to() } else { max }, str::len);
            bytes.truncate(whole);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), true));
        }
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), false))
}

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let found = SHOWN_HEADERS.iter().filter_map(|name| headers.get(name).map(|value| (name, value)));
    found.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect()
}

fn refused(refused: Refused) -> ToolError {
    ToolError::new(refused.code, refused.message)
}

/// The causes without the URL, which can hold a secret in its query.
fn failed(error: reqwest::Error) -> ToolError {
    let error = error.without_url();
    if let Some(found) = Refused::within(&error) {
        return refused(found.clone());
    }
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        // Writing to a String cannot fail.
        let _ = write!(message, ": {inner}");
        cause = inner.source();
    }
    ToolError::new("REQUEST_FAILED", message)
}
