//! `cron_next`: when a cron pattern comes next.
use std::sync::Arc;

use chrono::{DateTime, Utc};
use runmill_shared::domain::cron::CronSchedule;
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment::{DATE, MAX_TEXT, Place, TIMEZONE, read, rfc3339};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, object, text, timed},
};

const MAX_COUNT: usize = 100;

#[derive(Deserialize)]
struct Arguments {
    cron: String,
    timezone: Option<String>,
    #[serde(default = "five")]
    count: usize,
    after: Option<String>,
}

fn five() -> usize {
    5
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "cron_next",
        category: "time",
        description: "The next times of a cron pattern: five fields (minute hour day month weekday), six with seconds first, or @hourly \
                      @daily @weekly @monthly @yearly. Where a clock change skips a named hour, the time moves to its end; where it \
                      repeats one, the first counts. No times: it never comes.",
        parameters: object(
            json!({
                "cron": text(200, "for example 30 9 * * MON-FRI"),
                "timezone": text(64, TIMEZONE),
                "count": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT, "description": "how many; 5 when left out"},
                "after": text(MAX_TEXT, &format!("when to start, itself not included; now when left out. {DATE}")),
            }),
            &["cron"],
        ),
        output: object(
            json!({
                "times": {"type": "array", "items": {"type": "string", "format": "date-time"}},
                "timezone": {"type": "string"}, "description": {"type": "string", "description": "the pattern in English"},
            }),
            &["times", "timezone", "description"],
        ),
    };
    timed(spec, |arguments: Arguments, now| next(&arguments, now))
}

fn next(arguments: &Arguments, now: DateTime<Utc>) -> Result<Value, ToolError> {
    let zone = arguments.timezone.as_deref().unwrap_or("UTC");
    let schedule = CronSchedule::parse(&arguments.cron, zone).map_err(|e| ToolError::invalid(e.message))?;
    let after = match &arguments.after {
        Some(text) => read("after", text, Some(schedule.zone()))?.at,
        None => now,
    };
    let place = Place::Zone(schedule.zone());
    let times = schedule.upcoming(after.into(), arguments.count);
    Ok(json!({
        "times": times.iter().map(|at| rfc3339(&place.show(at.utc()))).collect::<Vec<_>>(),
        "timezone": schedule.zone().name(),
        "description": schedule.describe(),
    }))
}
