//! A tool that is one HTTP request. Its secret is put in at the last moment, and cut out of whatever comes back.
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    Method, Response,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use runmill_shared::{
    Error, Result,
    config::Secret,
    domain::{
        caller::Owner,
        tool::{
            CustomTool,
            http::{Auth, HttpTool, Request},
        },
    },
    services::secrets,
};
use serde_json::Value;

use crate::tools::{
    Tool, ToolContext, ToolError, output,
    web::client::{Hop, Web, content_type, is_json, read},
};

/// Of a refusal's body, for the model.
const SHOWN: usize = 500;
/// A shorter secret is in too many texts by chance.
const SHORTEST_CUT: usize = 4;
const CUT: &str = "[secret]";

pub struct Http {
    tool: CustomTool,
    http: HttpTool,
    web: Web,
}

impl Http {
    /// # Errors
    /// `TOOL_UNUSABLE` for a configuration that this release does not take.
    pub fn new(web: &Web, tool: CustomTool) -> Result<Self> {
        let http = HttpTool::parse(&tool.config, &tool.input_schema).map_err(|bad| {
            let fields: Vec<_> = bad.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
            Error::conflict("TOOL_UNUSABLE", format!("{}: {}", tool.name, fields.join("; ")))
        })?;
        Ok(Self { tool, http, web: web.clone() })
    }

    async fn secret(&self, cx: &ToolContext) -> Result<Option<Secret>, ToolError> {
        let Some(auth) = &self.http.auth else { return Ok(None) };
        let owner = Owner::of_row(&self.tool.owner);
        let secret = secrets::reveal(&cx.app, &owner, auth.secret()).await;
        secret.map(Some).map_err(|e| ToolError::new(e.code, e.message.into_owned()))
    }

    fn hop(&self, cx: &ToolContext, request: Request, sent: Option<&str>) -> Result<Hop, ToolError> {
        let invalid = |name: &str| ToolError::invalid(format!("header {name}: its value has characters that no header may have"));
        let mut headers = HeaderMap::new();
        for (name, text) in &request.headers {
            let key = HeaderName::try_from(name).map_err(|_| invalid(name))?;
            headers.insert(key, HeaderValue::try_from(text).map_err(|_| invalid(name))?);
        }
        if !self.http.is_read_only() {
            headers.insert("idempotency-key", HeaderValue::try_from(&cx.step_key).map_err(|_| invalid("idempotency-key"))?);
        }
        let mut secret_header = None;
        if let (Some(auth), Some(sent)) = (&self.http.auth, sent) {
            let name = HeaderName::try_from(auth.header()).map_err(|_| invalid("of auth"))?;
            let mut value = HeaderValue::try_from(sent).map_err(|_| invalid("of auth"))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
            secret_header = Some(name);
        }
        let method = Method::from_bytes(self.http.method.as_bytes()).map_err(|e| ToolError::invalid(e.to_string()))?;
        Ok(Hop { method, url: request.url, headers, body: request.body, secret_header })
    }

    async fn answer(&self, cx: &ToolContext, mut response: Response, cuts: &[String]) -> Result<Value, ToolError> {
        let limit = cx.app.config.tools.max_response_bytes;
        let (status, kind) = (response.status(), content_type(response.headers()));
        let body = read(&mut response, limit).await?;
        let truncated = body.truncated;
        let text = without(body.into_text(), cuts);
        if status.is_client_error() || status.is_server_error() {
            return Err(ToolError::new("HTTP_ERROR", format!("status {status}: {}", output::prefix(&text, SHOWN))));
        }
        let wants_json = self.http.has_path();
        if !wants_json && (!is_json(&kind) || text.trim().is_empty()) {
            return Ok(if text.is_empty() { Value::Null } else { text.into() });
        }
        if truncated {
            return Err(ToolError::new("RESPONSE_TOO_LARGE", format!("the answer is larger than {limit} bytes")));
        }
        let answer = match serde_json::from_str(&text) {
            Ok(answer) => answer,
            Err(_) if !wants_json => return Ok(text.into()),
            Err(e) => return Err(ToolError::new("RESPONSE_UNREADABLE", format!("the answer is no JSON: {e}"))),
        };
        self.http.result(answer).ok_or_else(|| ToolError::new("RESPONSE_PATH_MISSING", "the answer has nothing at response_path"))
    }
}

#[async_trait]
impl Tool for Http {
    fn name(&self) -> &str {
        &self.tool.name
    }

    fn category(&self) -> &str {
        &self.tool.category
    }

    fn description(&self) -> &str {
        &self.tool.description
    }

    fn parameters(&self) -> Value {
        self.tool.input_schema.clone()
    }

    fn output(&self) -> Value {
        self.tool.output_schema.clone().unwrap_or(Value::Bool(true))
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        self.http.is_read_only()
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let request = self.http.request(&arguments).map_err(ToolError::invalid)?;
        let secret = self.secret(cx).await?;
        let sent = self.http.auth.as_ref().zip(secret.as_ref()).map(|(auth, secret)| header_of(auth, secret));
        let cuts = spellings(secret.as_ref(), sent.as_deref());
        let hop = self.hop(cx, request, sent.as_deref())?;
        let work = async {
            let (_, response) = self.web.send(hop).await?;
            self.answer(cx, response, &cuts).await
        };
        let limit = self.http.timeout.unwrap_or(cx.timeout).min(cx.timeout);
        let outcome = tokio::time::timeout(limit, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(ToolError::new("TIMEOUT", format!("no result after {limit:?}"))));
        outcome.map_err(|e| ToolError { message: without(e.message, &cuts), ..e })
    }
}

/// The value of the header that carries the secret.
fn header_of(auth: &Auth, secret: &Secret) -> String {
    match auth {
        Auth::Bearer { .. } => format!("Bearer {}", secret.expose()),
        Auth::Basic { username, .. } => {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{}", secret.expose())))
        }
        Auth::Header { .. } => secret.expose().to_owned(),
    }
}

/// How a secret looks where a server says it back: as it is, in JSON, in a URL, and as it was sent.
fn spellings(secret: Option<&Secret>, sent: Option<&str>) -> Vec<String> {
    let Some(secret) = secret.map(Secret::expose).filter(|s| s.len() >= SHORTEST_CUT) else { return Vec::new() };
    let json = Value::from(secret).to_string();
    let mut all = vec![secret.to_owned(), json[1..json.len() - 1].to_owned()];
    all.extend(
        reqwest::Url::parse_with_params("http://x", [("", secret)]).ok().and_then(|url| Some(url.query()?[1..].to_owned())),
    );
    all.extend(sent.and_then(|s| s.split_once(' ')).map(|(_, sent)| sent.to_owned()));
    all.dedup();
    all
}

fn without(mut text: String, cuts: &[String]) -> String {
    for cut in cuts {
        if text.contains(cut.as_str()) {
            text = text.replace(cut.as_str(), CUT);
        }
    }
    text
}
