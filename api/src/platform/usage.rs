//! `/usage`: what the caller's runs have used of models.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{Enum, Object, OpenApi, param::Query, payload::Json};
use runmill_shared::{
    App,
    clock::Timestamp,
    services::usage::{self, GroupBy, Sum, Window},
};

use super::Reply;
use crate::http::auth::Auth;

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum UsageGrouping {
    Agent,
    Model,
    Day,
}

impl From<UsageGrouping> for GroupBy {
    fn from(g: UsageGrouping) -> Self {
        match g {
            UsageGrouping::Agent => Self::Agent,
            UsageGrouping::Model => Self::Model,
            UsageGrouping::Day => Self::Day,
        }
    }
}

#[derive(Object)]
struct UsageGroup {
    /// an agent's id (empty: work without an agent), `provider:model_name`, or a day as `2026-07-01` (UTC)
    key: String,
    /// runs that asked a model
    runs: i64,
    /// answers of models
    calls: i64,
    input_tokens: i64,
    /// among the input tokens: those that the provider had cached
    cached_input_tokens: i64,
    output_tokens: i64,
    /// millionths of a US dollar, as far as prices are known
    cost_micros: i64,
}

impl From<Sum> for UsageGroup {
    fn from(s: Sum) -> Self {
        Self {
            key: s.key,
            runs: s.runs,
            calls: s.calls,
            input_tokens: s.input_tokens,
            cached_input_tokens: s.cached_input_tokens,
            output_tokens: s.output_tokens,
            cost_micros: s.cost_micros,
        }
    }
}

#[derive(Object)]
struct UsageReport {
    items: Vec<UsageGroup>,
}

pub struct UsageApi;

#[OpenApi(prefix_path = "/api/v1/usage")]
impl UsageApi {
    /// Tokens and cost of the caller's runs, by agent, model or day. It reaches back as far as runs are kept (`runs.retention`).
    #[oai(path = "/", method = "get", operation_id = "getUsage")]
    async fn get(
        &self,
        app: Data<&App>,
        caller: Auth,
        /// runs accepted from here on (RFC 3339); default: all that are kept
        from: Query<Option<DateTime<Utc>>>,
        /// and before this; default: now
        to: Query<Option<DateTime<Utc>>>,
        /// default: day
        group_by: Query<Option<UsageGrouping>>,
    ) -> Reply<Json<UsageReport>> {
        let micros = |t: DateTime<Utc>| Timestamp(t.timestamp_micros());
        let window = Window { from: from.0.map(micros), to: to.0.map(micros) };
        let by = group_by.0.unwrap_or(UsageGrouping::Day).into();
        let sums = usage::of_caller(&app, &caller.0, by, window).await?;
        Ok(Json(UsageReport { items: sums.into_iter().map(UsageGroup::from).collect() }))
    }
}
