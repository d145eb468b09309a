//! Ollama's own `/api/chat`: lines of JSON, the last of which says `done`.
use rig_core::providers::ollama::{Chat, OllamaConfig};

use super::{
    Endpoint,
    rig::{RigModel, as_it_is},
};

pub(super) fn model(to: Endpoint) -> RigModel<Chat> {
    // Many write the address of its OpenAI-compatible half.
    let base = to.base_url.as_str().trim_end_matches('/').trim_end_matches("/v1");
    let provider = OllamaConfig::new().with_base_url(base).with_api_key(to.key.expose());
    RigModel {
        name: to.spec,
        wire: Chat::new(provider, to.model),
        http: to.http,
        key: to.key,
        end_frame: None,
        repair: || Box::new(Some),
        prepare: as_it_is,
        takes_reasoning: true,
    }
}
