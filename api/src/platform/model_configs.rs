//! `/model-configs`: models that users configure for their agents.
use std::time::Duration;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    param::Path,
    payload::Json,
    types::{MaybeUndefined, ParseFromJSON, Type},
};
use runmill_shared::{
    App,
    config::{Price, Secret},
    services::model_configs::{self, Change, ModelConfig, Patch, Tested},
};
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::Body,
    patience::Patience,
    reply::{Created, NoContent},
};

/// What accepting and reading the test may take, beside the waiting.
const SLACK: Duration = Duration::from_secs(15);

/// US dollars a million tokens
#[derive(Object)]
struct ModelPrices {
    input: f64,
    /// as input when left out
    #[oai(skip_serializing_if_is_none)]
    cached_input: Option<f64>,
    output: f64,
}

impl From<ModelPrices> for Price {
    fn from(p: ModelPrices) -> Self {
        Self { input: p.input, cached_input: p.cached_input, output: p.output }
    }
}

impl From<Price> for ModelPrices {
    fn from(p: Price) -> Self {
        Self { input: p.input, cached_input: p.cached_input, output: p.output }
    }
}

#[derive(Object)]
struct ModelConfigBody {
    id: Uuid,
    name: String,
    provider: String,
    model_name: String,
    base_url: Option<String>,
    /// the key itself is never shown
    has_api_key: bool,
    temperature: Option<f64>,
    max_tokens: Option<u64>,
    prices: Option<ModelPrices>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ModelConfig> for ModelConfigBody {
    fn from(c: ModelConfig) -> Self {
        Self {
            id: c.id,
            name: c.name,
            provider: c.provider,
            model_name: c.model_name,
            base_url: c.base_url,
            has_api_key: c.has_api_key,
            temperature: c.temperature,
            max_tokens: c.max_tokens,
            prices: c.prices.map(ModelPrices::from),
            version: c.version,
            created_at: c.created_at.utc(),
            updated_at: c.updated_at.utc(),
        }
    }
}

#[derive(Object)]
struct NewModelConfig {
    /// default: `provider:model_name`; one of a name
    name: Option<String>,
    /// openai (and whatever speaks its chat completions, also as openai_compatible), anthropic, gemini, deepseek, ollama, offline
    provider: String,
    model_name: String,
    /// default: the provider's own server. No private address, unless an administrator names it
    base_url: Option<String>,
    /// kept sealed, and never shown. Without one and without base_url the deployment's own is used
    api_key: Option<String>,
    temperature: Option<f64>,
    /// of one answer
    max_tokens: Option<u64>,
    prices: Option<ModelPrices>,
}

impl From<NewModelConfig> for Change {
    fn from(new: NewModelConfig) -> Self {
        Self {
            version: None,
            name: new.name,
            provider: Some(new.provider),
            model_name: Some(new.model_name),
            base_url: given(new.base_url),
            api_key: given(new.api_key.map(Secret::new)),
            temperature: given(new.temperature),
            max_tokens: given(new.max_tokens),
            prices: given(new.prices.map(Price::from)),
        }
    }
}

fn given<T>(value: Option<T>) -> Patch<T> {
    value.map_or(Patch::Keep, Patch::Set)
}

/// What is left out stays as it is; null removes.
#[derive(Object)]
struct ModelConfigChange {
    /// the version that was read: when it is not the latest any more the answer is 409
    version: Option<i64>,
    name: Option<String>,
    provider: Option<String>,
    model_name: Option<String>,
    base_url: MaybeUndefined<String>,
    /// null or empty removes it
    api_key: MaybeUndefined<String>,
    temperature: MaybeUndefined<f64>,
    max_tokens: MaybeUndefined<u64>,
    prices: MaybeUndefined<ModelPrices>,
}

impl From<ModelConfigChange> for Change {
    fn from(change: ModelConfigChange) -> Self {
        Self {
            version: change.version,
            name: change.name,
            provider: change.provider,
            model_name: change.model_name,
            base_url: patch(change.base_url, |url| url),
            api_key: patch(change.api_key, Secret::new),
            temperature: patch(change.temperature, |t| t),
            max_tokens: patch(change.max_tokens, |n| n),
            prices: patch(change.prices, Price::from),
        }
    }
}

fn patch<T: Type + ParseFromJSON, U>(value: MaybeUndefined<T>, convert: impl Fn(T) -> U) -> Patch<U> {
    match value {
        MaybeUndefined::Undefined => Patch::Keep,
        MaybeUndefined::Null => Patch::Remove,
        MaybeUndefined::Value(value) => Patch::Set(convert(value)),
    }
}

#[derive(Object)]
struct ModelTestError {
    /// stable, for programs: `BLOCKED_ADDRESS`, `MODEL_AUTH`, `TEST_TIMEOUT`
    code: String,
    message: String,
}

/// What one real call came to: `reply` when it is ok, else `error`.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ModelTestResult {
    ok: bool,
    latency_ms: u64,
    reply: Option<String>,
    error: Option<ModelTestError>,
}

impl From<Tested> for ModelTestResult {
    fn from(t: Tested) -> Self {
        let error = t.error.map(|e| ModelTestError { code: e.code, message: e.message });
        Self { ok: t.ok, latency_ms: t.latency_ms, reply: t.reply, error }
    }
}

pub struct ModelConfigsApi;

#[OpenApi(prefix_path = "/api/v1/model-configs")]
impl ModelConfigsApi {
    /// The caller's model configurations, newest first; `search` looks into names.
    #[oai(path = "/", method = "get", operation_id = "listModelConfigs")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<ModelConfigBody>>> {
        let found = model_configs::list(&app, &caller.0, &paging.0).await?;
        Ok(Json(paging.of(found)))
    }

    /// Keeps a model and the key to it.
    #[oai(path = "/", method = "post", operation_id = "createModelConfig")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<NewModelConfig>) -> Reply<Created<ModelConfigBody>> {
        let made = model_configs::create(&app, &caller.0, body.0.into()).await?;
        Ok(Created::New(Json(made.into())))
    }

    /// One of the caller's; the key is never shown.
    #[oai(path = "/:id", method = "get", operation_id = "getModelConfig")]
    async fn get(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<ModelConfigBody>> {
        Ok(Json(model_configs::get(&app, &caller.0, id.0).await?.into()))
    }

    /// Changes what is given. Runs that have not been taken up yet use it as it is then.
    #[oai(path = "/:id", method = "put", operation_id = "updateModelConfig")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        id: Path<Uuid>,
        body: Body<ModelConfigChange>,
    ) -> Reply<Json<ModelConfigBody>> {
        Ok(Json(model_configs::update(&app, &caller.0, id.0, body.0.into()).await?.into()))
    }

    /// Deletes it. Agents that name it fail until they are changed.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteModelConfig")]
    async fn remove(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        model_configs::remove(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }

    /// Makes one real call and waits for it. What the call fails at is in the answer, which is 200 all the same.
    #[oai(path = "/:id/test", method = "post", operation_id = "testModelConfig")]
    async fn test(&self, app: Data<&App>, caller: Auth, patience: Patience, id: Path<Uuid>) -> Reply<Json<ModelTestResult>> {
        patience.allow(app.config.models.test_wait + SLACK);
        Ok(Json(model_configs::test(&app, &caller.0, id.0).await?.into()))
    }
}
