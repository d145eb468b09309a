//! What a tool remembers of its operation: the `tools.config` column.
use std::collections::BTreeMap;

use runmill_shared::domain::plugin::Auth;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub method: String,
    /// With its `{parameters}`.
    pub path: String,
    /// Without a slash at its end.
    pub base_url: String,
    pub parameters: Vec<Parameter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Of the tool's input.
    pub property: String,
    pub name: String,
    #[serde(rename = "in")]
    pub place: Place,
    pub style: Style,
    pub explode: bool,
    /// Its value is sent as JSON text.
    #[serde(default)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Path,
    Query,
    Header,
}

impl Place {
    /// Cookies are not sent.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Path, Self::Query, Self::Header].into_iter().find(|p| p.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// How lists and objects are written: <https://spec.openapis.org/oas/v3.1.1#style-values>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    pub media_type: String,
    pub is_required: bool,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// One property of the input is the body.
    Whole(String),
    /// These properties of the input are those of the body, whose names stand beside them.
    Merged(BTreeMap<String, String>),
}

impl Parameter {
    pub fn new(property: String, name: String, place: Place, given: &Value, json: bool) -> Self {
        let style = match (given["style"].as_str(), place) {
            (Some("label"), Place::Path) => Style::Label,
            (Some("matrix"), Place::Path) => Style::Matrix,
            (Some("spaceDelimited"), Place::Query) => Style::SpaceDelimited,
            (Some("pipeDelimited"), Place::Query) => Style::PipeDelimited,
            (Some("deepObject"), Place::Query) => Style::DeepObject,
            (_, Place::Query) => Style::Form,
            (_, Place::Path | Place::Header) => Style::Simple,
        };
        let explode = given["explode"].as_bool().unwrap_or(style == Style::Form);
        Self { property, name, place, style, explode, json }
    }
}

/// Which of a body's media types is written, the lowest first; `None`: it cannot be.
pub fn rank(media_type: &str) -> Option<u8> {
    match media_type {
        "application/json" => Some(0),
        _ if is_json(media_type) => Some(1),
        FORM => Some(2),
        "*/*" | "application/*" => Some(3),
        _ if media_type.starts_with("text/") => Some(4),
        _ => None,
    }
}

pub const FORM: &str = "application/x-www-form-urlencoded";

pub fn is_json(media_type: &str) -> bool {
    matches!(media_type, "application/json" | "*/*" | "application/*") || media_type.ends_with("+json")
}
