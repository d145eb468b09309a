//! Text with `{{ argument }}` in it. An expression names an argument, or a part of one, and may pass it through filters; there are no
//! statements and no operators, so that what comes out grows with what goes in. Where the text goes decides how a value is written.
use std::{collections::BTreeSet, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value, filters,
    value::{Rest, Serde, ValueKind},
};
use url::form_urlencoded;

/// Instructions of one expression.
const FUEL: u64 = 10_000;
/// Of one rendered text, and of what a filter makes.
pub const MAX_RENDERED: usize = 1 << 20;

/// Where a rendered text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As it is.
    Text,
    /// Values are percent-encoded, except one that the text begins with: that one is a URL's beginning.
    Url,
    /// Values are JSON; inside of quotes they are what a JSON string may hold.
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Expression(String),
}

/// The arguments of a call, as templates read them.
pub struct Scope(Value);

impl Scope {
    pub fn new(arguments: &serde_json::Value) -> Self {
        Self(Value::from(Serde(arguments)))
    }
}

impl Template {
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            push_literal(&mut parts, before)?;
            let (inside, after) = after.split_once("}}").ok_or("a {{ has no }}")?;
            let expression = inside.trim();
            check(expression).map_err(|e| format!("{{{{ {expression} }}}}: {e}"))?;
            parts.push(Part::Expression(expression.to_owned()));
            rest = after;
        }
        push_literal(&mut parts, rest)?;
        Ok(Self(parts))
    }

    /// The arguments that it reads.
    pub fn arguments(&self) -> BTreeSet<String> {
        let expressions = self.0.iter().filter_map(|part| match part {
            Part::Expression(text) => ENVIRONMENT.compile_expression_owned(text.clone()).ok(),
            Part::Literal(_) => None,
        });
        expressions.flat_map(|e| e.undeclared_variables(false)).collect()
    }

    /// The text that stands before the first expression.
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Whether nothing in it depends on the arguments.
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// `None`: it is one expression, and that has no value.
    ///
    /// # Errors
    /// A filter that does not fit its value, or a text beyond `MAX_RENDERED`.
    pub fn render(&self, scope: &Scope, place: Place) -> Result<Option<String>, String> {
        let mut text = Rendered { text: String::new(), place, quoted: false, escaped: false };
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.literal(literal),
                Part::Expression(expression) => {
                    let value = evaluate(expression, scope)?;
                    if self.0.len() == 1 && is_missing(&value) {
                        return Ok(None);
                    }
                    text.value(&value)?;
                }
            }
            if text.text.len() > MAX_RENDERED {
                return Err(format!("the text is longer than {MAX_RENDERED} bytes"));
            }
        }
        Ok(Some(text.text))
    }

    /// As a JSON value: one expression is its value, with its type; all else is a string. `None` as with `render`.
    ///
    /// # Errors
    /// Those of `render`.
    pub fn value(&self, scope: &Scope) -> Result<Option<serde_json::Value>, String> {
        let [Part::Expression(expression)] = self.0.as_slice() else {
            return Ok(self.render(scope, Place::Text)?.map(serde_json::Value::String));
        };
        let value = evaluate(expression, scope)?;
        if is_missing(&value) {
            return Ok(None);
        }
        serde_json::to_value(&value).map(Some).map_err(|e| e.to_string())
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains("{%") {
        return Err("{% %} is not supported; use {{ argument }}".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.to_owned()));
    }
    Ok(())
}

/// Only names, their parts and filters: nothing that could multiply what it is given.
fn check(expression: &str) -> Result<(), String> {
    let mut quote = None;
    for c in expression.chars() {
        match (quote, c) {
            (Some(_), '\\') => return Err("a text in it cannot have a backslash".to_owned()),
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if c.is_alphanumeric() || c.is_whitespace() || "_.[]|(),".contains(c) => {}
            (None, _) => return Err(format!("{c:?} is not supported; name an argument, and filters after |")),
        }
    }
    let made = ENVIRONMENT.compile_expression_owned(expression.to_owned()).map_err(|e| say(&e))?;
    if made.undeclared_variables(false).is_empty() {
        return Err("it names no argument".to_owned());
    }
    let unknown = expression.split('|').skip(1).map(|f| f.trim().split('(').next().unwrap_or_default().trim().to_owned());
    match unknown
        .into_iter()
        .find(|name| !FILTERS.contains(&name.as_str()) && name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    {
        Some(name) => Err(format!("there is no filter {name}; there are {}", FILTERS.join(", "))),
        None => Ok(()),
    }
}

const FILTERS: [&str; 11] = ["default", "first", "float", "int", "join", "last", "length", "lower", "tojson", "trim", "upper"];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut all = Environment::empty();
    all.set_fuel(Some(FUEL));
    all.set_undefined_behavior(UndefinedBehavior::Chainable);
    all.add_filter("default", filters::default);
    all.add_filter("first", filters::first);
    all.add_filter("float", filters::float);
    all.add_filter("int", filters::int);
    all.add_filter("join", join);
    all.add_filter("last", filters::last);
    all.add_filter("length", filters::length);
    all.add_filter("lower", filters::lower);
    all.add_filter("tojson", |value: &Value| json(value).map(Value::from_safe_string));
    all.add_filter("trim", filters::trim);
    all.add_filter("upper", filters::upper);
    all
});

fn join(value: &Value, separator: Rest<String>) -> Result<String, Error> {
    let separator = separator.first().map_or(",", String::as_str);
    let mut all = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            all.push_str(separator);
        }
        all.push_str(&text_of(&item)?);
        if all.len() > MAX_RENDERED {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("the text is longer than {MAX_RENDERED} bytes")));
        }
    }
    Ok(all)
}

fn evaluate(expression: &str, scope: &Scope) -> Result<Value, String> {
    let made = ENVIRONMENT.compile_expression_owned(expression.to_owned());
    made.and_then(|e| e.eval(scope.0.clone())).map_err(|e| format!("{{{{ {expression} }}}}: {}", say(&e)))
}

fn say(e: &Error) -> String {
    e.detail().map_or_else(|| e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()))
}

fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

fn json(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Ok("null".to_owned());
    }
    serde_json::to_string(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// Texts as they are, lists and objects as JSON, what is missing as nothing.
fn text_of(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => json(value),
    }
}

struct Rendered {
    text: String,
    place: Place,
    /// Of JSON: whether the text so far ends inside of a string …
    quoted: bool,
    /// … behind a backslash.
    escaped: bool,
}

impl Rendered {
    fn literal(&mut self, literal: &str) {
        for c in literal.chars() {
            let escaped = std::mem::take(&mut self.escaped);
            match c {
                '"' if !escaped => self.quoted = !self.quoted,
                '\\' if self.quoted && !escaped => self.escaped = true,
                _ => {}
            }
        }
        self.text.push_str(literal);
    }

    fn value(&mut self, value: &Value) -> Result<(), String> {
        let text = |value: &Value| text_of(value).map_err(|e| say(&e));
        match self.place {
            Place::Url if !self.text.is_empty() => percent_encode(&text(value)?, &mut self.text),
            Place::Text | Place::Url => self.text.push_str(&text(value)?),
            Place::Form => self.text.extend(form_urlencoded::byte_serialize(text(value)?.as_bytes())),
            Place::Json if self.quoted => {
                let string = serde_json::Value::String(text(value)?).to_string();
                self.text.push_str(&string[1..string.len() - 1]);
            }
            Place::Json if value.is_safe() => self.text.push_str(value.as_str().unwrap_or_default()),
            Place::Json => self.text.push_str(&json(value).map_err(|e| say(&e))?),
        }
        Ok(())
    }
}

/// All but RFC 3986's unreserved characters.
fn percent_encode(text: &str, into: &mut String) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(HEX[usize::from(byte >> 4)]));
            into.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str, place: Place, arguments: serde_json::Value) -> String {
        Template::parse(template).unwrap().render(&Scope::new(&arguments), place).unwrap().unwrap()
    }

    #[test]
    fn a_value_is_written_as_its_place_wants_it() {
        let arguments = json!({ "q": "a\"b & c/ä", "n": 3, "list": ["x", "y"], "o": { "k": [1, null] } });
        let all = |template: &str, place| render(template, place, arguments.clone());
        assert_eq!(all("{{q}} {{ n }} {{ o.k[0] }}", Place::Text), "a\"b & c/ä 3 1");
        assert_eq!(
            all("http://x/{{q}}?n={{n}}&l={{ list | join(\";\") }}", Place::Url),
            "http://x/a%22b%20%26%20c%2F%C3%A4?n=3&l=x%3By"
        );
        assert_eq!(all("{{q}}/x", Place::Url), "a\"b & c/ä/x");
        assert_eq!(all("q={{q}}", Place::Form), "q=a%22b+%26+c%2F%C3%A4");
        assert_eq!(
            all("{\"a\": {{q}}, \"b\": \"<{{q}}>\", \"c\": {{ o | tojson }}, \"d\": {{nothing}}}", Place::Json),
            "{\"a\": \"a\\\"b & c/ä\", \"b\": \"<a\\\"b & c/ä>\", \"c\": {\"k\":[1,null]}, \"d\": null}"
        );
        assert_eq!(all("{{ nothing | default(\"none\") | upper }}, {{ list | length }}", Place::Text), "NONE, 2");
    }

    #[test]
    fn a_template_that_is_one_expression_keeps_the_type_and_the_absence() {
        let scope = Scope::new(&json!({ "n": 3, "o": { "a": [true] } }));
        let value = |template: &str| Template::parse(template).unwrap().value(&scope).unwrap();
        assert_eq!(value("{{ n }}"), Some(json!(3)));
        assert_eq!(value("{{ o }}"), Some(json!({ "a": [true] })));
        assert_eq!(value("n = {{ n }}"), Some(json!("n = 3")));
        assert_eq!(value("{{ o.b.c }}"), None);
    }

    #[test]
    fn only_arguments_and_filters_are_expressions() {
        for bad in [
            "{{",
            "{{ }}",
            "{{ a",
            "{% for x in y %}",
            "{{ a * 9 }}",
            "{{ a ~ a }}",
            "{{ 'x' * 99999 }}",
            "{{ a | map }}",
            "{{ a|replace('', a) }}",
            "{{ range(9) }}",
            "{{ a + b }}",
            "{{ {} }}",
            "{{ 'a' }}",
            "{{ a b }}",
            "{{ a.b() }}",
        ] {
            let made = Template::parse(bad);
            let fails = match &made {
                Err(_) => true,
                Ok(template) => template.render(&Scope::new(&json!({ "a": "x" })), Place::Text).is_err(),
            };
            assert!(fails, "{bad}: {made:?}");
        }
        let template = Template::parse("{{ a.b }}-{{ c | default(d) }}").unwrap();
        assert_eq!(template.arguments().into_iter().collect::<Vec<_>>(), ["a", "c", "d"]);
    }

    #[test]
    fn what_comes_out_is_bounded() {
        let arguments = json!({ "list": vec![1; 1000], "sep": "x".repeat(10_000) });
        let template = Template::parse("{{ list | join(sep) }}").unwrap();
        assert!(template.render(&Scope::new(&arguments), Place::Text).is_err());
        let long = Template::parse(&"{{ sep }}".repeat(200)).unwrap();
        assert!(long.render(&Scope::new(&arguments), Place::Text).is_err());
    }
}
