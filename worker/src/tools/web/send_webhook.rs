//! `send_webhook`: an event for somebody's server, signed as Standard Webhooks does (<https://www.standardwebhooks.com>). It is delivered
//! at least once: after a crash it is sent again under the same `webhook-id`, by which its receiver knows it.
use async_trait::async_trait;
use reqwest::{Method, Url};
use runmill_shared::{config::Secret, services::secrets};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Hop, Web, read},
    signature,
};
use crate::tools::{Tool, ToolContext, ToolError, output, parse};

const MAX_URL_LENGTH: usize = 8192;
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
        let id = cx.step_key.as_str();
        let secret = match &arguments.secret {
            Some(name) => Some(secrets::reveal(&cx.app, &cx.scope.owner, name).await),
            None => None,
        };
        let secret = secret.transpose().map_err(|e| ToolError::new(e.code, e.message.into_owned()))?;
        let headers = signature::headers(id, cx.clock.now(), &body, secret.as_ref().map(Secret::expose))?;
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
