//! Requests to addresses that somebody else names. Each hop is checked by `ssrf`, bodies are read up to a limit, and what goes wrong is
//! told without the URL, which can hold a secret in its query.
use std::{fmt::Write, sync::Arc};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName},
};
use runmill_shared::{Result, config::Security};

use crate::tools::{
    ToolError,
    ssrf::{Guard, Refused},
};

const MAX_REDIRECTS: usize = 5;
const ACCEPT_ANY: &str = "*/*";

/// A cheap clone; clones share their connections.
#[derive(Clone)]
pub struct Web(Arc<Guard>);

/// What one hop sends.
pub struct Hop {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<String>,
    /// Beside `Authorization` and `Cookie`: the header that no other origin may see.
    pub secret_header: Option<HeaderName>,
}

impl Hop {
    pub fn get(url: Url) -> Self {
        let headers = HeaderMap::from_iter([(header::ACCEPT, header::HeaderValue::from_static(ACCEPT_ANY))]);
        Self { method: Method::GET, url, headers, body: None, secret_header: None }
    }
}

/// A body, as far as it was read.
pub struct Read {
    pub bytes: Vec<u8>,
    /// There was more.
    pub truncated: bool,
}

impl Read {
    /// As UTF-8; a character that was cut at the end is left out.
    pub fn into_text(mut self) -> String {
        if self.truncated
            && let Err(e) = std::str::from_utf8(&self.bytes)
            && e.error_len().is_none()
        {
            self.bytes.truncate(e.valid_up_to());
        }
        String::from_utf8(self.bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

impl Web {
    /// # Errors
    /// `Invalid` when `allow_private_hosts` has an entry that is no host.
    pub fn new(security: &Security) -> Result<Self> {
        Ok(Self(Arc::new(Guard::new(&security.allow_private_hosts)?)))
    }

    /// As `new`, with one more host that may be private: one of the operator's.
    ///
    /// # Errors
    /// Those of `new`.
    pub fn with_host(security: &Security, host: String) -> Result<Self> {
        let mut allowed = security.allow_private_hosts.clone();
        allowed.push(host);
        Ok(Self(Arc::new(Guard::new(&allowed)?)))
    }

    /// One request, whose redirects are answers.
    pub async fn send_once(&self, hop: &Hop) -> Result<Response, ToolError> {
        let client = self.0.client(&hop.url).map_err(refused)?;
        let mut request = client.request(hop.method.clone(), hop.url.clone()).headers(hop.headers.clone());
        if let Some(body) = &hop.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(failed)
    }

    /// The answer of the last hop, and its URL.
    pub async fn send(&self, mut hop: Hop) -> Result<(Url, Response), ToolError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&hop).await?;
            match redirected(&hop, &response)? {
                Some(next) => hop = next,
                None => return Ok((hop.url, response)),
            }
        }
        Err(ToolError::new("TOO_MANY_REDIRECTS", format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// GETs a page that answers with success.
    pub async fn fetch(&self, url: &str) -> Result<(Url, Response), ToolError> {
        let url = Url::parse(url).map_err(|e| ToolError::invalid(format!("url: {e}")))?;
        let (url, response) = self.send(Hop::get(url)).await?;
        if response.status().is_success() {
            return Ok((url, response));
        }
        Err(ToolError::new("HTTP_ERROR", format!("status {}", response.status())))
    }
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
        for name in [Some(&header::AUTHORIZATION), Some(&header::COOKIE), hop.secret_header.as_ref()].into_iter().flatten() {
            headers.remove(name);
        }
    }
    let as_get = match status {
        S::SEE_OTHER => hop.method != Method::HEAD,
        S::MOVED_PERMANENTLY | S::FOUND => hop.method == Method::POST,
        _ => false,
    };
    let secret_header = hop.secret_header.clone();
    if !as_get {
        return Ok(Some(Hop { method: hop.method.clone(), url, headers, body: hop.body.clone(), secret_header }));
    }
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        headers.remove(name);
    }
    Ok(Some(Hop { method: Method::GET, url, headers, body: None, secret_header }))
}

/// At most `max` bytes of the body: the rest is never read.
pub async fn read(response: &mut Response, max: usize) -> Result<Read, ToolError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let room = max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Read { bytes, truncated: true });
        }
    }
    Ok(Read { bytes, truncated: false })
}

/// The type alone, in lower case; empty when none is said.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub fn is_json(content_type: &str) -> bool {
    content_type == "application/json" || content_type.ends_with("+json")
}

fn refused(refused: Refused) -> ToolError {
    ToolError::new(refused.code, refused.message)
}

/// The causes without the URL.
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
