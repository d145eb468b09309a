//! Gemini's GenerateContent. A stream ends with the response; without a `finishReason` before, rig says that it was cut.
use reqwest::header::HeaderValue;
use rig_core::{
    providers::gemini::{GeminiConfig, completion::GenerateContent},
    wire::Encoded,
};
use runmill_shared::config::Secret;

use super::{Endpoint, rig::RigModel};

pub(super) fn model(to: Endpoint) -> RigModel<GenerateContent> {
    // The key goes into a header: a URL is logged on its way.
    let provider = GeminiConfig::new("").with_base_url(to.base_url.as_str());
    RigModel {
        name: to.spec,
        wire: GenerateContent::new(provider, to.model),
        http: to.http,
        key: to.key,
        end_frame: None,
        repair: || Box::new(Some),
        prepare: key_in_header,
        takes_reasoning: false,
    }
}

fn key_in_header(payload: &mut Encoded, key: &Secret) {
    let uri = payload.request.uri().to_string();
    if let Some(uri) = uri.strip_suffix("key=").and_then(|uri| uri.strip_suffix(['?', '&'])).and_then(|uri| uri.parse().ok()) {
        *payload.request.uri_mut() = uri;
    }
    if let Ok(mut value) = HeaderValue::from_str(key.expose()) {
        value.set_sensitive(true);
        payload.request.headers_mut().insert("x-goog-api-key", value);
    }
}
