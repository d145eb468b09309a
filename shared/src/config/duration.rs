//! "250ms", "30s", "15m", "24h", "30d".
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub fn parse(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = text[..at].parse().ok()?;
    let ms = match &text[at..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    n.checked_mul(ms).map(Duration::from_millis)
}

pub fn print(d: Duration) -> String {
    let ms = d.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let (by, unit) = units.into_iter().find(|(by, _)| ms > 0 && ms.is_multiple_of(*by)).unwrap_or((1, "ms"));
    format!("{}{unit}", ms / by)
}

pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration; write 250ms, 30s, 15m, 24h or 30d")))
}

pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&print(*value))
}
