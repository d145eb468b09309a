//! `parse_date`: a date that was written in some form, in ISO 8601.
use std::sync::Arc;

use chrono::Datelike;
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{DATE, MAX_TEXT, read, read_as, told, told_schema, zone};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

#[derive(Deserialize)]
struct Arguments {
    text: String,
    format: Option<String>,
    timezone: Option<String>,
}

pub fn tool() -> Arc<dyn Tool> {
    let mut answer = told_schema();
    answer["epoch_seconds"] = json!({"type": "integer"});
    answer["iso_week"] = json!({"type": "string", "description": "as 2026-W11"});
    answer["day_of_year"] = json!({"type": "integer"});
    answer["form"] = json!({"type": "string", "description": "how it was read"});
    let spec = Spec {
        name: "parse_date",
        category: "time",
        description: "Reads a date, with or without a time, and tells it in ISO 8601. A form that means two dates (03/04/2026) is \
                      refused unless `format` says how it is written.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, DATE),
                "format": text(100, "how the text is written, by strftime: %d/%m/%Y %H:%M"),
                "timezone": text(64, "IANA name of the zone of a text without an offset, and of the answer; UTC when left out"),
            }),
            &["text"],
        ),
        output: object(answer, &["datetime", "utc", "timezone", "weekday", "epoch_seconds", "iso_week", "day_of_year", "form"]),
    };
    function(spec, |arguments: Arguments| parse_date(&arguments))
}

fn parse_date(arguments: &Arguments) -> Result<Value, ToolError> {
    let zone = arguments.timezone.as_deref().map(|name| zone("timezone", name)).transpose()?;
    let moment = match &arguments.format {
        Some(format) => read_as(&arguments.text, format, zone)?,
        None => read("text", &arguments.text, zone)?,
    };
    let local = moment.place.show(moment.at);
    let mut answer = told(moment.at, moment.place);
    answer["epoch_seconds"] = json!(moment.at.timestamp());
    answer["iso_week"] = json!(local.format("%G-W%V").to_string());
    answer["day_of_year"] = json!(local.ordinal());
    answer["form"] = json!(moment.form);
    Ok(answer)
}
