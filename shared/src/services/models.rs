//! Which models an agent's run asks, in which order, and with whose keys.
use uuid::Uuid;

use crate::{
    app::App,
    config::{Config, Secret},
    domain::{
        agent::{Agent, ModelReference},
        caller::Owner,
        model::{Prices, Provider, Target},
    },
    error::{Error, ErrorKind, Result},
    store::model_configs::{self as store, ModelConfigRow},
};

/// The first is the run's own wish (`provider:name`), else the agent's choice, else the deployment's default; then the agent's
/// fallbacks. One statement, and none for an agent that names no model.
///
/// # Errors
/// `Invalid` when the first is no model that is configured: an unknown provider, one without key or address
/// (`MODEL_NOT_CONFIGURED`), a configuration that is gone (`MODEL_CONFIG_NOT_FOUND`). A fallback that is none is left out.
pub async fn targets(app: &App, agent: &Agent, run_model: Option<&str>) -> Result<Vec<Target>> {
    let choice = &agent.definition.model;
    let own = ModelReference {
        provider: choice.provider.clone(),
        model_name: choice.model_name.clone(),
        model_config_id: choice.model_config_id,
    };
    let first = match run_model.filter(|spec| !spec.is_empty()) {
        Some(spec) => reference(spec)?,
        None => own,
    };
    let wanted: Vec<&ModelReference> = std::iter::once(&first).chain(&choice.fallbacks).collect();
    let known = known(app, agent, &wanted).await?;
    let mut targets = Vec::with_capacity(wanted.len());
    for (i, wish) in wanted.into_iter().enumerate() {
        match target(app, agent.owner.as_deref(), &known, wish) {
            Ok(target) => targets.push(target),
            Err(e) if i > 0 => tracing::warn!(agent = agent.id, fallback = i, error = %e, "a fallback is left out"),
            Err(e) => return Err(e),
        }
    }
    for target in &mut targets {
        target.temperature = choice.temperature.or(target.temperature);
        target.max_tokens = choice.max_tokens.or(target.max_tokens);
    }
    Ok(targets)
}

/// One configuration of the owner's.
///
/// # Errors
/// `MODEL_CONFIG_NOT_FOUND`, and those of `targets`.
pub async fn of_config(app: &App, owner: &Owner, id: Uuid) -> Result<Target> {
    let row = store::owned(&app.db, id, owner).await?.ok_or_else(not_found)?;
    of_row(app, &row)
}

/// The model `provider:name` with the keys of the settings.
///
/// # Errors
/// As those of `targets`.
pub fn of_settings(config: &Config, spec: &str) -> Result<Target> {
    let (provider, name) = split(spec)?;
    from_settings(config, known_provider(provider)?, name)
}

/// Where the settings have the provider, and the key to it.
pub fn endpoint(config: &Config, provider: Provider) -> (&str, &Secret) {
    let models = &config.models;
    let of = |p| -> (&str, &Secret) {
        let p: &crate::config::ModelProvider = p;
        (&p.base_url, &p.api_key)
    };
    match provider {
        Provider::Openai | Provider::Offline => (&models.openai_base_url, &models.openai_api_key),
        Provider::Anthropic => of(&models.anthropic),
        Provider::Gemini => of(&models.gemini),
        Provider::Deepseek => of(&models.deepseek),
        Provider::Ollama => of(&models.ollama),
    }
}

/// The providers' own servers answer nobody without a key.
const OWN_HOSTS: [&str; 4] = ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "api.deepseek.com"];

fn is_configured(config: &Config, provider: Provider) -> bool {
    let (base_url, key) = endpoint(config, provider);
    let own_host = || OWN_HOSTS.iter().any(|host| base_url.split('/').nth(2) == Some(host));
    provider == Provider::Offline || (!base_url.is_empty() && (!key.is_empty() || !own_host()))
}

fn not_found() -> Error {
    Error::not_found("MODEL_CONFIG_NOT_FOUND", "no such model configuration")
}

fn split(spec: &str) -> Result<(&str, &str)> {
    let parts = spec.split_once(':').filter(|(provider, name)| !provider.is_empty() && !name.is_empty());
    parts.ok_or_else(|| Error::invalid("model", format!("{spec:?} is not provider:name, as in openai:gpt-4.1-mini")))
}

fn reference(spec: &str) -> Result<ModelReference> {
    let (provider, name) = split(spec)?;
    Ok(ModelReference { provider: Some(provider.to_owned()), model_name: Some(name.to_owned()), model_config_id: None })
}

fn known_provider(provider: &str) -> Result<Provider> {
    Provider::parse(provider).ok_or_else(|| {
        Error::invalid("model", format!("the provider {provider:?} is not known; there are {}", Provider::names()))
    })
}

/// The owner's configurations that the wishes can mean.
async fn known(app: &App, agent: &Agent, wanted: &[&ModelReference]) -> Result<Vec<ModelConfigRow>> {
    let ids: Vec<Uuid> = wanted.iter().filter_map(|w| w.model_config_id).collect();
    let names: Vec<&str> = wanted.iter().filter_map(|w| w.model_name.as_deref()).filter(|n| !n.is_empty()).collect();
    match &agent.owner {
        Some(owner) if !ids.is_empty() || !names.is_empty() => store::wanted(&app.db, owner, &ids, &names).await,
        _ => Ok(Vec::new()),
    }
}

fn target(app: &App, owner: Option<&str>, known: &[ModelConfigRow], wish: &ModelReference) -> Result<Target> {
    if let Some(id) = wish.model_config_id {
        let row = known.iter().find(|row| row.id == id && Some(row.owner.as_str()) == owner).ok_or_else(not_found)?;
        return of_row(app, row);
    }
    let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let (Some(provider), Some(name)) = (set(&wish.provider), set(&wish.model_name)) else {
        return of_settings(&app.config, &app.config.default_model());
    };
    let provider = known_provider(&provider)?;
    match known.iter().find(|row| row.model_name == name && Provider::parse(&row.provider) == Some(provider)) {
        Some(row) => of_row(app, row),
        None => from_settings(&app.config, provider, &name),
    }
}

fn from_settings(config: &Config, provider: Provider, name: &str) -> Result<Target> {
    if !is_configured(config, provider) {
        return Err(not_configured(provider));
    }
    let mut target = Target {
        provider,
        name: name.to_owned(),
        base_url: None,
        key: endpoint(config, provider).1.clone(),
        guarded: false,
        temperature: None,
        max_tokens: None,
        prices: None,
    };
    target.prices = prices(config, &target);
    Ok(target)
}

fn of_row(app: &App, row: &ModelConfigRow) -> Result<Target> {
    let provider = known_provider(&row.provider)?;
    let own_key = row.sealed_key.as_ref().map(|sealed| app.vault.unseal(&row.owner, sealed)).transpose()?;
    let base_url = row.base_url.clone().filter(|_| provider != Provider::Offline);
    if base_url.is_none() && own_key.is_none() && !is_configured(&app.config, provider) {
        return Err(not_configured(provider));
    }
    let key = match (own_key, &base_url) {
        (Some(key), _) => key,
        // The deployment's key goes to the deployment's address only.
        (None, Some(_)) => Secret::default(),
        (None, None) => endpoint(&app.config, provider).1.clone(),
    };
    let mut target = Target {
        provider,
        name: row.model_name.clone(),
        guarded: base_url.is_some() && !row.settings.any_address,
        base_url,
        key,
        temperature: row.settings.temperature,
        max_tokens: row.settings.max_tokens,
        prices: row.settings.prices.map(Prices::from),
    };
    target.prices = target.prices.or_else(|| prices(&app.config, &target));
    Ok(target)
}

fn prices(config: &Config, target: &Target) -> Option<Prices> {
    config.models.prices.get(&target.spec()).copied().map(Prices::from)
}

fn not_configured(provider: Provider) -> Error {
    let message = format!("{} has neither a key nor a model configuration here", provider.as_str());
    Error::new(ErrorKind::Invalid, "MODEL_NOT_CONFIGURED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: &Config, spec: &str) -> (&'static str, String) {
        let e = of_settings(config, spec).unwrap_err();
        (e.code, e.message.into_owned())
    }

    #[test]
    fn a_spec_is_a_provider_with_a_key_and_a_name() {
        let mut config = Config::defaults().unwrap();
        assert_eq!(refusal(&config, "openai:gpt-4.1-mini").0, "MODEL_NOT_CONFIGURED");
        config.models.openai_api_key = Secret::new("sk");
        config.models.gemini.api_key = Secret::new("g");
        for spec in ["openai:gpt-4.1-mini", "openai:hf.co/some/model:Q4", "offline:scripted-demo", "gemini:x"] {
            assert_eq!(of_settings(&config, spec).unwrap().spec(), spec);
        }
        assert_eq!(of_settings(&config, "openai_compatible:x").unwrap().spec(), "openai:x");
        assert!(refusal(&config, "acme:x").1.contains("openai, anthropic"));
        assert_eq!(refusal(&config, "ollama:x").0, "MODEL_NOT_CONFIGURED");
        for bad in ["gpt-4", "openai:", ":x", ""] {
            assert!(refusal(&config, bad).1.contains("provider:name"), "{bad}");
        }
    }

    #[test]
    fn another_server_needs_no_key() {
        let mut config = Config::defaults().unwrap();
        config.models.openai_base_url = "http://127.0.0.1:8000/v1".into();
        config.models.ollama.base_url = "http://127.0.0.1:11434".into();
        assert!(of_settings(&config, "openai:x").is_ok() && of_settings(&config, "ollama:x").is_ok());
        assert_eq!(config.default_model(), "ollama:llama3.2");
        assert_eq!(refusal(&config, "anthropic:x").0, "MODEL_NOT_CONFIGURED");
    }

    #[test]
    fn the_default_is_the_first_with_a_key() {
        let mut config = Config::defaults().unwrap();
        assert_eq!(config.default_model(), "offline:scripted-demo");
        config.models.deepseek.api_key = Secret::new("d");
        assert_eq!(config.default_model(), "deepseek:deepseek-chat");
        config.models.anthropic.api_key = Secret::new("a");
        assert!(config.default_model().starts_with("anthropic:claude"));
        config.models.default = "openai:mine".into();
        assert_eq!(config.default_model(), "openai:mine");
    }

    #[test]
    fn the_settings_price_a_model_by_its_name() {
        let mut config = Config::defaults().unwrap();
        config.models.openai_api_key = Secret::new("sk");
        let price = crate::config::Price { input: 1.0, cached_input: None, output: 2.0 };
        config.models.prices.insert("openai:a".into(), price);
        let prices = |spec| of_settings(&config, spec).unwrap().prices;
        assert_eq!(prices("openai:a"), Some(Prices { input: 1_000_000, cached_input: 1_000_000, output: 2_000_000 }));
        assert_eq!(prices("openai:b"), None);
    }
}
