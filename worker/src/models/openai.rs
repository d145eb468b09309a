//! OpenAI and everything that speaks its chat completions: `models.openai_base_url` decides.
use rig_core::providers::openai::{
    OpenAIConfig,
    wire::{Auth, Chat, Dialect, OPENAI},
};
use runmill_shared::{Error, Result, config::Config};

use super::{http::Http, rig::RigModel};

/// Any other server: the plain protocol, without OpenAI's own rules for its own model names.
const COMPATIBLE: Dialect = Dialect::gateway("openai-compatible", "", "OPENAI_API_KEY");

/// The last frame of a stream.
const DONE: &str = "[DONE]";

/// # Errors
/// `Invalid` when the base URL is none.
pub(super) fn model(config: &Config, name: &str) -> Result<RigModel<Chat>> {
    let models = &config.models;
    let base = reqwest::Url::parse(&models.openai_base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let base = base.ok_or_else(|| Error::invalid("models.openai_base_url", "http://… or https://… is needed"))?;
    let dialect = if base.host_str() == Some("api.openai.com") { &OPENAI } else { &COMPATIBLE };
    let provider = OpenAIConfig::with_key(dialect, models.openai_api_key.expose())
        .with_auth(Auth::OptionalBearer)
        .with_base_url(base.as_str());
    Ok(RigModel {
        name: format!("openai:{name}"),
        wire: provider.chat(name),
        http: Http::new(config.runs.model_idle_timeout)?,
        key: models.openai_api_key.clone(),
        end_frame: Some(DONE),
    })
}
