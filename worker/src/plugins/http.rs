//! One request of a plugin, bounded, to an address that is checked at each hop.
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use reqwest::{
    Method, Response, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION},
};
use runmill_shared::config::Security;

use crate::tools::{
    ToolError,
    ssrf::{Guard, Refused},
};

const MAX_REDIRECTS: usize = 5;

pub struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
}

pub struct Answer {
    pub status: u16,
    /// In lower case, without parameters; empty: it says none.
    pub media_type: String,
    pub body: Vec<u8>,
}

/// The guard of these settings: made once, since its clients are pools.
pub fn guard(security: &Security) -> Result<Arc<Guard>, ToolError> {
    static GUARDS: LazyLock<Mutex<HashMap<Vec<String>, Arc<Guard>>>> = LazyLock::new(Mutex::default);
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(guard) = guards.get(&security.allow_private_hosts) {
        return Ok(guard.clone());
    }
    let guard = Guard::new(&security.allow_private_hosts).map_err(|e| ToolError::new("INTERNAL", e.message.into_owned()))?;
    let guard = Arc::new(guard);
    guards.insert(security.allow_private_hosts.clone(), guard.clone());
    Ok(guard)
}

/// Sends it and reads at most `max` bytes of the answer. Redirects of a GET are followed; another origin is shown no headers of ours.
pub async fn send(guard: &Guard, mut request: Outgoing, max: usize) -> Result<Answer, ToolError> {
    for _ in 0..=MAX_REDIRECTS {
        let client = guard.client(&request.url).map_err(|e| refused(&e))?;
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let response = builder.send().await.map_err(|e| failed(&e))?;
        match redirected(&request, &response)? {
            Some(url) => {
                if url.origin() != request.url.origin() {
                    request.headers =
                        request.headers.get(ACCEPT).map(|a| HeaderMap::from_iter([(ACCEPT, a.clone())])).unwrap_or_default();
                }
                request.url = url;
            }
            None => return read(response, max).await,
        }
    }
    Err(ToolError::new("TOO_MANY_REDIRECTS", format!("more than {MAX_REDIRECTS} redirects")))
}

fn redirected(request: &Outgoing, response: &Response) -> Result<Option<Url>, ToolError> {
    if request.method != Method::GET || !response.status().is_redirection() {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let url = location.to_str().ok().and_then(|l| request.url.join(l).ok());
    url.map(Some).ok_or_else(|| ToolError::new("REQUEST_FAILED", "redirected to what is no URL"))
}

async fn read(mut response: Response, max: usize) -> Result<Answer, ToolError> {
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(&e))? {
        if body.len() + chunk.len() > max {
            return Err(ToolError::new("RESPONSE_TOO_LARGE", format!("the answer is larger than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), media_type, body })
}

pub fn refused(refused: &Refused) -> ToolError {
    ToolError::new(refused.code, refused.message.clone())
}

/// The causes without the URL, which can hold a secret in its query.
pub fn failed(error: &reqwest::Error) -> ToolError {
    if let Some(found) = Refused::within(error) {
        return refused(found);
    }
    let mut message = if error.is_connect() { "the connection failed" } else { "the request failed" }.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // Writing to a String cannot fail.
        let _ = write!(message, ": {inner}");
        cause = inner.source();
    }
    ToolError::new("REQUEST_FAILED", message)
}
