//! `now`: the time, in UTC and in a time zone.
use std::str::FromStr;

use async_trait::async_trait;
use chrono::SecondsFormat;
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, parse};

pub struct Now;

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    timezone: Option<String>,
}

#[async_trait]
impl Tool for Now {
    fn name(&self) -> &'static str {
        "now"
    }

    fn description(&self) -> &'static str {
        "The current date and time, in UTC and in a time zone, with the weekday there."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "IANA name, as Europe/Vienna; UTC when left out"}},
            "additionalProperties": false,
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let name = parse::<Arguments>(arguments)?.timezone.unwrap_or_else(|| "UTC".to_owned());
        let zone = Tz::from_str(&name)
            .map_err(|_| ToolError::invalid(format!("timezone: {name:?} is no IANA time zone; write it as Europe/Vienna")))?;
        let utc = cx.clock.now().utc();
        let local = utc.with_timezone(&zone);
        Ok(json!({
            "utc": utc.to_rfc3339_opts(SecondsFormat::Secs, true),
            "local": local.to_rfc3339_opts(SecondsFormat::Secs, false),
            "timezone": zone.name(),
            "weekday": local.format("%A").to_string(),
        }))
    }
}
