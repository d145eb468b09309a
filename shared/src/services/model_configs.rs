//! Models that a user configured for their agents. A key goes in and never comes out: it is sealed at once.
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    app::App,
    clock::Timestamp,
    config::{Price, Secret},
    domain::{
        caller::{Caller, Owner, Role, Scope},
        model::{ModelSettings, Provider},
        new_id,
        page::{Listed, PageRequest},
        run::{RunKind, RunState},
    },
    error::{Error, FieldError, Result},
    jobs::ModelTest,
    services::runs::{
        accept::{self, Work},
        control, wait,
    },
    store::model_configs::{self as store, ModelConfigRow},
};

/// As its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub id: Uuid,
    pub name: String,
    pub provider: String,
    pub model_name: String,
    pub base_url: Option<String>,
    pub has_api_key: bool,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    pub prices: Option<Price>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<ModelConfigRow> for ModelConfig {
    fn from(row: ModelConfigRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            provider: row.provider,
            model_name: row.model_name,
            base_url: row.base_url,
            has_api_key: row.sealed_key.is_some(),
            temperature: row.settings.temperature,
            max_tokens: row.settings.max_tokens,
            prices: row.settings.prices,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What a change does to a value that need not be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Patch<T> {
    #[default]
    Keep,
    Remove,
    Set(T),
}

impl<T> Patch<T> {
    pub(super) fn apply(self, to: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Remove => *to = None,
            Self::Set(value) => *to = Some(value),
        }
    }
}

/// What a request says; what it leaves out stays as it is. A new one needs a provider and a model's name.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The version that the caller has seen.
    pub version: Option<i64>,
    /// Default: `provider:model_name`.
    pub name: Option<String>,
    pub provider: Option<String>,
    pub model_name: Option<String>,
    pub base_url: Patch<String>,
    /// An empty one is removed.
    pub api_key: Patch<Secret>,
    pub temperature: Patch<f64>,
    pub max_tokens: Patch<u64>,
    pub prices: Patch<Price>,
}

fn not_found() -> Error {
    Error::not_found("MODEL_CONFIG_NOT_FOUND", "no such model configuration")
}

/// # Errors
/// `Invalid` naming every bad field; `MODEL_CONFIG_EXISTS`.
pub async fn create(app: &App, caller: &Caller, new: Change) -> Result<ModelConfig> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let mut row = ModelConfigRow {
        id: new_id(),
        owner: owner.as_str().to_owned(),
        name: String::new(),
        provider: String::new(),
        model_name: String::new(),
        base_url: None,
        sealed_key: None,
        settings: ModelSettings::default(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    apply(app, caller, new, &mut row)?;
    store::insert(&app.db, &row).await?;
    Ok(row.into())
}

pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<ModelConfig>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&[], &[])?;
    let found = store::page(&app.db, owner, page).await?;
    Ok(Listed { items: found.items.into_iter().map(ModelConfig::from).collect(), total: found.total })
}

pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<ModelConfig> {
    Ok(owned(app, caller.can(Scope::Read)?, id).await?.into())
}

async fn owned(app: &App, owner: &Owner, id: Uuid) -> Result<ModelConfigRow> {
    store::owned(&app.db, id, owner).await?.ok_or_else(not_found)
}

/// # Errors
/// `Invalid` naming every bad field; `VERSION_CONFLICT` when it was changed since the version that the caller names, or just now.
pub async fn update(app: &App, caller: &Caller, id: Uuid, change: Change) -> Result<ModelConfig> {
    let owner = caller.can(Scope::Write)?;
    let mut row = owned(app, owner, id).await?;
    let changed = || Error::conflict("VERSION_CONFLICT", "it was changed meanwhile; read it again");
    if change.version.is_some_and(|seen| seen != row.version) {
        return Err(changed());
    }
    apply(app, caller, change, &mut row)?;
    let now = app.clock.now();
    if !store::update(&app.db, &row, now).await? {
        return Err(changed());
    }
    row.version += 1;
    row.updated_at = now;
    Ok(row.into())
}

/// Agents that name it can no longer run with it.
pub async fn remove(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    if store::delete(&app.db, id, caller.can(Scope::Write)?).await? { Ok(()) } else { Err(not_found()) }
}

/// Puts the change into the row, or names every field that cannot be.
fn apply(app: &App, caller: &Caller, change: Change, row: &mut ModelConfigRow) -> Result<()> {
    let had_default_name = row.name.is_empty() || row.name == default_name(row);
    row.provider = change.provider.unwrap_or(std::mem::take(&mut row.provider));
    row.model_name = change.model_name.map_or_else(|| std::mem::take(&mut row.model_name), |name| name.trim().to_owned());
    row.name = match change.name {
        Some(name) => name.trim().to_owned(),
        None if had_default_name => default_name(row),
        None => std::mem::take(&mut row.name),
    };
    if change.base_url != Patch::Keep {
        row.settings.any_address = caller.role == Role::Admin;
    }
    change.base_url.apply(&mut row.base_url);
    row.base_url = row.base_url.take().filter(|url| !url.is_empty());
    change.temperature.apply(&mut row.settings.temperature);
    change.max_tokens.apply(&mut row.settings.max_tokens);
    change.prices.apply(&mut row.settings.prices);
    let key = match change.api_key {
        Patch::Set(key) if key.is_empty() => Patch::Remove,
        other => other,
    };
    check(row, &key)?;
    match key {
        Patch::Keep => {}
        Patch::Remove => row.sealed_key = None,
        Patch::Set(key) => row.sealed_key = Some(app.vault.seal(&row.owner, &key)?),
    }
    Ok(())
}

fn default_name(row: &ModelConfigRow) -> String {
    format!("{}:{}", row.provider, row.model_name)
}

fn check(row: &ModelConfigRow, key: &Patch<Secret>) -> Result<()> {
    let mut bad = Vec::new();
    let mut rule = |ok: bool, field: &str, message: String| {
        if !ok {
            bad.push(FieldError { field: field.into(), message });
        }
    };
    let line = |text: &str, most: usize| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    rule(line(&row.model_name, 200), "model_name", "1 to 200 characters".into());
    let provider = Provider::parse(&row.provider);
    rule(provider.is_some(), "provider", format!("one of {}, openai_compatible", Provider::names()));
    // One that follows from the other two is as good as they are.
    rule(row.name == default_name(row) || line(&row.name, 128), "name", "1 to 128 characters".into());
    if let Some(url) = &row.base_url {
        let wrong = wrong_url(url);
        rule(wrong.is_none(), "base_url", wrong.unwrap_or_default().to_owned());
    }
    if let Patch::Set(key) = key {
        let text = key.expose();
        let sendable = text.len() <= 4096 && text.bytes().all(|b| b.is_ascii_graphic());
        rule(sendable, "api_key", "at most 4096 visible ASCII characters".into());
    }
    let settings = &row.settings;
    rule(settings.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "temperature", "0 to 2".into());
    let most = 10_000_000;
    rule(settings.max_tokens.is_none_or(|n| (1..=most).contains(&n)), "max_tokens", format!("1 to {most}"));
    rule(settings.prices.is_none_or(|p| p.is_valid()), "prices", "US dollars a million tokens, 0 or more".into());
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

/// What is wrong with an address that somebody names; whether it may be reached is asked when it is.
fn wrong_url(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Some("http://… or https://… is needed") };
    let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if host.contains('@') {
        return Some("credentials do not belong into an address; use api_key");
    }
    let whole = url.len() <= 2048 && url.bytes().all(|b| b.is_ascii_graphic()) && !rest.contains(['?', '#', '\\']);
    (host.is_empty() || !whole).then_some("at most 2048 visible ASCII characters, with a host and without query or fragment")
}

/// What one call of it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub ok: bool,
    pub latency_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TestError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestError {
    /// `BLOCKED_ADDRESS`, `MODEL_AUTH`, `TEST_TIMEOUT` …
    pub code: String,
    pub message: String,
}

impl Tested {
    pub fn failed(latency: Duration, code: impl Into<String>, message: impl Into<String>) -> Self {
        let error = TestError { code: code.into(), message: message.into() };
        Self { ok: false, latency_ms: millis(latency), reply: None, error: Some(error) }
    }

    pub fn answered(latency: Duration, reply: String) -> Self {
        Self { ok: true, latency_ms: millis(latency), reply: Some(reply), error: None }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Has a worker call the model once, and waits for it, at most `models.test_wait`.
///
/// # Errors
/// `NotFound` when it is not the caller's; what the call fails at is data.
pub async fn test(app: &App, caller: &Caller, id: Uuid) -> Result<Tested> {
    let owner = caller.can(Scope::Write)?;
    owned(app, owner, id).await?;
    let input = serde_json::to_string(&ModelTest { model_config_id: id })?;
    let work = Work::alone(RunKind::ModelTest, format!("model-test-{}", new_id()), input);
    let patience = app.config.models.test_wait;
    let accepted = accept::accept(app, owner, &work).await?;
    let run = wait::ended(app, caller, &accepted.thread, accepted.id, patience).await?;
    match (run.state, run.result, run.error) {
        (RunState::Succeeded, Some(result), _) => Ok(read(result)?),
        (_, _, Some(error)) if run.state.is_ended() => {
            Ok(Tested::failed(app.clock.now().since(run.created_at), error.code, error.message))
        }
        _ => {
            control::end(app, accepted.id, "nobody waits for it any more").await?;
            Ok(Tested::failed(patience, "TEST_TIMEOUT", "the model did not answer in time"))
        }
    }
}

fn read(result: Value) -> Result<Tested> {
    Ok(serde_json::from_value(result)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_has_no_secrets_in_it() {
        for good in ["https://api.example.com/v1", "http://127.0.0.1:8000", "http://[::1]:80/v1"] {
            assert_eq!(wrong_url(good), None, "{good}");
        }
        for bad in ["", "ftp://x", "api.example.com", "http://", "https:///v1", "http://x/?a=b", "http://x/#f", "http://x y/"] {
            assert!(wrong_url(bad).is_some(), "{bad}");
        }
        assert!(wrong_url("https://user:secret@example.com").unwrap().contains("api_key"));
    }
}
