//! Reads fields and collects what is wrong with them; where a field is bad the reading goes on with an empty value.
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    domain::run::check_external_id,
    error::{Error, FieldError, Result},
};

pub type Object = Map<String, Value>;

#[derive(Default)]
pub struct Check {
    bad: Vec<FieldError>,
}

/// `messages.0` and `role` → `messages.0.role`
pub fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// A field that is null is a field that is not there: Python clients write their absent fields so.
pub fn given<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|v| !v.is_null())
}

/// Without NUL, which the database's text refuses.
pub fn clean(text: &str) -> String {
    text.replace('\0', "")
}

pub fn clean_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => items.iter().map(clean_json).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (clean(k), clean_json(v))).collect(),
        scalar => scalar.clone(),
    }
}

impl Check {
    pub fn fail(&mut self, at: &str, key: &str, message: impl Into<String>) {
        self.bad.push(FieldError { field: join(at, key), message: message.into() });
    }

    pub fn finish(self) -> Result<()> {
        if self.bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(self.bad)) }
    }

    pub fn required<'a>(&mut self, object: &'a Object, at: &str, key: &str) -> Option<&'a Value> {
        let value = given(object, key);
        if value.is_none() {
            self.fail(at, key, "is required");
        }
        value
    }

    pub fn object<'a>(&mut self, value: &'a Value, at: &str) -> Option<&'a Object> {
        if !value.is_object() {
            self.bad.push(FieldError { field: at.to_owned(), message: "must be an object".into() });
        }
        value.as_object()
    }

    /// An optional list; empty when it is not there, too long, or not a list.
    pub fn list<'a>(&mut self, object: &'a Object, at: &str, key: &str, max: usize) -> &'a [Value] {
        match given(object, key) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= max => items,
            Some(Value::Array(_)) => {
                self.fail(at, key, format!("must have at most {max} items"));
                &[]
            }
            Some(_) => {
                self.fail(at, key, "must be a list");
                &[]
            }
        }
    }

    pub fn string<'a>(&mut self, object: &'a Object, at: &str, key: &str) -> Option<&'a str> {
        let value = given(object, key)?;
        if !value.is_string() {
            self.fail(at, key, "must be a string");
        }
        value.as_str()
    }

    pub fn required_string<'a>(&mut self, object: &'a Object, at: &str, key: &str) -> Option<&'a str> {
        self.required(object, at, key)?;
        self.string(object, at, key)
    }

    /// A text of at most `max` characters, without its NULs.
    pub fn required_text(&mut self, object: &Object, at: &str, key: &str, max: usize) -> String {
        let text = self.required_string(object, at, key).unwrap_or_default();
        if text.chars().nth(max).is_some() {
            self.fail(at, key, format!("must be at most {max} characters"));
        }
        clean(text)
    }

    pub fn id(&mut self, object: &Object, at: &str, key: &str) -> String {
        let Some(id) = self.required_string(object, at, key) else { return String::new() };
        if let Err(e) = check_external_id(key, id) {
            let message = e.fields.into_iter().next().map_or_else(|| "is not an id".into(), |f| f.message);
            self.fail(at, key, message);
        }
        id.to_owned()
    }

    /// An optional name of 1 to `max` characters on one line.
    pub fn name(&mut self, object: &Object, at: &str, key: &str, max: usize) -> Option<String> {
        let name = self.string(object, at, key)?;
        if name.is_empty() || name.chars().nth(max).is_some() || name.chars().any(char::is_control) {
            self.fail(at, key, format!("must be 1 to {max} characters, none of them a control character"));
        }
        Some(name.to_owned())
    }

    /// An optional word of a closed list; its default when it is not there.
    pub fn word<T: DeserializeOwned + Default>(&mut self, object: &Object, at: &str, key: &str, rule: &str) -> T {
        let Some(value) = given(object, key) else { return T::default() };
        T::deserialize(value).unwrap_or_else(|_| {
            self.fail(at, key, rule);
            T::default()
        })
    }
}
