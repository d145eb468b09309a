//! What a webhook is sent with, as Standard Webhooks has it (<https://www.standardwebhooks.com>).
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{self, HeaderMap, HeaderValue};
use runmill_shared::{clock::Timestamp, domain::notification::SECRET_PREFIX};
use sha2::Sha256;

use crate::tools::ToolError;

/// Of a JSON body that is sent at `now`; with a secret it is signed.
pub fn headers(id: &str, now: Timestamp, body: &str, secret: Option<&str>) -> Result<HeaderMap, ToolError> {
    let at = (now.0 / 1_000_000).to_string();
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    headers.insert("webhook-id", value(id)?);
    headers.insert("webhook-timestamp", value(&at)?);
    if let Some(secret) = secret {
        headers.insert("webhook-signature", value(&sign(secret, id, &at, body)?)?);
    }
    Ok(headers)
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
