//! Reading dates as people and programs write them, and telling them again.
use std::str::FromStr;

use chrono::{DateTime, Datelike, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use serde_json::{Value, json};

use crate::tools::ToolError;

pub const TIMEZONE: &str = "IANA name, as Europe/Vienna; UTC when left out";
pub const DATE: &str = "ISO 8601, RFC 2822, seconds or milliseconds since 1970, or a common form as 14 March 2026 15:09";
pub const MAX_TEXT: usize = 200;

/// Forms with an offset that chrono's own parsers do not take.
const ZONED: [&str; 4] = ["%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M:%S%.f %#z", "%Y-%m-%d %H:%M %#z", "%Y%m%dT%H%M%S%#z"];
const TIMES: [&str; 5] = ["%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I %p"];
/// 03/04/2026 is none of them: it is two dates.
const DATES: [&str; 14] = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%Y%m%d",
    "%Y-%j",
    "%G-W%V-%u",
    "%d %B %Y",
    "%B %d %Y",
    "%A %d %B %Y",
    "%A %B %d %Y",
    "%d-%b-%Y",
    "%d %B, %Y",
    "%Y %B %d",
];

/// A moment that was read.
pub struct Moment {
    pub at: DateTime<Utc>,
    /// What a clock there shows.
    pub local: NaiveDateTime,
    pub place: Place,
    /// How it was written.
    pub form: &'static str,
}

/// Whose clock it is.
#[derive(Clone, Copy)]
pub enum Place {
    Zone(Tz),
    Offset(FixedOffset),
}

impl Place {
    pub fn name(&self) -> String {
        match self {
            Self::Zone(zone) => zone.name().to_owned(),
            Self::Offset(offset) => offset.to_string(),
        }
    }

    pub fn show(&self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        match self {
            Self::Zone(zone) => at.with_timezone(zone).fixed_offset(),
            Self::Offset(offset) => at.with_timezone(offset),
        }
    }

    /// When its clocks show `local`: the first time where they do twice; moved by a gap's length where they never do.
    pub fn resolve(&self, local: NaiveDateTime) -> Result<DateTime<Utc>, ToolError> {
        let at = match self {
            Self::Offset(offset) => offset.from_local_datetime(&local).earliest().map(|at| at.to_utc()),
            Self::Zone(zone) => match zone.from_local_datetime(&local) {
                LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.to_utc()),
                LocalResult::None => {
                    let gap = GapInfo::new(&local, zone);
                    gap.and_then(|gap| Some(gap.end?.to_utc() + (local - gap.begin?.0)))
                }
            },
        };
        bounded(at.ok_or_else(out_of_range)?)
    }
}

/// # Errors
/// `INVALID_ARGUMENTS`, which names the `field`.
pub fn zone(field: &str, name: &str) -> Result<Tz, ToolError> {
    Tz::from_str(name)
        .map_err(|_| ToolError::invalid(format!("{field}: {name:?} is no IANA time zone; write it as Europe/Vienna")))
}

pub fn rfc3339(at: &DateTime<FixedOffset>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The keys that each tool of this category answers with, and their schema.
pub fn told(at: DateTime<Utc>, place: Place) -> Value {
    let local = place.show(at);
    json!({
        "datetime": rfc3339(&local),
        "utc": rfc3339(&at.fixed_offset()),
        "timezone": place.name(),
        "weekday": local.format("%A").to_string(),
    })
}

pub fn told_schema() -> Value {
    json!({
        "datetime": {"type": "string", "format": "date-time"}, "utc": {"type": "string", "format": "date-time"},
        "timezone": {"type": "string"}, "weekday": {"type": "string"},
    })
}

pub fn out_of_range() -> ToolError {
    ToolError::new("OUT_OF_RANGE", "the years 1 to 9999 can be told")
}

/// Inside what RFC 3339 can write, in any time zone.
pub fn bounded(at: DateTime<Utc>) -> Result<DateTime<Utc>, ToolError> {
    let first = NaiveDate::from_ymd_opt(1, 1, 2);
    let last = NaiveDate::from_ymd_opt(9999, 12, 30);
    let day = Some(at.date_naive());
    if first <= day && day <= last { Ok(at) } else { Err(out_of_range()) }
}

/// A text that tells its offset keeps it, unless `zone` is given; any other is told by the clocks of `zone`, or of UTC.
pub fn read(field: &str, text: &str, zone: Option<Tz>) -> Result<Moment, ToolError> {
    let text = text.trim();
    let local_place = Place::Zone(zone.unwrap_or(Tz::UTC));
    let zoned = |at: DateTime<FixedOffset>, form| {
        let place = zone.map_or(Place::Offset(*at.offset()), Place::Zone);
        let at = bounded(at.to_utc())?;
        Ok(Moment { at, local: place.show(at).naive_local(), place, form })
    };
    if let Some(local) = date(text) {
        return Ok(Moment { at: local_place.resolve(local)?, local, place: local_place, form: "date" });
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return zoned(at, "iso8601");
    }
    if let Ok(at) = DateTime::parse_from_rfc2822(text) {
        return zoned(at, "rfc2822");
    }
    if let Some(at) = ZONED.iter().find_map(|form| DateTime::parse_from_str(text, form).ok()) {
        return zoned(at, "iso8601");
    }
    if let Some((at, form)) = epoch(text) {
        let at = bounded(at)?;
        return Ok(Moment { at, local: local_place.show(at).naive_local(), place: local_place, form });
    }
    if let Some(local) = datetime(text) {
        return Ok(Moment { at: local_place.resolve(local)?, local, place: local_place, form: "datetime" });
    }
    Err(ToolError::new(
        "INVALID_DATE",
        format!("{field}: {text:?} is no date that can be read for certain; write it as 2026-03-14T15:09:26Z"),
    ))
}

/// Read by a strftime `format`.
pub fn read_as(text: &str, format: &str, zone: Option<Tz>) -> Result<Moment, ToolError> {
    let text = text.trim();
    let place = Place::Zone(zone.unwrap_or(Tz::UTC));
    if let Ok(at) = DateTime::parse_from_str(text, format) {
        let place = zone.map_or(Place::Offset(*at.offset()), Place::Zone);
        let at = bounded(at.to_utc())?;
        return Ok(Moment { at, local: place.show(at).naive_local(), place, form: "format" });
    }
    let local = NaiveDateTime::parse_from_str(text, format)
        .or_else(|_| NaiveDate::parse_from_str(text, format).map(midnight))
        .map_err(|e| ToolError::new("INVALID_DATE", format!("text: {text:?} does not fit the format {format:?}: {e}")))?;
    Ok(Moment { at: place.resolve(local)?, local, place, form: "format" })
}

fn midnight(day: NaiveDate) -> NaiveDateTime {
    day.and_time(NaiveTime::MIN)
}

fn date(text: &str) -> Option<NaiveDateTime> {
    let plain = text.replace(", ", " ");
    let day = DATES.iter().find_map(|form| NaiveDate::parse_from_str(&plain, form).ok())?;
    (1..=9999).contains(&day.year()).then(|| midnight(day))
}

/// A date and a time, with a `T`, spaces, a comma or "at" between.
fn datetime(text: &str) -> Option<NaiveDateTime> {
    let plain = text.replace(" at ", " ").replace(", ", " ");
    let places = plain.char_indices().filter(|(_, c)| matches!(c, 'T' | 't' | ' ')).map(|(place, _)| place);
    places.into_iter().find_map(|place| {
        let time = TIMES.iter().find_map(|form| NaiveTime::parse_from_str(plain[place + 1..].trim(), form).ok())?;
        Some(date(plain[..place].trim())?.date().and_time(time))
    })
}

/// Seconds; milliseconds, microseconds or nanoseconds when there are too many digits for that.
fn epoch(text: &str) -> Option<(DateTime<Utc>, &'static str)> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(match n.unsigned_abs() {
            0..100_000_000_000 => (DateTime::from_timestamp(n, 0)?, "epoch_seconds"),
            100_000_000_000..100_000_000_000_000 => (DateTime::from_timestamp_millis(n)?, "epoch_milliseconds"),
            100_000_000_000_000..100_000_000_000_000_000 => (DateTime::from_timestamp_micros(n)?, "epoch_microseconds"),
            _ => (DateTime::from_timestamp_nanos(n), "epoch_nanoseconds"),
        });
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let decimal = digits.contains('.') && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = decimal.then(|| text.parse().ok()).flatten()?;
    (seconds.abs() < 1e11)
        .then(|| DateTime::from_timestamp_micros((seconds * 1e6).round() as i64).map(|at| (at, "epoch_seconds")))?
}
