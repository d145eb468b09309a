//! `template_render`: Jinja templates over JSON values.
use std::{io, sync::Arc, time::Duration};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value as Jinja, filters,
    machinery::parse,
    value::{Rest, Serde},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MAX_RESULT, deadline::Deadline, result_too_large, template};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, exceeds, function, object, text},
};

const MAX_TEMPLATE: usize = 50_000;
const MAX_VALUES_BYTES: usize = 100_000;
/// Instructions of one rendering.
const FUEL: u64 = 50_000;
const TIME: Duration = Duration::from_secs(2);
/// Their result can be much larger than what goes in, or they look inside the engine.
const REMOVED_FILTERS: [&str; 8] = ["attr", "batch", "chain", "format", "indent", "pprint", "slice", "zip"];
const REMOVED_FUNCTIONS: [&str; 3] = ["debug", "dict", "namespace"];

#[derive(Deserialize)]
struct Arguments {
    template: String,
    #[serde(default)]
    values: Map<String, Value>,
    #[serde(default)]
    html: bool,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "template_render",
        category: "text",
        description: "Renders a Jinja template: {{ name }}, {{ items|length }}, {% if %}, {% for %}. A value that is not there is an error. Filters: \
                      the usual ones of Jinja, with join, replace and multiply; no set, macro, include, or *.",
        parameters: object(
            json!({
                "template": text(MAX_TEMPLATE, "for example Dear {{ name }}, {% for o in orders %}{{ o.id }} {% endfor %}"),
                "values": {"type": "object", "description": "what the template's names mean; none when left out"},
                "html": {"type": "boolean", "description": "escape values for HTML; false when left out"},
            }),
            &["template"],
        ),
        output: object(json!({"text": {"type": "string"}}), &["text"]),
    };
    function(spec, |arguments: Arguments| render(arguments))
}

fn render(arguments: Arguments) -> Result<Value, ToolError> {
    let values = Value::Object(arguments.values);
    if exceeds(&values, MAX_VALUES_BYTES) {
        return Err(ToolError::new("INPUT_TOO_LARGE", format!("values has more than {MAX_VALUES_BYTES} bytes")));
    }
    let deadline = Deadline::after(TIME);
    let tree = parse(&arguments.template, "template", Default::default()).map_err(failed)?;
    template::check(&tree).map_err(failed)?;
    let env = environment(arguments.html, deadline);
    let mut page = Page { bytes: Vec::new(), deadline };
    let rendered = env
        .template_from_str(&arguments.template)
        .and_then(|t| t.render_captured_to(Jinja::from(Serde(&values)), &mut page).map(drop));
    if page.bytes.len() > MAX_RESULT {
        return Err(result_too_large());
    }
    deadline.check()?;
    rendered.map_err(failed)?;
    Ok(json!({"text": String::from_utf8_lossy(&page.bytes)}))
}

/// Where the text goes, as long as it fits and there is time.
struct Page {
    bytes: Vec<u8>,
    deadline: Deadline,
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() > MAX_RESULT || self.deadline.has_passed() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment(html: bool, deadline: Deadline) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(move |_| if html { minijinja::AutoEscape::Html } else { minijinja::AutoEscape::None });
    for name in REMOVED_FILTERS {
        env.remove_filter(name);
    }
    for name in REMOVED_FUNCTIONS {
        env.remove_global(name);
    }
    for (name, built_in) in slow_filters() {
        env.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<Jinja>| {
            in_time(deadline)?;
            built_in.call(state, &arguments)
        });
    }
    env.add_filter("multiply", multiply);
    env
}

/// Those that walk all of a value: fuel counts each as one step.
fn slow_filters() -> [(&'static str, Jinja); 21] {
    [
        ("dictsort", Jinja::from_function(filters::dictsort)),
        ("groupby", Jinja::from_function(filters::groupby)),
        ("join", Jinja::from_function(join)),
        ("items", Jinja::from_function(filters::items)),
        ("lines", Jinja::from_function(filters::lines)),
        ("list", Jinja::from_function(filters::list)),
        ("lower", Jinja::from_function(filters::lower)),
        ("map", Jinja::from_function(filters::map)),
        ("max", Jinja::from_function(filters::max)),
        ("min", Jinja::from_function(filters::min)),
        ("reject", Jinja::from_function(filters::reject)),
        ("rejectattr", Jinja::from_function(filters::rejectattr)),
        ("reverse", Jinja::from_function(filters::reverse)),
        ("select", Jinja::from_function(filters::select)),
        ("replace", Jinja::from_function(replace)),
        ("selectattr", Jinja::from_function(filters::selectattr)),
        ("sort", Jinja::from_function(filters::sort)),
        ("split", Jinja::from_function(filters::split)),
        ("tojson", Jinja::from_function(filters::tojson)),
        ("unique", Jinja::from_function(filters::unique)),
        ("upper", Jinja::from_function(filters::upper)),
    ]
}

fn in_time(deadline: Deadline) -> Result<(), Error> {
    if deadline.has_passed() {
        return Err(Error::new(ErrorKind::OutOfFuel, "it takes too long"));
    }
    Ok(())
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a text has more than {MAX_RESULT} bytes"))
}

fn join(items: Jinja, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut joined = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        if i > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&item.to_string());
        if joined.len() > MAX_RESULT {
            return Err(too_large());
        }
    }
    Ok(joined)
}

fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let found = text.matches(from.as_str()).count();
    if text.len() + found.saturating_mul(to.len()) > MAX_RESULT {
        return Err(too_large());
    }
    Ok(text.replace(&from, &to))
}

fn multiply(a: Jinja, b: Jinja) -> Result<Jinja, Error> {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64())
        && let Some(product) = a.checked_mul(b)
    {
        return Ok(Jinja::from(product));
    }
    Ok(Jinja::from(f64::try_from(a)? * f64::try_from(b)?))
}

/// With the line, and what minijinja knows of the cause.
fn failed(e: Error) -> ToolError {
    let code = match e.kind() {
        ErrorKind::SyntaxError => "INVALID_TEMPLATE",
        ErrorKind::UndefinedError => "UNDEFINED_VALUE",
        ErrorKind::OutOfFuel => "TOO_COMPLEX",
        _ => "TEMPLATE_FAILED",
    };
    let line = e.line().map_or_else(String::new, |line| format!(" (line {line})"));
    let detail = e.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    ToolError::new(code, format!("{}{detail}{line}", e.kind()))
}
