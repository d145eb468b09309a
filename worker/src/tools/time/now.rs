//! `now`: the time, in UTC and in a time zone.
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{TIMEZONE, zone};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, object, timed},
};

#[derive(Deserialize)]
struct Arguments {
    timezone: Option<String>,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "now",
        category: "time",
        description: "The current date and time, in UTC and in a time zone, with the weekday there.",
        parameters: object(json!({"timezone": {"type": "string", "maxLength": 64, "description": TIMEZONE}}), &[]),
        output: object(
            json!({
                "utc": {"type": "string", "format": "date-time"}, "local": {"type": "string", "format": "date-time"},
                "timezone": {"type": "string"}, "weekday": {"type": "string"},
            }),
            &["utc", "local", "timezone", "weekday"],
        ),
    };
    timed(spec, |arguments: Arguments, now| tell(&arguments, now))
}

fn tell(arguments: &Arguments, now: DateTime<Utc>) -> Result<Value, ToolError> {
    let zone = zone("timezone", arguments.timezone.as_deref().unwrap_or("UTC"))?;
    let local = now.with_timezone(&zone);
    Ok(json!({
        "utc": now.to_rfc3339_opts(SecondsFormat::Secs, true),
        "local": local.to_rfc3339_opts(SecondsFormat::Secs, false),
        "timezone": zone.name(),
        "weekday": local.format("%A").to_string(),
    }))
}
