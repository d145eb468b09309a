//! OpenAPI documents, 3.0 and 3.1: one tool an operation. `schema` makes JSON Schema of what they say, `operation` is what a tool
//! remembers of its operation, `request` is a call.
mod operation;
mod request;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{
    Method, Url,
    header::{ACCEPT, HeaderMap, HeaderValue},
};
use runmill_shared::{
    App,
    domain::{
        plugin::{FoundTool, Openapi},
        tool::ToolType,
    },
};
use serde_json::{Map, Value, json};

pub use self::{operation::Operation, request::call};
use self::{
    operation::{Body, Content, Parameter, Place},
    schema::Document,
};
use super::{
    described,
    http::{Outgoing, guard, send},
    is_schema, too_many,
};
use crate::{tools::ToolError, yaml};

const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];

fn invalid(message: impl Into<String>) -> ToolError {
    ToolError::new("INVALID_DOCUMENT", message)
}

/// Reads the document, from its address when it has one, and finds its operations.
pub async fn tools(app: &App, source: &Openapi) -> Result<Vec<FoundTool>, ToolError> {
    let limits = &app.config.plugins;
    let document = match (&source.document, &source.url) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(document), _) => document.to_string(),
        (None, Some(url)) => fetched(app, url).await?,
        (None, None) => return Err(invalid("there is no document")),
    };
    let (source, max_bytes, max_tools) = (source.clone(), limits.max_document_bytes, limits.max_tools);
    let work = move || {
        let document = if document.trim_start().starts_with('{') {
            serde_json::from_str(&document).map_err(|e| e.to_string())
        } else {
            yaml::parse(&document, max_bytes.saturating_mul(4))
        };
        let document = document.map_err(|e| invalid(format!("neither JSON nor YAML: {e}")))?;
        tools_of(&document, &source, max_tools)
    };
    // Not on an async thread: the document can be large.
    tokio::task::spawn_blocking(work).await.map_err(|e| ToolError::new("INTERNAL", e.to_string()))?
}

async fn fetched(app: &App, url: &str) -> Result<String, ToolError> {
    let url = Url::parse(url).map_err(|e| ToolError::new("INVALID_URL", e.to_string()))?;
    let accept = HeaderValue::from_static("application/json, application/yaml, text/yaml, */*;q=0.1");
    let request = Outgoing { method: Method::GET, url, headers: HeaderMap::from_iter([(ACCEPT, accept)]), body: None };
    let answer = send(&*guard(&app.config.security)?, request, app.config.plugins.max_document_bytes).await?;
    if answer.status != 200 {
        return Err(ToolError::new("HTTP_ERROR", format!("the document's server answered {}", answer.status)));
    }
    String::from_utf8(answer.body).map_err(|_| invalid("the document is no UTF-8 text"))
}

fn tools_of(root: &Value, source: &Openapi, max: usize) -> Result<Vec<FoundTool>, ToolError> {
    let version = root["openapi"].as_str().unwrap_or_default();
    if !version.starts_with("3.0") && !version.starts_with("3.1") {
        return Err(invalid("only OpenAPI 3.0 and 3.1 are read: `openapi` says neither"));
    }
    let document = Document::new(root);
    let wanted: Option<BTreeSet<_>> = source.include.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let mut unseen = wanted.clone().unwrap_or_default();
    let (mut found, mut count) = (Vec::new(), 0);
    let paths = root["paths"].as_object().ok_or_else(|| invalid("`paths` is no object"))?;
    for (path, item) in paths {
        let item = document.resolve(item)?;
        for method in METHODS {
            let Some(operation) = item[method].as_object() else { continue };
            let name =
                operation.get("operationId").and_then(Value::as_str).map_or_else(|| format!("{method}_{path}"), str::to_owned);
            unseen.remove(name.as_str());
            if wanted.as_ref().is_some_and(|w| !w.contains(name.as_str())) {
                continue;
            }
            count += 1;
            if count <= max {
                let reader = Reader { document: &document, source, item, operation, path, method };
                found.extend(reader.tool(name)?);
            }
        }
    }
    if !unseen.is_empty() {
        let names: Vec<_> = unseen.into_iter().take(10).collect();
        return Err(invalid(format!("`include` names operations that the document does not have: {}", names.join(", "))));
    }
    if count > max { Err(too_many(count, max)) } else { Ok(found) }
}

/// One operation on its way to being a tool.
struct Reader<'a> {
    document: &'a Document<'a>,
    source: &'a Openapi,
    item: &'a Value,
    operation: &'a Map<String, Value>,
    path: &'a str,
    method: &'a str,
}

/// The properties of a tool's input, and where they go.
#[derive(Default)]
struct Input {
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Input {
    /// The property's name: the one that is wanted, as far as providers take it and it is free.
    fn add(&mut self, wanted: &str, place: &str, schema: Value, is_required: bool) -> String {
        let plain: String =
            wanted.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' }).take(56).collect();
        let mut name = if plain.is_empty() { place.to_owned() } else { plain.clone() };
        let mut number = 1;
        while self.properties.contains_key(&name) {
            name = if number == 1 { format!("{place}_{plain}") } else { format!("{place}_{plain}_{number}") };
            number += 1;
        }
        self.properties.insert(name.clone(), schema);
        if is_required {
            self.required.push(name.clone());
        }
        name
    }

    fn schema(self) -> Value {
        json!({"type": "object", "properties": self.properties, "required": self.required, "additionalProperties": false})
    }
}

impl Reader<'_> {
    /// `None` when it wants a body that cannot be written.
    fn tool(&self, name: String) -> Result<Option<FoundTool>, ToolError> {
        let mut input = Input::default();
        let parameters = self.parameters(&mut input)?;
        let body = match self.operation.get("requestBody") {
            Some(body) => match self.body(self.document.resolve(body)?, &mut input)? {
                Some(body) => body,
                None => return Ok(None),
            },
            None => None,
        };
        let config = Operation {
            method: self.method.to_ascii_uppercase(),
            path: self.path.to_owned(),
            base_url: self.base_url()?,
            parameters,
            body,
            auth: self.source.auth.clone(),
        };
        let text = |field: &str| self.operation.get(field).and_then(Value::as_str).unwrap_or_default().trim();
        let described = match (text("summary"), text("description")) {
            ("", "") => format!("{} {}", config.method, self.path),
            (summary, "") => described(summary),
            ("", description) => described(description),
            (summary, description) => described(&format!("{summary}\n{description}")),
        };
        let mut input_schema = input.schema();
        if !is_schema(&input_schema) {
            loosen(&mut input_schema);
        }
        Ok(Some(FoundTool {
            name,
            description: described,
            kind: ToolType::Openapi,
            input_schema,
            output_schema: None,
            config: serde_json::to_value(config).map_err(|e| ToolError::new("INTERNAL", e.to_string()))?,
        }))
    }

    /// Those of the path, and those of the operation, which go before them.
    fn parameters(&self, input: &mut Input) -> Result<Vec<Parameter>, ToolError> {
        let lists = [self.item.get("parameters"), self.operation.get("parameters")];
        let mut all = Vec::<(String, Place, &Value)>::new();
        for given in lists.into_iter().flatten().filter_map(Value::as_array).flatten() {
            let given = self.document.resolve(given)?;
            let (Some(name), Some(place)) = (given["name"].as_str(), given["in"].as_str().and_then(Place::parse)) else {
                continue;
            };
            if place == Place::Header && !runmill_shared::domain::plugin::is_header_name(name) {
                continue;
            }
            all.retain(|(n, p, _)| (n.as_str(), *p) != (name, place));
            all.push((name.to_owned(), place, given));
        }
        let mut parameters = Vec::with_capacity(all.len());
        for (name, place, given) in all {
            let json = given["content"].as_object().and_then(|c| c.values().next());
            let schema =
                self.document.schema(json.map_or(&given["schema"], |media| &media["schema"]), given["description"].as_str())?;
            let is_required = place == Place::Path || given["required"] == true;
            let property = input.add(&name, place.as_str(), schema, is_required);
            parameters.push(Parameter::new(property, name, place, given, json.is_some()));
        }
        Ok(parameters)
    }

    /// `None`: it cannot be written; `Some(None)`: it need not be.
    fn body(&self, body: &Value, input: &mut Input) -> Result<Option<Option<Body>>, ToolError> {
        let is_required = body["required"] == true;
        let media = body["content"].as_object().into_iter().flatten().filter_map(|(name, media)| {
            let media_type = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            operation::rank(&media_type).map(|rank| (rank, media_type, media))
        });
        let Some((_, media_type, media)) = media.min_by_key(|(rank, ..)| *rank) else {
            return Ok((!is_required).then_some(None));
        };
        let schema = self.document.schema(&media["schema"], body["description"].as_str())?;
        let content = match mergeable(&schema) {
            Some(properties) => {
                let required = schema["required"].as_array();
                let needs = |name: &str| is_required && required.is_some_and(|r| r.iter().any(|n| n == name));
                let place =
                    |(name, schema): (&String, &Value)| (input.add(name, "body", schema.clone(), needs(name)), name.clone());
                Content::Merged(properties.iter().map(place).collect::<BTreeMap<_, _>>())
            }
            None => Content::Whole(input.add("body", "body", schema, is_required)),
        };
        Ok(Some(Some(Body { media_type, is_required, content })))
    }

    /// What the user says, else the nearest server that the document names.
    fn base_url(&self) -> Result<String, ToolError> {
        if let Some(url) = &self.source.base_url {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let own = self.operation.get("servers").or_else(|| self.item.get("servers"));
        let server = own.unwrap_or(&self.document.root()["servers"]).get(0);
        let mut url = server.and_then(|s| s["url"].as_str()).unwrap_or("/").to_owned();
        for (name, variable) in server.and_then(|s| s["variables"].as_object()).into_iter().flatten() {
            url = url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default());
        }
        let from = self.source.url.as_deref().and_then(|u| Url::parse(u).ok());
        let absolute = from.map_or_else(|| Url::parse(&url), |from| from.join(&url));
        let absolute = absolute.map_err(|_| invalid("the document does not say where its server is: give a base_url"))?;
        Ok(absolute.as_str().trim_end_matches('/').to_owned())
    }
}

/// The properties of a body that is an object of known properties and nothing else.
fn mergeable(schema: &Value) -> Option<&Map<String, Value>> {
    let schema = schema.as_object()?;
    let is_plain = schema.keys().all(|k| matches!(k.as_str(), "type" | "properties" | "required" | "description"));
    let is_object = schema.get("type").is_none_or(|t| t == "object");
    schema.get("properties")?.as_object().filter(|p| is_plain && is_object && !p.is_empty())
}

/// What cannot be checked is not checked: the properties keep their descriptions, and the server says what is wrong.
fn loosen(schema: &mut Value) {
    for property in schema["properties"].as_object_mut().into_iter().flat_map(|p| p.values_mut()) {
        *property = match property["description"].as_str() {
            Some(description) => json!({ "description": description }),
            None => json!({}),
        };
    }
}

#[cfg(test)]
mod tests;
