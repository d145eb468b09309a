//! Plugins: tools that come from an MCP server or an OpenAPI document. What a source may say, and how its tools are named.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::tool::ToolType;
use crate::{
    config::{McpServer, Plugins},
    error::{Error, FieldError, Result},
};

/// What model providers take as a tool's name: letters, digits, `_` and `-`.
pub const MAX_TOOL_NAME: usize = 64;
const MAX_SLUG: usize = 24;
const MAX_URL: usize = 2048;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_VALUE: usize = 4096;
const MAX_NAME: usize = 64;

/// Where a plugin's tools come from, as the `plugins.source` column holds it. Values of headers are not in it: they are sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    Mcp(Server),
    Openapi(Openapi),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "lowercase")]
pub enum Server {
    /// Streamable HTTP.
    Http {
        url: String,
        /// The headers that are sent; their values are sealed.
        header_names: Vec<String>,
    },
    /// A program that the operator has named in the settings.
    Stdio { command: String },
}

/// An OpenAPI document: either the document itself or where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Openapi {
    /// The document, or its text as JSON or YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Goes before the servers that the document names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The operations that become tools, by `operationId`; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// How requests show who sends them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// Name of a secret of the plugin's owner. For `basic` it is `user:password`.
    pub secret: String,
    /// The header that carries it; of the kind `header` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthKind {
    Bearer,
    Header,
    Basic,
}

/// A tool as its source tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundTool {
    /// The source's own name for it.
    pub name: String,
    pub description: String,
    pub kind: ToolType,
    pub input_schema: Value,
    pub output_schema: Option<Value>,
    /// What its calls need to know.
    pub config: Value,
}

/// Values of headers by their names in lower case.
pub type Headers = BTreeMap<String, String>;

impl Source {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mcp(_) => "mcp",
            Self::Openapi(_) => "openapi",
        }
    }

    /// Reads what a user sends. The headers are `None` where it does not speak of them.
    ///
    /// # Errors
    /// `Invalid` naming every bad field, as `source.url`.
    pub fn read(given: &Value, limits: &Plugins, servers: &BTreeMap<String, McpServer>) -> Result<(Self, Option<Headers>)> {
        let mut fields = Fields::new(given);
        let read = match fields.text("type").as_deref() {
            Some("mcp") => fields.server(servers),
            Some("openapi") => fields.openapi(limits).map(|openapi| (Self::Openapi(openapi), None)),
            Some(_) => fields.bad("type", "mcp or openapi"),
            None => fields.required("type"),
        };
        match read {
            Some(read) if fields.bad.is_empty() => Ok(read),
            _ => Err(Error::invalid_fields(fields.bad)),
        }
    }
}

/// The members of a source, each taken once: what is left at the end nobody knows.
struct Fields {
    left: Map<String, Value>,
    bad: Vec<FieldError>,
}

impl Fields {
    fn new(given: &Value) -> Self {
        let mut this = Self { left: Map::new(), bad: Vec::new() };
        match given {
            // A member that is null counts as left out.
            Value::Object(map) => {
                this.left = map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            _ => this.bad.push(FieldError { field: "source".into(), message: "an object".into() }),
        }
        this
    }

    /// Always `None`, so that a reader can end with it.
    fn bad<T>(&mut self, field: &str, message: impl Into<String>) -> Option<T> {
        self.bad.push(FieldError { field: format!("source.{field}"), message: message.into() });
        None
    }

    fn required<T>(&mut self, field: &str) -> Option<T> {
        let said = |f: &FieldError| f.field == "source" || f.field == format!("source.{field}");
        if self.bad.iter().any(said) { None } else { self.bad(field, "is required") }
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.left.remove(field)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Value::String(_) => self.bad(field, "is empty"),
            _ => self.bad(field, "a text"),
        }
    }

    fn url(&mut self, field: &str) -> Option<String> {
        let url = self.text(field)?;
        if is_http_url(&url) { Some(url) } else { self.bad(field, "an http:// or https:// URL without credentials") }
    }

    fn nothing_more(&mut self) {
        for field in std::mem::take(&mut self.left).keys() {
            self.bad::<()>(field, "there is no such field here");
        }
    }

    fn server(&mut self, servers: &BTreeMap<String, McpServer>) -> Option<(Source, Option<Headers>)> {
        let read = match self.text("transport").as_deref() {
            Some("http") => {
                let (url, headers) = (self.url("url"), self.headers());
                let header_names = headers.iter().flatten().map(|(name, _)| name.clone()).collect();
                match url {
                    Some(url) => Some((Server::Http { url, header_names }, headers)),
                    None => self.required("url"),
                }
            }
            Some("stdio") => match self.text("command") {
                Some(command) if servers.contains_key(&command) => Some((Server::Stdio { command }, None)),
                Some(_) => self.bad("command", "the settings have no MCP server of this name"),
                None => self.required("command"),
            },
            Some(_) => self.bad("transport", "http or stdio"),
            None => self.required("transport"),
        };
        self.nothing_more();
        read.map(|(server, headers)| (Source::Mcp(server), headers))
    }

    fn headers(&mut self) -> Option<Headers> {
        let Value::Object(map) = self.left.remove("headers")? else { return self.bad("headers", "an object of texts") };
        if map.len() > MAX_HEADERS {
            return self.bad("headers", format!("at most {MAX_HEADERS}"));
        }
        let mut headers = Headers::new();
        for (name, value) in map {
            let field = format!("headers.{name}");
            match value {
                _ if !is_header_name(&name) => self.bad(&field, "no name of a header, or one that is not yours to set"),
                Value::String(value) if is_header_value(&value) => headers.insert(name.to_ascii_lowercase(), value).map(|_| ()),
                _ => self.bad(&field, format!("a text of at most {MAX_HEADER_VALUE} visible characters")),
            };
        }
        Some(headers)
    }

    fn openapi(&mut self, limits: &Plugins) -> Option<Openapi> {
        let document = self.document(limits.max_document_bytes);
        let (url, base_url) = (self.url("url"), self.url("base_url"));
        let (include, auth) = (self.include(limits.max_tools), self.auth());
        let is_named = |f: &FieldError| matches!(f.field.as_str(), "source.document" | "source.url");
        match (&document, &url) {
            (Some(_), Some(_)) => self.bad::<()>("url", "either document or url"),
            (None, None) if !self.bad.iter().any(is_named) => self.bad("document", "document or url is required"),
            _ => None,
        };
        self.nothing_more();
        Some(Openapi { document, url, base_url, include, auth })
    }

    fn document(&mut self, max: usize) -> Option<Value> {
        let document = self.left.remove("document")?;
        let size = match &document {
            Value::String(text) => text.len(),
            Value::Object(_) => document.to_string().len(),
            _ => return self.bad("document", "an object, or a text of JSON or YAML"),
        };
        if size > max { self.bad("document", format!("at most {max} bytes")) } else { Some(document) }
    }

    fn include(&mut self, max: usize) -> Option<Vec<String>> {
        let list = serde_json::from_value::<Vec<String>>(self.left.remove("include")?);
        match list {
            Ok(names) if !names.is_empty() && names.len() <= max => Some(names),
            Ok(_) => self.bad("include", format!("1 to {max} operations")),
            Err(_) => self.bad("include", "a list of operationIds"),
        }
    }

    fn auth(&mut self) -> Option<Auth> {
        let Value::Object(mut map) = self.left.remove("auth")? else { return self.bad("auth", "an object") };
        let mut text = |field: &str| match map.remove(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(()),
        };
        let (kind, secret, header) = (text("type"), text("secret"), text("header"));
        let kind = match kind.as_ref().map(Option::as_deref) {
            Ok(Some("bearer")) => Some(AuthKind::Bearer),
            Ok(Some("header")) => Some(AuthKind::Header),
            Ok(Some("basic")) => Some(AuthKind::Basic),
            _ => self.bad("auth.type", "bearer, header or basic"),
        };
        let secret = match secret {
            Ok(Some(secret)) if secret.chars().count() <= MAX_NAME => Some(secret),
            _ => self.bad("auth.secret", "the name of one of your secrets"),
        };
        match (kind, &header) {
            (Some(AuthKind::Header), Ok(Some(name))) if is_header_name(name) => None,
            (Some(AuthKind::Header), _) => self.bad::<()>("auth.header", "the name of a header that is yours to set"),
            (_, Ok(None)) => None,
            _ => self.bad("auth.header", "goes with the type header only"),
        };
        for field in map.keys() {
            self.bad::<()>(&format!("auth.{field}"), "there is no such field here");
        }
        Some(Auth { kind: kind?, secret: secret?, header: header.ok()? })
    }
}

/// As far as it can be told without a URL parser; the worker parses it before it connects.
fn is_http_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https")
        && !host.is_empty()
        && !host.contains('@')
        && text.len() <= MAX_URL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Those of the connection, of the protocols, and ours.
const REFUSED_HEADERS: [&str; 14] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A token of HTTP that a user may set.
pub fn is_header_name(name: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let lower = name.to_ascii_lowercase();
    (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(is_token)
        && !REFUSED_HEADERS.contains(&lower.as_str())
        && !lower.starts_with("proxy-")
        && !lower.starts_with("mcp-")
}

fn is_header_value(value: &str) -> bool {
    value.len() <= MAX_HEADER_VALUE && value.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

/// `My Weather (v2)` → `my_weather_v2`: what the names of a plugin's tools begin with.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('_') => {}
            _ => slug.push('_'),
        }
    }
    slug.truncate(MAX_SLUG);
    let slug = slug.trim_end_matches('_');
    if slug.is_empty() { "plugin".to_owned() } else { slug.to_owned() }
}

/// Names for a plugin's tools, `{slug}__{tool}`, of what providers take: different from each other and from those that are `taken`.
/// The same tools get the same names again.
pub fn tool_names(plugin: &str, tools: &[&str], taken: &BTreeSet<String>) -> Vec<String> {
    let (slug, mut used) = (slug(plugin), taken.clone());
    let name = |tool: &&str| {
        let plain: String = tool.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let mut name = format!("{slug}__{plain}");
        if name.len() > MAX_TOOL_NAME || plain.is_empty() {
            name = with_end(&name, &hex::encode(Sha256::digest(tool.as_bytes()))[..6]);
        }
        let first = name.clone();
        let mut number = 2;
        while !used.insert(name.clone()) {
            name = with_end(&first, &number.to_string());
            number += 1;
        }
        name
    };
    tools.iter().map(name).collect()
}

fn with_end(name: &str, end: &str) -> String {
    format!("{}_{end}", &name[..name.len().min(MAX_TOOL_NAME - 1 - end.len())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn read(source: &Value) -> Result<(Source, Option<Headers>)> {
        let server = McpServer { command: "/bin/true".into(), args: Vec::new(), env: BTreeMap::new() };
        Source::read(source, &Config::defaults().unwrap().plugins, &BTreeMap::from([("files".to_owned(), server)]))
    }

    fn bad(source: &Value) -> Vec<String> {
        read(source).unwrap_err().fields.into_iter().map(|f| f.field).collect()
    }

    #[test]
    fn the_values_of_headers_are_kept_apart() {
        let given = json!({"type": "mcp", "transport": "http", "url": " https://a.test/mcp ", "headers": {"X-Key": "s3cret"}});
        let (source, headers) = read(&given).unwrap();
        let Source::Mcp(Server::Http { url, header_names }) = &source else { panic!("{source:?}") };
        assert_eq!((url.as_str(), header_names.as_slice()), ("https://a.test/mcp", &["x-key".to_owned()][..]));
        assert!(!serde_json::to_string(&source).unwrap().contains("s3cret"));
        assert_eq!(headers.unwrap()["x-key"], "s3cret");
        let (_, headers) = read(&json!({"type": "mcp", "transport": "http", "url": "http://a.test", "headers": null})).unwrap();
        assert_eq!(headers, None);
    }

    #[test]
    fn a_source_survives_its_column() {
        let auth = json!({"type": "header", "secret": "KEY", "header": "X-Key"});
        for given in [
            json!({"type": "mcp", "transport": "stdio", "command": "files"}),
            json!({"type": "openapi", "document": {"openapi": "3.1.0"}, "include": ["a"], "base_url": "https://a.test/v1", "auth": auth}),
            json!({"type": "openapi", "url": "https://a.test/openapi.yaml"}),
        ] {
            let (source, headers) = read(&given).unwrap();
            assert_eq!((serde_json::to_value(&source).unwrap(), headers), (given.clone(), None));
            assert_eq!(serde_json::from_value::<Source>(given).unwrap(), source);
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(bad(&json!(5)), ["source"]);
        assert_eq!(bad(&json!({})), ["source.type"]);
        assert_eq!(bad(&json!({"type": "grpc"})), ["source.type"]);
        assert_eq!(bad(&json!({"type": "mcp"})), ["source.transport"]);
        assert_eq!(
            bad(&json!({"type": "mcp", "transport": "stdio", "command": "rm", "args": []})),
            ["source.command", "source.args"]
        );
        let headers = json!({"Host": "a", "b d": "x", "c": 5, "d": "line\nbreak"});
        let named = bad(&json!({"type": "mcp", "transport": "http", "url": "ftp://a", "headers": headers, "extra": 1}));
        for field in ["url", "headers.Host", "headers.b d", "headers.c", "headers.d", "extra"] {
            assert!(named.contains(&format!("source.{field}")), "{field} in {named:?}");
        }
        assert_eq!(named.len(), 6, "{named:?}");
        let auth = json!({"type": "digest", "header": "X", "what": 1});
        let named = bad(&json!({"type": "openapi", "document": 5, "include": [], "base_url": "//a", "auth": auth}));
        for field in ["document", "include", "base_url", "auth.type", "auth.secret", "auth.header", "auth.what"] {
            assert!(named.contains(&format!("source.{field}")), "{field} in {named:?}");
        }
        assert_eq!(bad(&json!({"type": "openapi"})), ["source.document"]);
        assert_eq!(bad(&json!({"type": "openapi", "document": {}, "url": "http://a.test"})), ["source.url"]);
        assert_eq!(bad(&json!({"type": "openapi", "document": "x".repeat(5_000_000)})), ["source.document"]);
        for url in ["http://user@a.test", "https://", "javascript:alert(1)", "http://a b", "a.test"] {
            assert_eq!(bad(&json!({"type": "openapi", "url": url})), ["source.url"], "{url}");
        }
    }

    #[test]
    fn tools_get_names_that_providers_take_and_get_them_again() {
        let taken = BTreeSet::from(["my_api__list".to_owned()]);
        let long = "x".repeat(200);
        let tools = ["list", "get pet", "get/pet", long.as_str(), ""];
        let names = tool_names("My API!", &tools, &taken);
        assert_eq!(names[..3], ["my_api__list_2", "my_api__get_pet", "my_api__get_pet_2"]);
        assert_eq!(names, tool_names("My API!", &tools, &taken));
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), tools.len());
        let allowed = |n: &String| n.len() <= 64 && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        assert!(names.iter().all(allowed), "{names:?}");
        assert_eq!((slug("漢字"), slug("  A--b  ")), ("plugin".to_owned(), "a_b".to_owned()));
    }
}
