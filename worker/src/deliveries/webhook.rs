//! Webhooks, signed as Standard Webhooks has it. Every try of a delivery sends the same body under the same `webhook-id`.
use std::time::Duration;

use chrono::DateTime;
use reqwest::{Method, Response, StatusCode, Url, header};
use runmill_shared::{
    App,
    clock::Timestamp,
    config::Secret,
    domain::{caller::Owner, run::RunError},
    services::{notification_channels, notifications::Parcel},
};
use serde_json::json;

use crate::{
    engine::Failure,
    tools::{
        ToolError, prefix,
        web::{
            Web,
            client::{Hop, read},
            signature,
        },
    },
};

/// Of a refusal's body, for the owner.
const SHOWN: usize = 500;
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

pub async fn send(app: &App, web: &Web, parcel: &Parcel) -> Result<u16, Failure> {
    let (told, channel, now) = (&parcel.notification, &parcel.channel, app.clock.now());
    let at = told.created_at.rfc3339();
    let data = json!({ "id": told.id, "title": told.title, "body": told.body, "subject": told.subject, "created_at": at });
    let body = json!({ "type": told.kind.as_str(), "timestamp": at, "data": data }).to_string();
    let headers = signature::headers(&told.id.to_string(), now, &body, parcel.secret.as_ref().map(Secret::expose));
    let url = Url::parse(&channel.target).map_err(|e| Failure::run("INVALID_URL", e.to_string(), false))?;
    let headers = headers.map_err(unsent)?;
    let hop = Hop { method: Method::POST, url, headers, body: Some(body), secret_header: None };
    // A redirect is no delivery: what was signed was meant for this address.
    let response = web.send_once(&hop).await.map_err(unsent)?;
    let status = response.status();
    if status.is_success() {
        return Ok(status.as_u16());
    }
    if status == StatusCode::GONE {
        notification_channels::disable(app, &Owner::of_row(&channel.owner), channel.id).await?;
        return Err(Failure::run("CHANNEL_GONE", "the other side answered 410; the channel was disabled", false));
    }
    Err(refused(response, now).await)
}

/// Nothing came back.
fn unsent(e: ToolError) -> Failure {
    Failure::run(&e.code, e.message, e.code == "REQUEST_FAILED")
}

async fn refused(mut response: Response, now: Timestamp) -> Failure {
    let (status, retry_after) = (response.status(), retry_after(&response, now));
    let said = read(&mut response, SHOWN).await.map(|read| read.into_text()).unwrap_or_default();
    let again = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    let message = format!("status {status}: {}", prefix(&said, SHOWN));
    Failure::Run { error: RunError::new("HTTP_ERROR", message, again || !status.is_client_error()), retry_after }
}

/// Seconds, or a date.
fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse().map(Duration::from_secs) {
        Ok(wait) => wait,
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now.utc()).to_std().ok()?,
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}
