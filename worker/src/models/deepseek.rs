//! DeepSeek: OpenAI's chat completions with fields of its own for reasoning and the cache.
use rig_core::providers::openai::wire::{Chat, DEEPSEEK};

use super::{Endpoint, openai, rig::RigModel};

pub(super) fn model(to: Endpoint) -> RigModel<Chat> {
    openai::speaking(&DEEPSEEK, to)
}
