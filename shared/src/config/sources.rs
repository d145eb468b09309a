//! Where settings come from. Each source gives one key and names itself, so that `runmill config` can say who set what.
use std::path::Path;

use figment::{
    Error as Failure, Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    providers::{Env, Format, Toml},
    value::{Dict, Map, Value},
};

use super::{Config, DEFAULTS, NAMED};
use crate::error::{Error, FieldError, Result};

/// One key from one place.
struct Given {
    /// `env RUNMILL_AUTH`, `flag --set`
    from: String,
    key: String,
    value: Value,
}

impl Given {
    /// A key whose default is a text takes any text as it is, so that a password of digits stays one; others are read as TOML is.
    fn new(defaults: &Figment, from: String, key: &str, text: &str) -> Self {
        let is_text = matches!(defaults.find_value(key), Ok(Value::String(..)));
        let value = if is_text { Value::from(text) } else { text.parse().unwrap_or_else(|_| Value::from(text)) };
        Self { from, key: key.to_owned(), value }
    }
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.from.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Failure> {
        let nested = figment::util::nest(&self.key, self.value.clone()).into_dict();
        Ok(Profile::Default.collect(nested.ok_or_else(|| Failure::from("a key is empty".to_owned()))?))
    }
}

/// All sources of the settings, merged and not yet checked.
pub struct Sources(Figment);

/// A key, its value as text (never a secret), and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    /// `default`, `file my.toml`, `env NAME`, `flag --NAME`
    pub from: String,
}

impl Sources {
    /// Defaults, then `file`, then the environment, then `flags` (name, dotted key, value).
    pub fn gather(file: Option<&Path>, flags: &[(&str, String, String)]) -> Self {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let mut all = defaults.clone();
        if let Some(file) = file {
            all = all.merge(Toml::file_exact(file));
        }
        for (name, text) in Env::prefixed("RUNMILL_").iter().filter(|(name, _)| name.as_str().contains("__")) {
            let key = name.as_str().to_ascii_lowercase().replace("__", ".");
            all = all.merge(Given::new(&defaults, format!("env RUNMILL_{}", name.as_str().to_ascii_uppercase()), &key, &text));
        }
        for (name, key) in NAMED {
            for (_, text) in Env::raw().only(&[name]).iter() {
                all = all.merge(Given::new(&defaults, format!("env {name}"), key, &text));
            }
        }
        for (name, key, text) in flags {
            all = all.merge(Given::new(&defaults, format!("flag {name}"), key, text));
        }
        Self(all)
    }

    /// One value, for who needs no more than it.
    ///
    /// # Errors
    /// `Invalid` when it is not of that type.
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.0.extract_inner(key).map_err(|e| Error::invalid(key, plain(&e)))
    }

    /// Checked settings.
    ///
    /// # Errors
    /// `Invalid` with every key that is unknown, of the wrong type or against a rule, and who set it.
    pub fn config(&self) -> Result<Config> {
        let mut bad = Vec::new();
        let mut tree: Dict = self.0.extract().map_err(|e| Error::invalid_fields(e.into_iter().map(|e| field(&e)).collect()))?;
        // Reading stops at the first error; so what is wrong is put right, and the rest is read.
        let config = loop {
            let e = match Value::from(tree.clone()).deserialize::<Config>() {
                Ok(config) => break config,
                Err(e) => e,
            };
            let mut path = e.path.clone();
            if let Kind::UnknownField(name, _) = &e.kind {
                path.extend((path.last() != Some(name)).then(|| name.clone()));
            }
            bad.push(FieldError { field: path.join("."), message: plain(&e) });
            if bad.len() > 100 || !mend(&mut tree, &path) {
                return Err(self.blame(bad));
            }
        };
        if let Err(rules) = config.check() {
            bad.extend(rules.fields);
        }
        if bad.is_empty() { Ok(config) } else { Err(self.blame(bad)) }
    }

    fn blame(&self, mut bad: Vec<FieldError>) -> Error {
        for error in &mut bad {
            match self.origin(&error.field).as_str() {
                "default" => {}
                from => error.message.push_str(&format!(" ({from})")),
            }
        }
        Error::invalid_fields(bad)
    }

    fn origin(&self, key: &str) -> String {
        let Some(metadata) = self.0.find_metadata(key) else { return "default".to_owned() };
        match (&metadata.source, metadata.name.as_ref()) {
            (Some(source), _) => format!("file {source}"),
            (None, name) if name.starts_with("env ") || name.starts_with("flag ") => name.to_owned(),
            _ => "default".to_owned(),
        }
    }

    /// Every key, in alphabetical order. `config` is what `config()` gave.
    pub fn list(&self, config: &Config) -> Result<Vec<Setting>> {
        let mut all = Vec::new();
        flatten(String::new(), &serde_json::to_value(config)?, &mut |key, value| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            all.push(Setting { from: self.origin(&key), key, value: text });
        });
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }
}

fn flatten(at: String, value: &serde_json::Value, leaf: &mut impl FnMut(String, &serde_json::Value)) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                flatten(if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, value, leaf);
            }
        }
        other => leaf(at, other),
    }
}

/// Takes what is at `path` away, and puts the default back where there is one; whether anything changed.
fn mend(tree: &mut Dict, path: &[String]) -> bool {
    let default = Figment::from(Toml::string(DEFAULTS)).find_value(&path.join(".")).ok();
    let Some((name, parents)) = path.split_last() else { return false };
    let mut at = tree;
    for parent in parents {
        match at.get_mut(parent) {
            Some(Value::Dict(_, inside)) => at = inside,
            // A value stands where a section should: it is the section that is wrong.
            _ => return false,
        }
    }
    let before = at.remove(name);
    let changed = before != default;
    at.extend(default.map(|value| (name.clone(), value)));
    changed
}

fn field(e: &Failure) -> FieldError {
    FieldError { field: e.path.join("."), message: plain(e) }
}

/// The reason alone: the key and its origin are said elsewhere, and a value may be a secret.
fn plain(e: &Failure) -> String {
    match &e.kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let given = match actual {
                Actual::Str(_) | Actual::Char(_) => "a text",
                Actual::Bool(_) => "true or false",
                Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
                Actual::Seq => "a list",
                Actual::Map => "a section",
                _ => "another kind of value",
            };
            format!("{given} is given where {expected} is expected")
        }
        Kind::UnknownField(..) => "there is no such setting".to_owned(),
        Kind::UnknownVariant(found, known) => format!("{found:?} is none of {}", known.join(", ")),
        other => other.to_string(),
    }
}
