//! Language models behind one trait. A provider is one file that builds a rig wire (`openai.rs`); `rig.rs` drives any of them,
//! `http.rs` is the transport below them, `offline.rs` needs no network at all. rig's types do not leave this folder.
//! `fallbacks.rs` asks several in order, keeps the cap on parallel calls, and prices the answers.
mod anthropic;
mod chat;
mod deepseek;
mod errors;
mod fallbacks;
mod gemini;
mod history;
mod http;
mod offline;
mod ollama;
mod openai;
mod rig;

use std::sync::Arc;

use runmill_shared::{
    App, Error, Result,
    config::{Config, Secret},
    domain::model::{Provider, Target},
    services::models,
};

pub use self::{
    chat::{ChatModel, ChatRequest, EventStream, ModelEvent, ToolChoice},
    errors::{ModelError, ModelErrorKind},
};
use self::{fallbacks::Fallbacks, http::Http};

/// What a provider's file is given.
struct Endpoint {
    /// `provider:name`.
    spec: String,
    model: String,
    base_url: reqwest::Url,
    key: Secret,
    http: Http,
}

/// The first of the targets that answers.
///
/// # Errors
/// `Invalid` when not one of them can be asked: no base URL, an address that may not be reached (`BLOCKED_ADDRESS`), an offline model
/// of another name.
pub fn connect(app: &App, targets: &[Target]) -> Result<Arc<dyn ChatModel>> {
    let mut refused = None;
    let mut candidates = Vec::with_capacity(targets.len());
    for target in targets {
        match model(&app.config, target) {
            Ok(model) => candidates.push((target.clone(), model)),
            Err(e) => {
                tracing::warn!(model = target.spec(), error = %e, "a model cannot be asked");
                refused.get_or_insert(e);
            }
        }
    }
    match refused {
        Some(e) if candidates.is_empty() => Err(e),
        None if candidates.is_empty() => Err(Error::invalid("model", "no model is named")),
        _ => Ok(Arc::new(Fallbacks::new(app, candidates))),
    }
}

/// One model by itself, without fallbacks, cap and prices.
///
/// # Errors
/// As those of `connect`.
pub fn model(config: &Config, target: &Target) -> Result<Arc<dyn ChatModel>> {
    if target.provider == Provider::Offline {
        return match target.name.as_str() {
            offline::NAME => Ok(Arc::new(offline::Offline)),
            _ => Err(Error::invalid("model", format!("offline has one model: offline:{}", offline::NAME))),
        };
    }
    let endpoint = endpoint(config, target)?;
    Ok(match target.provider {
        Provider::Anthropic => Arc::new(anthropic::model(endpoint)),
        Provider::Gemini => Arc::new(gemini::model(endpoint)),
        Provider::Deepseek => Arc::new(deepseek::model(endpoint)),
        Provider::Ollama => Arc::new(ollama::model(endpoint)),
        Provider::Openai | Provider::Offline => Arc::new(openai::model(endpoint)),
    })
}

fn endpoint(config: &Config, target: &Target) -> Result<Endpoint> {
    let (base_url, field) = match &target.base_url {
        Some(url) => (url.as_str(), "base_url".to_owned()),
        None if target.provider == Provider::Openai => {
            (models::endpoint(config, target.provider).0, "models.openai_base_url".to_owned())
        }
        None => (models::endpoint(config, target.provider).0, format!("models.{}.base_url", target.provider.as_str())),
    };
    let parsed = reqwest::Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let base_url = parsed.ok_or_else(|| Error::invalid(field, "http://… or https://… is needed"))?;
    let http = if target.guarded { Http::guarded(config, &base_url)? } else { Http::new(config)? };
    Ok(Endpoint { spec: target.spec(), model: target.name.clone(), base_url, key: target.key.clone(), http })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(spec: &str, base_url: Option<&str>) -> Target {
        let (provider, name) = spec.split_once(':').unwrap();
        Target {
            provider: Provider::parse(provider).unwrap(),
            name: name.into(),
            guarded: base_url.is_some(),
            base_url: base_url.map(str::to_owned),
            key: Secret::default(),
            temperature: None,
            max_tokens: None,
            prices: None,
        }
    }

    #[test]
    fn every_provider_has_a_model_of_its_name() {
        let mut config = Config::defaults().unwrap();
        config.models.ollama.base_url = "http://127.0.0.1:11434".into();
        for spec in [
            "openai:gpt-4.1-mini",
            "anthropic:claude",
            "gemini:flash",
            "deepseek:chat",
            "ollama:qwen3:8b",
            "offline:scripted-demo",
        ] {
            assert_eq!(model(&config, &target(spec, None)).unwrap().name(), spec);
        }
        let refused = model(&config, &target("offline:gpt", None)).err().unwrap();
        assert!(refused.message.contains("offline:scripted-demo"));
    }

    #[test]
    fn a_base_url_that_is_none_is_refused() {
        let mut config = Config::defaults().unwrap();
        config.models.openai_base_url = "localhost:8000".into();
        let field = |target: &Target| model(&config, target).err().unwrap().fields[0].field.clone();
        assert_eq!(field(&target("openai:x", None)), "models.openai_base_url");
        assert_eq!(field(&target("ollama:x", None)), "models.ollama.base_url");
        assert_eq!(field(&target("gemini:x", Some("ftp://x"))), "base_url");
    }

    #[test]
    fn an_address_that_a_user_names_obeys_the_rules_for_tools() {
        let mut config = Config::defaults().unwrap();
        let code = |config: &Config, url| model(config, &target("openai:x", Some(url))).err().map(|e| e.code);
        for url in
            ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://2130706433/", "http://169.254.169.254/", "http://[::1]/"]
        {
            assert_eq!(code(&config, url), Some("BLOCKED_ADDRESS"), "{url}");
        }
        assert_eq!(code(&config, "https://user:pw@example.com/"), Some("INVALID_URL"));
        assert_eq!(code(&config, "https://api.example.com/v1"), None);
        config.security.allow_private_hosts = vec!["127.0.0.1:1".into()];
        assert_eq!(code(&config, "http://127.0.0.1:1/v1"), None);
    }
}
