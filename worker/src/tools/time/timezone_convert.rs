//! `timezone_convert`: what the clocks elsewhere show.
use std::sync::Arc;

use chrono::{LocalResult, TimeZone};
use chrono_tz::OffsetComponents;
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{DATE, MAX_TEXT, Place, TIMEZONE, read, told, told_schema, zone};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

#[derive(Deserialize)]
struct Arguments {
    datetime: String,
    from: Option<String>,
    to: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let mut answer = told_schema();
    answer["offset"] = json!({"type": "string", "description": "from UTC, as +02:00"});
    answer["daylight_saving"] = json!({"type": "boolean"});
    answer["source_clock"] = json!({
        "enum": ["unique", "repeated", "skipped"],
        "description": "repeated: the clocks at the source showed this twice, and the first was taken; skipped: never, and it was moved on",
    });
    let spec = Spec {
        name: "timezone_convert",
        category: "time",
        description: "Tells a date and time of one time zone by the clocks of another, daylight saving included.",
        parameters: object(
            json!({
                "datetime": text(MAX_TEXT, DATE),
                "from": text(64, "IANA name of the zone that a datetime without an offset is in; UTC when left out"),
                "to": text(64, TIMEZONE.trim_end_matches("; UTC when left out")),
            }),
            &["datetime", "to"],
        ),
        output: object(answer, &["datetime", "utc", "timezone", "weekday", "offset", "daylight_saving", "source_clock"]),
    };
    function(spec, |arguments: Arguments| convert(&arguments))
}

fn convert(arguments: &Arguments) -> Result<Value, ToolError> {
    let to = zone("to", &arguments.to)?;
    let from = arguments.from.as_deref().map(|name| zone("from", name)).transpose()?;
    let moment = read("datetime", &arguments.datetime, from)?;
    let told_its_offset = matches!(moment.form, "iso8601" | "rfc2822") || moment.form.starts_with("epoch");
    let source = match (moment.place, told_its_offset) {
        (Place::Zone(zone), false) => match zone.from_local_datetime(&moment.local) {
            LocalResult::Single(_) => "unique",
            LocalResult::Ambiguous(..) => "repeated",
            LocalResult::None => "skipped",
        },
        _ => "unique",
    };
    let there = moment.at.with_timezone(&to);
    let mut answer = told(moment.at, Place::Zone(to));
    answer["offset"] = json!(there.format("%:z").to_string());
    answer["daylight_saving"] = json!(!there.offset().dst_offset().is_zero());
    answer["source_clock"] = json!(source);
    Ok(answer)
}
