//! `send_webhook`: an event for somebody's server, signed as Standard Webhooks does (<https://www.standardwebhooks.com>). It is delivered
//! at least once: after a crash it is sent again under the same `webhook-id`, by which its receiver knows it.
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Method, Url,
    header::{self, HeaderMap, HeaderValue},
};
use runmill_shared::services::secrets;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::client::{Hop, Web, read};
use crate::tools::{Tool, ToolContext, ToolError, output, parse};

const MAX_URL_LENGTH: usize = 8192;
const SECRET_PREFIX: &str = "whsec_";
/// Of a refusal's body, for the model.
const SHOWN: usize = 500;

pub struct SendWebhook {
    web: Web,
}

#[derive(Deserialize)]
struct Arguments {
    url: String,
    payload: Value,
    #[serde(default)]
    secret: Option<String>,
}

impl SendWebhook {
    pub fn new(web: Web) -> Self {
        Self { web }
    }
}

#[async_trait]
impl Tool for SendWebhook {
    fn name(&self) -> &str {
        "send_webhook"
    }

    fn category(&self) -> &str {
        "operations"
    }

    fn description(&self) -> &str {
        "Sends a JSON payload to a webhook by POST; with the name of a stored secret it is signed (Standard Webhooks). It is delivered at \
         least once: receivers tell repetitions by the webhook-id."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "required": ["url", "payload"], "additionalProperties": false,
            "properties": {
                "url": {"type": "string", "maxLength": MAX_URL_LENGTH},
                "payload": {"type": "object"},
                "secret": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "description": "the name of a stored secret"},
            },
        })
    }

    fn output(&self) -> Value {
        json!({
            "type": "object", "required": ["status", "webhook_id"],
            "properties": {"status": {"type": "integer"}, "webhook_id": {"type": "string"}},
        })
    }

    fn is_limited(&self) -> bool {
        true
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let arguments: Arguments = parse(arguments)?;
        let url = Url::parse(&arguments.url).map_err(|e| ToolError::invalid(format!("url: {e}")))?;
        let body = arguments.payload.to_string();
        let (id, at) = (cx.step_key.as_str(), (cx.clock.now().0 / 1_000_000).to_string());
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        headers.insert("webhook-id", value(id)?);
        headers.insert("webhook-timestamp", value(&at)?);
        if let Some(name) = &arguments.secret {
            let secret = secrets::reveal(&cx.app, &cx.scope.owner, name).await;
            let secret = secret.map_err(|e| ToolError::new(e.code, e.message.into_owned()))?;
            headers.insert("webhook-signature", value(&sign(secret.expose(), id, &at, &body)?)?);
        }
        let hop = Hop { method: Method::POST, url, headers, body: Some(body), secret_header: None };
        // A redirect is no delivery: what was signed was meant for this address.
        let mut response = self.web.send_once(&hop).await?;
        if response.status().is_success() {
            return Ok(json!({ "status": response.status().as_u16(), "webhook_id": id }));
        }
        let said = read(&mut response, SHOWN).await?.into_text();
        Err(ToolError::new("HTTP_ERROR", format!("status {}: {}", response.status(), output::prefix(&said, SHOWN))))
    }
}

fn value(text: &str) -> Result<HeaderValue, ToolError> {
    HeaderValue::try_from(text).map_err(|e| ToolError::new("INTERNAL", e.to_string()))
}

/// A secret that begins with `whsec_` is base64 behind it; any other is the key itself.
fn sign(secret: &str, id: &str, at: &str, body: &str) -> Result<String, ToolError> {
    let bad = || ToolError::new("SECRET_UNUSABLE", "what follows whsec_ in the secret is no base64");
    let key = match secret.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| bad())?,
        None => secret.as_bytes().to_vec(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| bad())?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    Ok(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's libraries.
    #[test]
    fn a_signature_is_the_one_that_others_make() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let made = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}").unwrap();
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(sign("whsec_!", "a", "b", "c").unwrap_err().code, "SECRET_UNUSABLE");
    }
}
