//! `jwt_decode`: what a JSON Web Token says. It checks no signature, and says so.
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::from_base64;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, object, text, timed},
};

#[derive(Deserialize)]
struct Arguments {
    token: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let spec = Spec {
        name: "jwt_decode",
        category: "encoding",
        description: "Reads the header and the claims of a JSON Web Token. The signature is NOT checked: anybody can have written the token.",
        parameters: object(
            json!({"token": text(100_000, "three parts with dots between; \"Bearer \" before it is ignored")}),
            &["token"],
        ),
        output: object(
            json!({
                "header": {"type": "object"}, "payload": {"type": "object"}, "signature_verified": {"const": false},
                "issued_at": time, "expires_at": time, "expired": {"type": ["boolean", "null"]},
            }),
            &["header", "payload", "signature_verified", "issued_at", "expires_at", "expired"],
        ),
    };
    timed(spec, |arguments: Arguments, now| decode(&arguments.token, now))
}

fn decode(token: &str, now: DateTime<Utc>) -> Result<Value, ToolError> {
    let token = token.trim().strip_prefix("Bearer ").unwrap_or(token).trim();
    let parts: Vec<_> = token.split('.').collect();
    let [header, payload, _signature] = parts[..] else {
        let e = match parts.len() {
            5 => "it is an encrypted token (five parts), which only its recipient can read".to_owned(),
            n => format!("a token has three parts with dots between, this has {n}"),
        };
        return Err(ToolError::new("INVALID_TOKEN", e));
    };
    let (header, payload) = (part("header", header)?, part("payload", payload)?);
    let time = |claim: &str| payload[claim].as_f64().and_then(|s| DateTime::from_timestamp(s as i64, 0));
    let expires_at = time("exp");
    Ok(json!({
        "issued_at": time("iat").map(told),
        "expires_at": expires_at.map(told),
        "expired": expires_at.map(|at| at <= now),
        "signature_verified": false,
        "header": header,
        "payload": payload,
    }))
}

fn told(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn part(name: &str, text: &str) -> Result<Value, ToolError> {
    let bytes = from_base64(text).map_err(|e| ToolError::new("INVALID_TOKEN", format!("the {name} is no base64: {e}")))?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|e| ToolError::new("INVALID_TOKEN", format!("the {name} is no JSON: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(ToolError::new("INVALID_TOKEN", format!("the {name} is no JSON object"))) }
}
