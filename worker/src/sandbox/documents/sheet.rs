//! Rows of a spreadsheet: xlsx, xls, xlsb, ods, and CSV.
use std::io::Cursor;

use calamine::{Data, Reader, open_workbook_auto_from_rs};
use serde_json::{Value, json};

use super::super::wire::{Problem, SheetRows};

/// Above it not every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

pub struct Wanted {
    pub sheet: Option<String>,
    pub offset: usize,
    pub limit: usize,
    /// Of the rows as JSON.
    pub max_bytes: usize,
}

pub fn read_workbook(file: &[u8], wanted: Wanted) -> Result<SheetRows, Problem> {
    let mut workbook = open_workbook_auto_from_rs(Cursor::new(file)).map_err(Problem::unreadable)?;
    let sheets = workbook.sheet_names();
    let sheet = match &wanted.sheet {
        Some(name) if sheets.contains(name) => name.clone(),
        Some(name) => return Err(Problem::new("SHEET_NOT_FOUND", format!("there is no sheet {name:?}; there are {sheets:?}"))),
        None => sheets.first().cloned().ok_or_else(|| Problem::unreadable("it has no sheets"))?,
    };
    let range = workbook.worksheet_range(&sheet).map_err(Problem::unreadable)?;
    let total_rows = range.height();
    let rows = range.rows().skip(wanted.offset).map(|row| row.iter().map(cell).collect());
    let (rows, next_offset) = bounded(rows, &wanted, total_rows);
    Ok(SheetRows { sheets, sheet, rows, total_rows, next_offset })
}

pub fn read_csv(file: &[u8], wanted: &Wanted) -> Result<SheetRows, Problem> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let name = "csv".to_owned();
    if let Some(other) = wanted.sheet.as_ref().filter(|s| **s != name) {
        return Err(Problem::new(
            "SHEET_NOT_FOUND",
            format!("there is no sheet {other:?}; a CSV file is one sheet named \"csv\""),
        ));
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator(file)).from_reader(file);
    let (mut kept, mut total_rows) = (Vec::new(), 0);
    for record in reader.byte_records() {
        let record = record.map_err(Problem::unreadable)?;
        if total_rows >= wanted.offset && kept.len() < wanted.limit {
            kept.push(record.iter().map(|field| Value::String(String::from_utf8_lossy(field).into_owned())).collect());
        }
        total_rows += 1;
    }
    let (rows, next_offset) = bounded(kept.into_iter(), wanted, total_rows);
    Ok(SheetRows { sheets: vec![name.clone()], sheet: name, rows, total_rows, next_offset })
}

/// The one that the first line has most of.
fn separator(file: &[u8]) -> u8 {
    let line = file.split(|b| *b == b'\n').next().unwrap_or_default();
    let count = |s: u8| line.iter().filter(|b| **b == s).count();
    SEPARATORS.into_iter().rev().max_by_key(|s| count(*s)).unwrap_or(b',')
}

/// As many rows as are asked for and have room, at least one; and where the next one is.
fn bounded(rows: impl Iterator<Item = Vec<Value>>, wanted: &Wanted, total: usize) -> (Vec<Vec<Value>>, Option<usize>) {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for row in rows.take(wanted.limit) {
        bytes += json!(row).to_string().len() + 1;
        if bytes > wanted.max_bytes && !kept.is_empty() {
            break;
        }
        kept.push(row);
    }
    let next = wanted.offset + kept.len();
    let has_more = !kept.is_empty() && next < total;
    (kept, has_more.then_some(next))
}

fn cell(data: &Data) -> Value {
    match data {
        Data::Empty => Value::Null,
        Data::Bool(value) => json!(value),
        Data::Int(value) => json!(value),
        Data::Float(value) => number(*value),
        Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => json!(text),
        Data::Error(error) => json!(error.to_string()),
        Data::DateTime(time) if time.is_datetime() => {
            let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
            let date = format!("{year:04}-{month:02}-{day:02}");
            json!(if time.as_f64().fract() == 0.0 { date } else { format!("{date}T{hour:02}:{minute:02}:{second:02}") })
        }
        // A duration, in days.
        Data::DateTime(time) => number(time.as_f64()),
    }
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= EXACT { json!(value as i64) } else { json!(value) }
}
