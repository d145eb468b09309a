//! Anthropic's Messages.
use rig_core::{
    providers::anthropic::{ANTHROPIC, AnthropicConfig, Messages},
    wire::WireFrame,
};
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
            Box::new(move |frame| show(&mut held, frame))
        },
        prepare: as_it_is,
        // It comes without the signature that this wire wants.
        takes_reasoning: false,
    }
}

/// What rig is shown of an answer. It takes the stop reason for the end: that is held back until `message_stop` says that the message is
/// whole. Frames are read as rig reads them: of a name that comes twice, the last counts.
fn show(held: &mut Option<WireFrame>, frame: WireFrame) -> Option<WireFrame> {
    let text = frame.as_str();
    let event: Value = serde_json::from_str(&text).unwrap_or_default();
    match event["type"].as_str() {
        Some("message_stop") => held.take(),
        Some("message_delta") if text.contains("\"stop_reason\"") => {
            *held = Some(frame);
            None
        }
        _ => can_be(&event["index"]).then_some(frame),
    }
}

/// Whether a block may have that number; most frames name none.
fn can_be(index: &Value) -> bool {
    index.is_null() || index.as_u64().is_some_and(|index| index < MAX_BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_number_that_comes_twice_the_last_counts() {
        let shown = |frame: &str| show(&mut None, WireFrame::Bytes(frame.as_bytes().to_vec())).is_some();
        assert!(shown(r#"{"type":"content_block_start","index":40000000000,"index":1}"#));
        assert!(!shown(r#"{"type":"content_block_start","index":1,"index":40000000000}"#));
    }
}
