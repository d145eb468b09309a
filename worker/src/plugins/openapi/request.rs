//! A call of an operation: its request is written as the document says, and its answer is read.
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use runmill_shared::{
    App,
    config::Secret,
    domain::plugin::{Auth, AuthKind},
};
use serde_json::{Map, Value, json};

use super::operation::{Body, Content, FORM, Operation, Parameter, Place, Style, is_json};
use crate::{
    plugins::http::{Answer, Outgoing, guard, send},
    tools::{ToolError, prefix},
};

/// Of an answer that is an error.
const SHOWN_BYTES: usize = 1500;
/// What RFC 3986 reserves for nothing.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `secret`: what `operation.auth` names. `step_key` makes a request that may change something recognisable when it is made again.
///
/// # Errors
/// `HTTP_ERROR` for a status of 300 or above, with the beginning of the answer; `SECRET_MISSING`; `INVALID_ARGUMENTS`; those of
/// the connection.
pub async fn call(
    app: &App,
    operation: &Operation,
    secret: Option<&Secret>,
    arguments: &Map<String, Value>,
    step_key: &str,
) -> Result<Value, ToolError> {
    let mut request = build(operation, arguments)?;
    if let Some(auth) = &operation.auth {
        let missing = || ToolError::new("SECRET_MISSING", format!("the plugin's owner has no secret named {:?}", auth.secret));
        authorise(&mut request.headers, auth, secret.ok_or_else(missing)?)?;
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        request.headers.insert("idempotency-key", header("idempotency-key", step_key)?);
    }
    read(send(&*guard(&app.config.security)?, request, app.config.plugins.max_response_bytes).await?)
}

fn bad(name: &str, message: &str) -> ToolError {
    ToolError::new("INVALID_ARGUMENTS", format!("{name}: {message}"))
}

fn header(name: &str, value: &str) -> Result<HeaderValue, ToolError> {
    HeaderValue::try_from(value).map_err(|_| bad(name, "has characters that no header may have"))
}

fn authorise(headers: &mut HeaderMap, auth: &Auth, secret: &Secret) -> Result<(), ToolError> {
    let (name, value) = match auth.kind {
        AuthKind::Bearer => (AUTHORIZATION, format!("Bearer {}", secret.expose())),
        AuthKind::Basic => (AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(secret.expose()))),
        AuthKind::Header => {
            let name = HeaderName::try_from(auth.header.as_deref().unwrap_or_default());
            (name.map_err(|_| bad("auth.header", "no name of a header"))?, secret.expose().to_owned())
        }
    };
    let mut value =
        HeaderValue::try_from(value).map_err(|_| ToolError::new("SECRET_UNUSABLE", "the secret does not fit in a header"))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

pub(super) fn build(operation: &Operation, arguments: &Map<String, Value>) -> Result<Outgoing, ToolError> {
    let method = Method::from_bytes(operation.method.as_bytes()).map_err(|e| ToolError::new("INTERNAL", e.to_string()))?;
    let (mut path, mut pairs, mut headers) = (operation.path.clone(), Vec::new(), HeaderMap::new());
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    for parameter in &operation.parameters {
        let Some(value) = arguments.get(&parameter.property).filter(|v| !v.is_null()) else { continue };
        match parameter.place {
            Place::Path => path = path.replace(&format!("{{{}}}", parameter.name), &in_path(parameter, value)),
            Place::Query => in_query(parameter, value, &mut pairs),
            Place::Header => {
                let name = HeaderName::try_from(&parameter.name).map_err(|_| bad(&parameter.name, "no name of a header"))?;
                headers.insert(name, header(&parameter.property, &delimited(parameter, value, ",", &str::to_owned))?);
            }
        }
    }
    let url = url(operation, &path, &pairs)?;
    let body = operation.body.as_ref().map(|body| written(body, arguments)).transpose()?.flatten();
    if let (Some(described), Some(_)) = (&operation.body, &body) {
        let media_type = if described.media_type.contains('*') { "application/json" } else { described.media_type.as_str() };
        headers.insert(CONTENT_TYPE, header("content-type", media_type)?);
    }
    Ok(Outgoing { method, url, headers, body })
}

fn url(operation: &Operation, path: &str, pairs: &[(String, String)]) -> Result<Url, ToolError> {
    // A URL parser would take such a segment as a step upwards, out of what the operation is about.
    let is_step = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(is_step) {
        return Err(bad("path", "a value of . or .. is refused"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut url = Url::parse(&format!("{}{slash}{path}", operation.base_url))
        .map_err(|e| ToolError::new("INVALID_URL", format!("the operation's URL: {e}")))?;
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(url)
}

/// A value that is no list and no object, as text.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Its parts joined: `a,b` of a list, `k,v` or `k=v` of an object.
fn delimited(parameter: &Parameter, value: &Value, by: &str, encode: &dyn Fn(&str) -> String) -> String {
    let part = |v: &Value| encode(&scalar(v));
    match value {
        _ if parameter.json => encode(&value.to_string()),
        Value::Array(items) => items.iter().map(part).collect::<Vec<_>>().join(by),
        Value::Object(map) => {
            let between = if parameter.explode { "=" } else { by };
            map.iter().map(|(k, v)| format!("{}{between}{}", encode(k), part(v))).collect::<Vec<_>>().join(by)
        }
        other => part(other),
    }
}

fn in_path(parameter: &Parameter, value: &Value) -> String {
    let encode = |text: &str| utf8_percent_encode(text, VALUE).to_string();
    let name = encode(&parameter.name);
    match (parameter.style, value) {
        (Style::Label, _) => format!(".{}", delimited(parameter, value, if parameter.explode { "." } else { "," }, &encode)),
        (Style::Matrix, Value::Array(items)) if parameter.explode => {
            items.iter().map(|v| format!(";{name}={}", encode(&scalar(v)))).collect()
        }
        (Style::Matrix, Value::Object(_)) if parameter.explode => format!(";{}", delimited(parameter, value, ";", &encode)),
        (Style::Matrix, _) => format!(";{name}={}", delimited(parameter, value, ",", &encode)),
        _ => delimited(parameter, value, ",", &encode),
    }
}

fn in_query(parameter: &Parameter, value: &Value, pairs: &mut Vec<(String, String)>) {
    let name = &parameter.name;
    match (parameter.style, value) {
        _ if parameter.json => pairs.push((name.clone(), value.to_string())),
        (Style::DeepObject, Value::Object(map)) => pairs.extend(map.iter().map(|(k, v)| (format!("{name}[{k}]"), scalar(v)))),
        (_, Value::Array(items)) if parameter.explode => pairs.extend(items.iter().map(|v| (name.clone(), scalar(v)))),
        (_, Value::Object(map)) if parameter.explode => pairs.extend(map.iter().map(|(k, v)| (k.clone(), scalar(v)))),
        (style, value) => {
            let by = match style {
                Style::SpaceDelimited => " ",
                Style::PipeDelimited => "|",
                _ => ",",
            };
            pairs.push((name.clone(), delimited(parameter, value, by, &str::to_owned)));
        }
    }
}

/// `None`: there is nothing to send.
fn written(body: &Body, arguments: &Map<String, Value>) -> Result<Option<Vec<u8>>, ToolError> {
    let value = match &body.content {
        Content::Whole(property) => arguments.get(property).cloned(),
        Content::Merged(names) => {
            let given = names.iter().filter_map(|(property, name)| Some((name.clone(), arguments.get(property)?.clone())));
            let given: Map<_, _> = given.collect();
            (body.is_required || !given.is_empty()).then_some(Value::Object(given))
        }
    };
    let Some(value) = value else { return Ok(None) };
    if is_json(&body.media_type) {
        return Ok(Some(value.to_string().into_bytes()));
    }
    if body.media_type != FORM {
        return Ok(Some(scalar(&value).into_bytes()));
    }
    let Value::Object(fields) = value else { return Err(bad("body", "a form is an object")) };
    let mut pairs = Vec::new();
    for (name, value) in &fields {
        match value {
            Value::Null => {}
            Value::Array(items) => pairs.extend(items.iter().map(|v| (name.clone(), scalar(v)))),
            value => pairs.push((name.clone(), scalar(value))),
        }
    }
    let mut form = Url::parse("http://form/").map_err(|e| ToolError::new("INTERNAL", e.to_string()))?;
    form.query_pairs_mut().extend_pairs(pairs);
    Ok(Some(form.query().unwrap_or_default().as_bytes().to_vec()))
}

/// JSON as it is, else text; an answer without a body is its status.
fn read(answer: Answer) -> Result<Value, ToolError> {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status >= 300 {
        let shown = prefix(text.trim(), SHOWN_BYTES);
        let message = if shown.is_empty() { String::new() } else { format!(": {shown}") };
        return Err(ToolError::new("HTTP_ERROR", format!("the server answered {}{message}", answer.status)));
    }
    if text.trim().is_empty() {
        return Ok(json!({ "status": answer.status }));
    }
    if (is_json(&answer.media_type) || answer.media_type.is_empty())
        && let Ok(value) = serde_json::from_str(&text)
    {
        return Ok(value);
    }
    Ok(Value::String(text.into_owned()))
}
