//! What an HTTP tool asks for: its configuration as users write it, and the request that one call makes of it.
use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    schema,
    template::{Place, Scope, Template},
};
use crate::error::FieldError;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// They belong to the connection, or to us.
const REFUSED_HEADERS: [&str; 9] =
    ["connection", "content-length", "expect", "host", "idempotency-key", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a request that somebody describes may set this header. `name` is in lower case.
pub fn is_settable_header(name: &str) -> bool {
    !REFUSED_HEADERS.contains(&name) && !name.starts_with("proxy-")
}

/// As it is stored. All texts but `method`, `auth` and `response_path` are templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    #[serde(default = "get")]
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub query: BTreeMap<String, Value>,
    /// A text, or JSON whose texts are templates.
    #[serde(default)]
    pub body: Option<Value>,
    #[serde(default)]
    pub auth: Option<Auth>,
    /// What of a JSON answer is the result: `/data/items/0`, or `data.items.0`.
    #[serde(default)]
    pub response_path: Option<String>,
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

fn get() -> String {
    "GET".to_owned()
}

/// How the named secret of the tool's owner is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Auth {
    Bearer { secret: String },
    Basic { secret: String, username: String },
    Header { secret: String, header: String },
}

impl Auth {
    /// Its name.
    pub fn secret(&self) -> &str {
        match self {
            Self::Bearer { secret } | Self::Basic { secret, .. } | Self::Header { secret, .. } => secret,
        }
    }

    /// The header that carries it, in lower case.
    pub fn header(&self) -> String {
        match self {
            Self::Bearer { .. } | Self::Basic { .. } => "authorization".to_owned(),
            Self::Header { header, .. } => header.to_ascii_lowercase(),
        }
    }
}

static SHAPE: LazyLock<Result<Validator, String>> = LazyLock::new(|| {
    let secret = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" });
    let texts = |values: Value| json!({ "type": ["object", "null"], "additionalProperties": values, "maxProperties": 100 });
    schema::compile(&json!({
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": {
            "method": { "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] },
            "url": { "type": "string", "minLength": 1, "maxLength": 8192 },
            "headers": texts(json!({ "type": "string" })),
            "query": texts(json!({ "type": ["string", "number", "boolean"] })),
            "body": {},
            "auth": {
                "type": ["object", "null"], "required": ["type", "secret"], "additionalProperties": false,
                "properties": {
                    "type": { "enum": ["bearer", "basic", "header"] }, "secret": secret,
                    "header": { "type": "string", "minLength": 1 }, "username": { "type": "string", "pattern": "^[^:]*$" },
                },
            },
            "response_path": { "type": ["string", "null"], "maxLength": 1024 },
            "timeout_ms": { "type": ["integer", "null"], "minimum": 1, "maximum": 600_000 },
        },
    }))
});

/// A configuration that was checked, with its templates parsed.
#[derive(Clone, Debug)]
pub struct HttpTool {
    pub method: String,
    pub auth: Option<Auth>,
    pub timeout: Option<Duration>,
    url: Template,
    headers: Vec<(String, Template)>,
    query: Vec<(String, Template)>,
    body: Option<Body>,
    /// Keys and indexes, from the outermost.
    path: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
enum Body {
    Text(Template, Place),
    Json(Node),
}

/// JSON with templates in the place of texts.
#[derive(Clone, Debug)]
enum Node {
    Template(Template),
    Value(Value),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// One request, without its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub url: Url,
    /// Names in lower case; values without control characters.
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

/// Gathers every bad field.
struct Check<'a> {
    bad: Vec<FieldError>,
    /// Set when the schema names all arguments that there are.
    known: Option<&'a Map<String, Value>>,
}

impl Check<'_> {
    fn fail(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.bad.push(FieldError { field: field.into(), message: message.into() });
    }

    fn template(&mut self, field: &str, text: &str) -> Option<Template> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(e) => {
                self.fail(field, e);
                return None;
            }
        };
        if let Some(known) = self.known {
            for name in template.arguments().into_iter().filter(|name| !known.contains_key(name)) {
                self.fail(field, format!("{name} is no property of input_schema"));
            }
        }
        Some(template)
    }

    fn header(&mut self, field: &str, name: &str) {
        let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
        if name.is_empty() || !name.bytes().all(is_token) {
            self.fail(field, "no valid header name");
        } else if !is_settable_header(&name.to_ascii_lowercase()) {
            self.fail(field, "this header cannot be set");
        }
    }

    fn node(&mut self, field: &str, value: &Value) -> Node {
        match value {
            Value::String(text) => self.template(field, text).map_or_else(|| Node::Value(value.clone()), Node::Template),
            Value::Array(items) => {
                Node::Array(items.iter().enumerate().map(|(i, item)| self.node(&format!("{field}.{i}"), item)).collect())
            }
            Value::Object(fields) => {
                let one = |(key, value): (&String, &Value)| (key.clone(), self.node(&format!("{field}.{key}"), value));
                Node::Object(fields.iter().map(one).collect())
            }
            other => Node::Value(other.clone()),
        }
    }
}

impl HttpTool {
    /// `arguments` is the tool's input schema: where it names all arguments, a template can name no other.
    ///
    /// # Errors
    /// Every bad field, as `config.…`.
    pub fn parse(config: &Value, arguments: &Value) -> Result<Self, Vec<FieldError>> {
        let whole = |message: String| vec![FieldError { field: "config".into(), message }];
        let shape = SHAPE.as_ref().map_err(|e| whole(e.clone()))?;
        let mut problems = schema::problems(shape, config, "config");
        let auth = &config["auth"];
        for (kind, field) in [("basic", "username"), ("header", "header")] {
            match (auth["type"] == kind, auth.get(field).is_some()) {
                (true, false) => {
                    problems.push(FieldError { field: format!("config.auth.{field}"), message: "is required".into() })
                }
                (false, true) if auth["type"].is_string() => {
                    let message = format!("belongs to auth of type {kind}");
                    problems.push(FieldError { field: format!("config.auth.{field}"), message });
                }
                _ => {}
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut config = config.clone();
        if let Some(fields) = config.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let config: HttpConfig = serde_json::from_value(config).map_err(|e| whole(e.to_string()))?;
        let closed = arguments["additionalProperties"] == false;
        let none = Map::new();
        let known = closed.then(|| arguments["properties"].as_object().unwrap_or(&none));
        Self::check(config, Check { bad: Vec::new(), known })
    }

    fn check(config: HttpConfig, mut check: Check<'_>) -> Result<Self, Vec<FieldError>> {
        let url = check.template("config.url", &config.url);
        if let Some(url) = &url {
            check_url(&mut check, url, config.auth.is_some());
        }
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let field = format!("config.headers.{name}");
            check.header(&field, name);
            if config.auth.as_ref().is_some_and(|auth| auth.header().eq_ignore_ascii_case(name)) {
                check.fail(&field, "auth sets this header");
            }
            headers.extend(check.template(&field, value).map(|t| (name.to_ascii_lowercase(), t)));
        }
        if let Some(Auth::Header { header, .. }) = &config.auth {
            check.header("config.auth.header", header);
        }
        let mut query = Vec::new();
        for (name, value) in &config.query {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            query.extend(check.template(&format!("config.query.{name}"), &text).map(|t| (name.clone(), t)));
        }
        let body = config.body.as_ref().and_then(|body| body_of(&mut check, body, &config));
        let path = config.response_path.as_deref().map(segments);
        match url {
            Some(url) if check.bad.is_empty() => {
                let timeout = config.timeout_ms.map(Duration::from_millis);
                Ok(Self { method: config.method, auth: config.auth, timeout, url, headers, query, body, path })
            }
            _ => Err(check.bad),
        }
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// The request that a call with these arguments makes. Arguments that are left out leave out the headers, parameters and members
    /// of the body that are nothing but them.
    ///
    /// # Errors
    /// What in the arguments makes no request.
    pub fn request(&self, arguments: &Value) -> Result<Request, String> {
        let scope = Scope::new(arguments);
        let text = self.url.render(&scope, Place::Url)?.unwrap_or_default();
        if has_dot_segment(&text) {
            return Err("url: an argument would lead to another path".to_owned());
        }
        let mut url = Url::parse(&text).map_err(|e| format!("url: {e}"))?;
        for (name, template) in &self.query {
            if let Some(value) = template.render(&scope, Place::Text)? {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let mut headers = Vec::new();
        for (name, template) in &self.headers {
            let Some(value) = template.render(&scope, Place::Text)? else { continue };
            if value.chars().any(char::is_control) {
                return Err(format!("header {name}: an argument has characters that no header may have"));
            }
            headers.push((name.clone(), value));
        }
        let body = match &self.body {
            None => None,
            Some(Body::Text(template, place)) => template.render(&scope, *place)?,
            Some(Body::Json(node)) => node.value(&scope)?.map(|value| value.to_string()),
        };
        if matches!(self.body, Some(Body::Json(_) | Body::Text(_, Place::Json)))
            && !headers.iter().any(|(name, _)| name == "content-type")
        {
            headers.push(("content-type".to_owned(), JSON.to_owned()));
        }
        Ok(Request { url, headers, body })
    }

    /// What of a JSON answer is the result; `None` when it has no such place.
    pub fn result(&self, answer: Value) -> Option<Value> {
        let Some(path) = &self.path else { return Some(answer) };
        let step = |at: Value, key: &String| match at {
            Value::Object(mut fields) => fields.remove(key),
            Value::Array(mut items) => {
                let at: usize = key.parse().ok()?;
                (at < items.len()).then(|| items.swap_remove(at))
            }
            _ => None,
        };
        path.iter().try_fold(answer, step)
    }

    /// Whether the result is a part of the answer, which then must be JSON.
    pub fn has_path(&self) -> bool {
        self.path.is_some()
    }
}

/// With no argument in it, or none before its path, it can be judged now. A secret goes to a host that the tool's owner has named.
fn check_url(check: &mut Check<'_>, url: &Template, has_auth: bool) {
    let beginning = url.beginning();
    let rest = beginning.strip_prefix("https://").or_else(|| beginning.strip_prefix("http://"));
    let is_fixed = url.is_literal() || rest.is_some_and(|rest| rest.contains(['/', '?', '#']));
    if has_auth && !is_fixed {
        check.fail("config.url", "with auth, the scheme and the host cannot come from an argument");
    }
    if rest.is_none() && !beginning.is_empty() {
        check.fail("config.url", "must begin with http:// or https://");
    } else if is_fixed {
        match Url::parse(beginning) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                check.fail("config.url", "credentials in a URL are not sent; use auth");
            }
            Ok(_) => {}
            Err(e) => check.fail("config.url", e.to_string()),
        }
    }
}

fn body_of(check: &mut Check<'_>, body: &Value, config: &HttpConfig) -> Option<Body> {
    if matches!(config.method.as_str(), "GET" | "HEAD") {
        check.fail("config.body", format!("{} has none", config.method));
    }
    let Value::String(text) = body else { return Some(Body::Json(check.node("config.body", body))) };
    let content_type = config.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let content_type = content_type.map_or(JSON, |(_, value)| value.split(';').next().unwrap_or_default().trim());
    let place = match content_type.to_ascii_lowercase().as_str() {
        FORM => Place::Form,
        t if t == JSON || t.ends_with("+json") => Place::Json,
        _ => Place::Text,
    };
    check.template("config.body", text).map(|template| Body::Text(template, place))
}

impl Node {
    fn value(&self, scope: &Scope) -> Result<Option<Value>, String> {
        Ok(Some(match self {
            Self::Template(template) => return template.value(scope),
            Self::Value(value) => value.clone(),
            Self::Array(items) => {
                let values = items.iter().map(|item| Ok(item.value(scope)?.unwrap_or_default()));
                Value::Array(values.collect::<Result<_, String>>()?)
            }
            Self::Object(fields) => {
                let mut object = Map::new();
                for (key, node) in fields {
                    object.extend(node.value(scope)?.map(|value| (key.clone(), value)));
                }
                Value::Object(object)
            }
        }))
    }
}

/// `.` and `..` between slashes: a URL's parser takes them for steps, also percent-encoded.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).any(|segment| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    })
}

fn segments(path: &str) -> Vec<String> {
    match path.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect(),
        None => {
            let dotted = path.strip_prefix('$').unwrap_or(path).replace('[', ".").replace(']', "");
            dotted.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect()
        }
    }
}

#[cfg(test)]
mod tests;
