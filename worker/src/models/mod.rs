//! Language models behind one trait. A provider is one file that builds a rig wire (`openai.rs`); `rig.rs` drives any of them,
//! `http.rs` is the transport below them, `offline.rs` needs no network at all. rig's types do not leave this folder.
mod chat;
mod errors;
mod history;
mod http;
mod offline;
mod openai;
mod rig;

use std::sync::Arc;

use runmill_shared::{Error, Result, config::Config};

pub use self::{
    chat::{ChatModel, ChatRequest, EventStream, ModelEvent, ToolChoice},
    errors::{ModelError, ModelErrorKind},
};

/// What `provider:name` may begin with.
const PROVIDERS: [&str; 2] = ["openai", "offline"];

/// The model that `spec` names: `openai:gpt-4.1-mini`, `offline:scripted-demo`.
///
/// # Errors
/// `Invalid` when the spec is not `provider:name`, when the provider is not known (the message lists those that are), or when its
/// settings cannot work.
pub fn resolve(config: &Config, spec: &str) -> Result<Arc<dyn ChatModel>> {
    let invalid = |message: String| Error::invalid("model", message);
    let (provider, name) = spec
        .split_once(':')
        .filter(|(provider, name)| !provider.is_empty() && !name.is_empty())
        .ok_or_else(|| invalid(format!("{spec:?} is not provider:name, as in openai:gpt-4.1-mini")))?;
    match provider {
        "openai" => Ok(Arc::new(openai::model(config, name)?)),
        "offline" if name == offline::NAME => Ok(Arc::new(offline::Offline)),
        "offline" => Err(invalid(format!("offline has one model: offline:{}", offline::NAME))),
        _ => Err(invalid(format!("the provider {provider:?} is not known; there are {}", PROVIDERS.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(spec: &str) -> String {
        resolve(&Config::defaults().unwrap(), spec).err().unwrap().message.into_owned()
    }

    #[test]
    fn a_spec_is_a_provider_and_a_name() {
        let config = Config::defaults().unwrap();
        for spec in ["openai:gpt-4.1-mini", "openai:hf.co/some/model:Q4", "offline:scripted-demo"] {
            assert_eq!(resolve(&config, spec).unwrap().name(), spec);
        }
        assert!(refusal("acme:x").contains("openai, offline"));
        assert!(refusal("gpt-4").contains("provider:name"));
        assert!(refusal("openai:").contains("provider:name"));
        assert!(refusal("offline:gpt").contains("offline:scripted-demo"));
    }

    #[test]
    fn a_base_url_that_is_none_is_refused() {
        let mut config = Config::defaults().unwrap();
        config.models.openai_base_url = "localhost:8000".into();
        let error = resolve(&config, "openai:x").err().unwrap();
        assert_eq!(error.fields[0].field, "models.openai_base_url");
    }
}
