//! `uuid`: identifiers that nobody else has.
use std::sync::Arc;

use ::uuid::Builder;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::{
    Tool, ToolError,
    function::{Spec, object, timed},
};

const MAX_COUNT: usize = 1000;

#[derive(Deserialize)]
struct Arguments {
    #[serde(default = "random")]
    version: u8,
    #[serde(default = "one")]
    count: usize,
}

fn random() -> u8 {
    4
}

fn one() -> usize {
    1
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "uuid",
        category: "encoding",
        description: "Makes new UUIDs: of version 4 (random) or 7 (they sort by the time they were made).",
        parameters: object(
            json!({
                "version": {"type": "integer", "enum": [4, 7], "description": "4 when left out"},
                "count": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT, "description": "how many; 1 when left out"},
            }),
            &[],
        ),
        output: object(json!({"uuids": {"type": "array", "items": {"type": "string", "format": "uuid"}}}), &["uuids"]),
    };
    timed(spec, |arguments: Arguments, now| make(&arguments, now))
}

fn make(arguments: &Arguments, now: DateTime<Utc>) -> Result<Value, ToolError> {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    let one = || match arguments.version {
        7 => Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid(),
        _ => Builder::from_random_bytes(rand::random()).into_uuid(),
    };
    let mut uuids: Vec<_> = (0..arguments.count).map(|_| one()).collect();
    if arguments.version == 7 {
        uuids.sort();
    }
    Ok(json!({"uuids": uuids}))
}
