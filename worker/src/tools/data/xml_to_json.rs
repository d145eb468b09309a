//! `xml_to_json`. No entity but the five of XML and characters by number is resolved, and a document type is refused: it is what
//! declares entities, and attacks.
use std::sync::Arc;

use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::MAX_TEXT;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const MAX_DEPTH: usize = 100;

#[derive(Deserialize)]
struct Arguments {
    xml: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "xml_to_json",
        category: "data",
        description: "Reads XML as JSON: an element is an object of its attributes (\"@name\") and children; children of one name are an array; text \
                      beside them is \"#text\"; an element with text alone is that text, an empty one null. Comments are left out.",
        parameters: object(json!({"xml": text(MAX_TEXT, "a document, without a DOCTYPE")}), &["xml"]),
        output: object(json!({"data": {"type": "object"}}), &["data"]),
    };
    function(spec, |arguments: Arguments| read(&arguments.xml))
}

#[derive(Default)]
struct Element {
    name: String,
    fields: Map<String, Value>,
    text: String,
}

impl Element {
    fn open(start: &BytesStart<'_>) -> Result<Self, ToolError> {
        let mut element = Self { name: utf8(start.name().as_ref())?, ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(invalid)?;
            let value = attribute.normalized_value(XmlVersion::default()).map_err(invalid)?;
            element.fields.insert(format!("@{}", utf8(attribute.key.as_ref())?), json!(value));
        }
        Ok(element)
    }

    fn add(&mut self, name: String, value: Value) {
        match self.fields.get_mut(&name) {
            Some(Value::Array(all)) => all.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => {
                self.fields.insert(name, value);
            }
        }
    }

    fn close(mut self) -> (String, Value) {
        let text = self.text.trim();
        let value = match (self.fields.is_empty(), text.is_empty()) {
            (true, true) => Value::Null,
            (true, false) => json!(text),
            (false, true) => Value::Object(self.fields),
            (false, false) => {
                self.fields.insert("#text".to_owned(), json!(text));
                Value::Object(self.fields)
            }
        };
        (self.name, value)
    }
}

fn invalid(e: impl ToString) -> ToolError {
    ToolError::new("INVALID_XML", e.to_string())
}

fn utf8(bytes: &[u8]) -> Result<String, ToolError> {
    String::from_utf8(bytes.to_vec()).map_err(invalid)
}

fn read(xml: &str) -> Result<Value, ToolError> {
    let mut reader = Reader::from_str(xml.trim_start_matches('\u{feff}'));
    let config = reader.config_mut();
    config.check_comments = true;
    config.expand_empty_elements = true;
    let mut open: Vec<Element> = vec![Element::default()];
    loop {
        let event = reader.read_event().map_err(|e| invalid(format!("{e} at byte {}", reader.error_position())))?;
        let Some(element) = open.last_mut() else { return Err(invalid("an element ends that did not begin")) };
        match event {
            Event::Start(start) => {
                if open.len() > MAX_DEPTH {
                    return Err(ToolError::new("TOO_COMPLEX", format!("elements are nested deeper than {MAX_DEPTH}")));
                }
                open.push(Element::open(&start)?);
            }
            Event::End(_) => {
                let closed = open.pop().map(Element::close);
                if let (Some((name, value)), Some(parent)) = (closed, open.last_mut()) {
                    parent.add(name, value);
                }
            }
            Event::Text(text) => element.text.push_str(&text.decode().map_err(invalid)?),
            Event::CData(text) => element.text.push_str(&text.decode().map_err(invalid)?),
            Event::GeneralRef(reference) => element.text.push_str(&resolve(&reference)?),
            Event::DocType(_) => return Err(invalid("a DOCTYPE is not accepted")),
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    finish(open)
}

fn finish(mut open: Vec<Element>) -> Result<Value, ToolError> {
    let document = open.pop().unwrap_or_default();
    if !open.is_empty() {
        return Err(invalid(format!("<{}> does not end", document.name)));
    }
    if !document.text.trim().is_empty() {
        return Err(invalid("there is text outside the root element"));
    }
    match document.fields.len() {
        1 if !document.fields.values().any(Value::is_array) => Ok(json!({"data": document.fields})),
        0 => Err(invalid("there is no element")),
        _ => Err(invalid("there is more than one root element")),
    }
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, ToolError> {
    if let Some(c) = reference.resolve_char_ref().map_err(invalid)? {
        return Ok(c.to_string());
    }
    let name = reference.decode().map_err(invalid)?;
    resolve_xml_entity(&name).map(str::to_owned).ok_or_else(|| invalid(format!("&{name}; is not known")))
}
