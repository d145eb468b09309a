//! Anthropic's Messages.
use rig_core::{
    providers::anthropic::{ANTHROPIC, AnthropicConfig, Messages},
    wire::WireFrame,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Endpoint,
    rig::{RigModel, as_it_is},
};

/// Of one answer, for a model that rig does not know and a request that does not say: the protocol wants a number.
const MAX_TOKENS: u64 = 4096;
/// Content blocks of one answer. rig makes room for as many as a frame says that there are.
const MAX_BLOCKS: u64 = 4096;

pub(super) fn model(to: Endpoint) -> RigModel<Messages> {
    let provider = AnthropicConfig::new(to.key.expose()).with_base_url(to.base_url.as_str());
    let wire = Messages {
        default_max_tokens: ANTHROPIC.default_max_tokens(&to.model).or(Some(MAX_TOKENS)),
        model: to.model,
        // Of tools, instructions and what was said before only what is new is read again.
        prompt_caching: true,
        static_prefix_cache_ttl: None,
        strict_tools: false,
        tool_input_streaming: provider.dialect.quirks.tool_input_streaming,
        provider,
    };
    RigModel {
        name: to.spec,
        wire,
        http: to.http,
        key: to.key,
        end_frame: None,
        repair: || {
            let mut held = None;
            Box::new(move |frame| until_the_end(&mut held, frame).filter(is_of_a_block))
        },
        prepare: as_it_is,
        // It comes without the signature that this wire wants.
        takes_reasoning: false,
    }
}

/// Whether the block that a frame names, if it names one, can be one.
fn is_of_a_block(frame: &WireFrame) -> bool {
    #[derive(Deserialize)]
    struct Named {
        index: Option<Value>,
    }
    let text = frame.as_str();
    let index = serde_json::from_str::<Named>(&text).ok().and_then(|named| named.index);
    index.is_none_or(|index| index.as_u64().is_some_and(|index| index < MAX_BLOCKS))
}

/// rig takes the stop reason for the end. It is held back until `message_stop` says that the message is whole.
fn until_the_end(held: &mut Option<WireFrame>, frame: WireFrame) -> Option<WireFrame> {
    let text = frame.as_str();
    let is = |kind: &str| text.contains(kind) && serde_json::from_str::<Value>(&text).is_ok_and(|event| event["type"] == kind);
    if is("message_stop") {
        return held.take();
    }
    if text.contains("\"stop_reason\"") && is("message_delta") {
        *held = Some(frame);
        return None;
    }
    Some(frame)
}
