//! `date_add`: a date and so much later or earlier.
use std::sync::Arc;

use chrono::{Months, NaiveDateTime, TimeDelta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{DATE, MAX_TEXT, bounded, out_of_range, read, told, told_schema, zone};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

#[derive(Deserialize)]
struct Arguments {
    date: String,
    #[serde(default)]
    years: i32,
    #[serde(default)]
    months: i32,
    #[serde(default)]
    weeks: i64,
    #[serde(default)]
    days: i64,
    #[serde(default)]
    hours: i64,
    #[serde(default)]
    minutes: i64,
    #[serde(default)]
    seconds: i64,
    timezone: Option<String>,
}

pub fn tool() -> Arc<dyn Tool> {
    let amount = |max: i64, unit: &str| json!({"type": "integer", "minimum": -max, "maximum": max, "description": format!("{unit} to add; negative goes back")});
    let spec = Spec {
        name: "date_add",
        category: "time",
        description: "Adds to a date, or takes from it. Years, months, weeks and days go by the calendar of the time zone (31 January \
                      plus a month is the last of February); hours, minutes and seconds are elapsed time.",
        parameters: object(
            json!({
                "date": text(MAX_TEXT, DATE),
                "years": amount(10_000, "years"), "months": amount(120_000, "months"), "weeks": amount(530_000, "weeks"),
                "days": amount(3_700_000, "days"), "hours": amount(90_000_000, "hours"),
                "minutes": amount(5_300_000_000, "minutes"), "seconds": amount(320_000_000_000, "seconds"),
                "timezone": text(64, "IANA name whose calendar counts; when left out, the offset that the date tells, or UTC"),
            }),
            &["date"],
        ),
        output: object(told_schema(), &["datetime", "utc", "timezone", "weekday"]),
    };
    function(spec, |arguments: Arguments| add(&arguments))
}

fn add(arguments: &Arguments) -> Result<Value, ToolError> {
    let zone = arguments.timezone.as_deref().map(|name| zone("timezone", name)).transpose()?;
    let start = read("date", &arguments.date, zone)?;
    let day = calendar(start.local, arguments).ok_or_else(out_of_range)?;
    let start_of_rest = if day == start.local { start.at } else { start.place.resolve(day)? };
    let rest = TimeDelta::try_seconds(arguments.hours * 3600 + arguments.minutes * 60 + arguments.seconds);
    let end = rest.and_then(|rest| start_of_rest.checked_add_signed(rest)).ok_or_else(out_of_range)?;
    Ok(told(bounded(end)?, start.place))
}

fn calendar(start: NaiveDateTime, arguments: &Arguments) -> Option<NaiveDateTime> {
    let months = arguments.years * 12 + arguments.months;
    let step = Months::new(months.unsigned_abs());
    let moved = if months < 0 { start.checked_sub_months(step)? } else { start.checked_add_months(step)? };
    moved.checked_add_signed(TimeDelta::try_days(arguments.weeks * 7 + arguments.days)?)
}
