//! OpenAI and everything that speaks its chat completions: the base URL decides.
use rig_core::{
    providers::openai::{
        OpenAIConfig,
        wire::{Auth, Chat, Dialect, OPENAI},
    },
    wire::WireFrame,
};
use serde_json::{Value, json};

use super::{
    Endpoint,
    rig::{RigModel, as_it_is},
};

/// Any other server: the plain protocol, without OpenAI's own rules for its own model names.
const COMPATIBLE: Dialect = Dialect::gateway("openai-compatible", "", "OPENAI_API_KEY");

/// The last frame of a stream.
const DONE: &str = "[DONE]";

pub(super) fn model(to: Endpoint) -> RigModel<Chat> {
    let dialect = if to.base_url.host_str() == Some("api.openai.com") { &OPENAI } else { &COMPATIBLE };
    speaking(dialect, to)
}

/// The chat completions as that server has them.
pub(super) fn speaking(dialect: &'static Dialect, to: Endpoint) -> RigModel<Chat> {
    let provider =
        OpenAIConfig::with_key(dialect, to.key.expose()).with_auth(Auth::OptionalBearer).with_base_url(to.base_url.as_str());
    RigModel {
        name: to.spec,
        wire: provider.chat(to.model),
        http: to.http,
        key: to.key,
        end_frame: Some(DONE),
        repair: || {
            let mut calls = Calls::default();
            Box::new(move |frame| Some(calls.number(frame)))
        },
        prepare: as_it_is,
        takes_reasoning: true,
    }
}

/// Some servers send the fragments of calls without `index`; rig puts those together only when a call's first fragment has
/// arguments in it already. So the index is put in: a fragment with a new id or a name begins a call, any other goes on with it.
#[derive(Default)]
struct Calls {
    ids: Vec<Option<String>>,
}

impl Calls {
    fn number(&mut self, frame: WireFrame) -> WireFrame {
        if !frame.as_str().contains("\"tool_calls\"") {
            return frame;
        }
        let Ok(mut chunk) = serde_json::from_str::<Value>(&frame.as_str()) else { return frame };
        let fragments = chunk.pointer_mut("/choices/0/delta/tool_calls").and_then(Value::as_array_mut);
        for fragment in fragments.into_iter().flatten().filter_map(Value::as_object_mut) {
            if fragment.get("index").is_some_and(Value::is_u64) {
                continue;
            }
            let id = fragment.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
            let named = fragment.get("function").and_then(|f| f.get("name")?.as_str()).is_some_and(|name| !name.is_empty());
            let known = id.as_ref().and_then(|id| self.ids.iter().position(|seen| seen.as_ref() == Some(id)));
            if known.is_none() && (id.is_some() || named || self.ids.is_empty()) {
                self.ids.push(id);
            }
            fragment.insert("index".to_owned(), json!(known.unwrap_or(self.ids.len() - 1)));
        }
        WireFrame::Text(chunk.to_string())
    }
}
