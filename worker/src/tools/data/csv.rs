//! `csv_to_json` and `json_to_csv` (RFC 4180).
use std::{collections::HashSet, sync::Arc};

use ::csv::{ReaderBuilder, StringRecord, WriterBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MAX_CELLS, MAX_TEXT};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

/// Of a column, in characters: each row repeats it.
const MAX_NAME: usize = 200;

#[derive(Deserialize)]
struct Read {
    csv: String,
    #[serde(default = "comma")]
    delimiter: String,
    #[serde(default = "yes")]
    headers: bool,
    #[serde(default)]
    types: bool,
}

#[derive(Deserialize)]
struct Write {
    rows: Vec<Value>,
    columns: Option<Vec<String>>,
    #[serde(default = "comma")]
    delimiter: String,
    #[serde(default = "yes")]
    headers: bool,
}

fn comma() -> String {
    ",".to_owned()
}

fn yes() -> bool {
    true
}

fn delimiter() -> Value {
    json!({"type": "string", "pattern": "^[\\t -~]$", "description": "one ASCII character; a comma when left out"})
}

fn byte(delimiter: &str) -> u8 {
    delimiter.bytes().next().unwrap_or(b',')
}

fn invalid(e: impl ToString) -> ToolError {
    ToolError::new("INVALID_CSV", e.to_string())
}

fn too_many() -> ToolError {
    ToolError::new("INPUT_TOO_LARGE", format!("the table has more than {MAX_CELLS} cells"))
}

pub fn read_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "csv_to_json",
        category: "data",
        description: "Reads CSV: rows as objects by the names in its first line, or (headers: false) as arrays. Cells are texts; types: true makes \
                      numbers, true, false and null (empty cells) of those that look so.",
        parameters: object(
            json!({
                "csv": text(MAX_TEXT, "the table; quotes around cells with delimiters or line ends"),
                "delimiter": delimiter(),
                "headers": {"type": "boolean", "description": "the first line has the names; true when left out"},
                "types": {"type": "boolean", "description": "read numbers, booleans and empty cells; false when left out"},
            }),
            &["csv"],
        ),
        output: object(
            json!({
                "rows": {"type": "array", "items": {"type": ["object", "array"]}},
                "columns": {"type": ["array", "null"], "items": {"type": "string"}}, "count": {"type": "integer"},
            }),
            &["rows", "columns", "count"],
        ),
    };
    function(spec, |arguments: Read| read(&arguments))
}

fn read(arguments: &Read) -> Result<Value, ToolError> {
    let text = arguments.csv.trim_start_matches('\u{feff}');
    let mut reader =
        ReaderBuilder::new().delimiter(byte(&arguments.delimiter)).has_headers(arguments.headers).from_reader(text.as_bytes());
    let columns = if arguments.headers { Some(names(reader.headers().map_err(invalid)?)?) } else { None };
    let cell = |text: &str| if arguments.types { typed(text) } else { json!(text) };
    let (mut rows, mut cells) = (Vec::new(), 0);
    for record in reader.records() {
        let record = record.map_err(invalid)?;
        cells += record.len();
        if cells > MAX_CELLS {
            return Err(too_many());
        }
        rows.push(match &columns {
            Some(names) => Value::Object(names.iter().cloned().zip(record.iter().map(cell)).collect()),
            None => record.iter().map(cell).collect(),
        });
    }
    Ok(json!({"count": rows.len(), "rows": rows, "columns": columns}))
}

/// Names that come twice, or are empty, get a number.
fn names(headers: &StringRecord) -> Result<Vec<String>, ToolError> {
    let mut taken = HashSet::new();
    let mut unique = |i: usize, name: &str| {
        if name.chars().count() > MAX_NAME {
            return Err(ToolError::new(
                "INVALID_CSV",
                format!("the name of column {} has more than {MAX_NAME} characters", i + 1),
            ));
        }
        let base = if name.is_empty() { format!("column_{}", i + 1) } else { name.to_owned() };
        // The place of the column makes it unique at once, where counting up would try all before.
        let numbered = (i + 1..).map(|n| format!("{base}_{n}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
        Ok(name.unwrap_or(base))
    };
    headers.iter().enumerate().map(|(i, name)| unique(i, name.trim())).collect()
}

fn typed(text: &str) -> Value {
    match text.trim() {
        "" => Value::Null,
        "true" | "TRUE" | "True" => json!(true),
        "false" | "FALSE" | "False" => json!(false),
        // A leading zero or plus belongs to a code or a telephone number.
        number => serde_json::from_str::<serde_json::Number>(number).map_or_else(|_| json!(text), Value::Number),
    }
}

pub fn write_tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "json_to_csv",
        category: "data",
        description: "Writes rows as CSV: objects (columns are all their keys, in the order of their first row, or `columns`) or arrays. What is an \
                      object or array in a cell is written as JSON, null as nothing. Cells that begin with = + - @ are written as they are: \
                      spreadsheets run them as formulas.",
        parameters: object(
            json!({
                "rows": {
                    "type": "array", "items": {"type": ["object", "array"]}, "maxItems": MAX_CELLS,
                    "description": "all objects, or all arrays",
                },
                "columns": {
                    "type": "array", "items": {"type": "string"}, "maxItems": 10_000,
                    "description": "which keys, in which order; the head of rows that are arrays",
                },
                "delimiter": delimiter(),
                "headers": {"type": "boolean", "description": "write the names in the first line; true when left out"},
            }),
            &["rows"],
        ),
        output: object(json!({"csv": {"type": "string"}, "count": {"type": "integer"}}), &["csv", "count"]),
    };
    function(spec, |arguments: Write| write(arguments))
}

fn write(arguments: Write) -> Result<Value, ToolError> {
    let objects = arguments.rows.iter().filter(|row| row.is_object()).count();
    if objects != 0 && objects != arguments.rows.len() {
        return Err(ToolError::invalid("rows: either all are objects or all are arrays"));
    }
    let head = arguments.columns.unwrap_or_else(|| keys(&arguments.rows));
    if head.len().saturating_mul(arguments.rows.len()) > MAX_CELLS {
        return Err(too_many());
    }
    let mut writer = WriterBuilder::new().delimiter(byte(&arguments.delimiter)).flexible(true).from_writer(Vec::new());
    if arguments.headers && !head.is_empty() {
        writer.write_record(&head).map_err(invalid)?;
    }
    for row in &arguments.rows {
        let written = match row {
            Value::Object(fields) => writer.write_record(head.iter().map(|key| fields.get(key).map_or_else(String::new, cell))),
            Value::Array(cells) => writer.write_record(cells.iter().map(cell)),
            _ => Ok(()),
        };
        written.map_err(invalid)?;
    }
    let bytes = writer.into_inner().map_err(invalid)?;
    Ok(json!({"csv": String::from_utf8_lossy(&bytes), "count": arguments.rows.len()}))
}

fn keys(rows: &[Value]) -> Vec<String> {
    let mut seen = HashSet::new();
    let all = rows.iter().filter_map(Value::as_object).flat_map(Map::keys);
    all.filter(|key| seen.insert(key.as_str())).cloned().collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
