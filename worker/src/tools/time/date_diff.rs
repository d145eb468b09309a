//! `date_diff`: how long it is from one date to another.
use std::sync::Arc;

use chrono::{Months, NaiveDateTime};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{DATE, MAX_TEXT, TIMEZONE, read, zone};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

const UNITS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "minutes", "seconds"];

#[derive(Deserialize)]
struct Arguments {
    from: String,
    to: String,
    #[serde(default = "days")]
    unit: String,
    timezone: Option<String>,
}

fn days() -> String {
    "days".to_owned()
}

pub fn tool() -> Arc<dyn Tool> {
    let whole = json!({"type": "integer"});
    let calendar = object(
        json!({"years": whole, "months": whole, "days": whole, "hours": whole, "minutes": whole, "seconds": whole}),
        &["years", "months", "days", "hours", "minutes", "seconds"],
    );
    let spec = Spec {
        name: "date_diff",
        category: "time",
        description: "The time between two dates, negative when the second is earlier: in one unit (whole years and months by the \
                      calendar; the others are elapsed time, with decimals), in seconds, and as years, months, days, hours, minutes \
                      and seconds together.",
        parameters: object(
            json!({
                "from": text(MAX_TEXT, DATE), "to": text(MAX_TEXT, DATE),
                "unit": {"type": "string", "enum": UNITS, "description": "of `value`; days when left out"},
                "timezone": text(64, TIMEZONE),
            }),
            &["from", "to"],
        ),
        output: object(
            json!({
                "value": {"type": "number"}, "unit": {"type": "string"}, "seconds": {"type": "number"}, "calendar": calendar,
            }),
            &["value", "unit", "seconds", "calendar"],
        ),
    };
    function(spec, |arguments: Arguments| diff(&arguments))
}

fn diff(arguments: &Arguments) -> Result<Value, ToolError> {
    let zone = arguments.timezone.as_deref().map(|name| zone("timezone", name)).transpose()?;
    let (from, to) = (read("from", &arguments.from, zone)?, read("to", &arguments.to, zone)?);
    let seconds = (to.at - from.at).as_seconds_f64();
    let show = |at| from.place.show(at).naive_local();
    let (sign, earlier, later) = if to.at < from.at { (-1, show(to.at), show(from.at)) } else { (1, show(from.at), show(to.at)) };
    let months = whole_months(earlier, later);
    // A clock that goes back between the two can leave less than nothing.
    let rest = earlier.checked_add_months(Months::new(months)).map_or(0, |start| (later - start).num_seconds().max(0));
    let months = sign * i64::from(months);
    let value = match arguments.unit.as_str() {
        "years" => (months / 12) as f64,
        "months" => months as f64,
        "weeks" => seconds / 604_800.0,
        "days" => seconds / 86_400.0,
        "hours" => seconds / 3600.0,
        "minutes" => seconds / 60.0,
        _ => seconds,
    };
    let number = crate::tools::maths::number;
    Ok(json!({
        "value": number(value),
        "unit": arguments.unit,
        "seconds": number(seconds),
        "calendar": {
            "years": months / 12, "months": months % 12, "days": sign * (rest / 86_400),
            "hours": sign * (rest / 3600 % 24), "minutes": sign * (rest / 60 % 60), "seconds": sign * (rest % 60),
        },
    }))
}

/// As often as a month can be added to `earlier` without passing `later`.
fn whole_months(earlier: NaiveDateTime, later: NaiveDateTime) -> u32 {
    use chrono::Datelike;
    let count = |at: NaiveDateTime| at.year() * 12 + at.month0() as i32;
    let months = u32::try_from(count(later) - count(earlier)).unwrap_or(0);
    let passes = earlier.checked_add_months(Months::new(months)).is_none_or(|at| at > later);
    if passes { months.saturating_sub(1) } else { months }
}
