//! `/tools`: built-in tools, the caller's own, and those of plugins; calling one without an agent.
use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::Any,
};
use runmill_shared::{
    App, Result,
    domain::{
        caller::Caller,
        page::PageRequest,
        tool::{
            ToolDescriptor, ToolType,
            definition::{DEFAULT_CATEGORY, ToolDefinition},
        },
    },
    services::tools::{self, Call, CategoryCount, Change, Found, Narrow, Outcome, StoredTool, Subject},
};
use serde_json::{Value, json};
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
    trace::Trace,
};

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum OwnType {
    Http,
    Code,
}

impl From<OwnType> for ToolType {
    fn from(t: OwnType) -> Self {
        match t {
            OwnType::Http => Self::Http,
            OwnType::Code => Self::Code,
        }
    }
}

#[derive(Object)]
struct ToolInput {
    /// as models see it; A-Z, a-z, 0-9, _ and -
    name: String,
    /// what it does and when to use it, as models read it
    description: String,
    #[oai(rename = "type")]
    kind: OwnType,
    /// `custom` when left out
    category: Option<String>,
    /// JSON Schema of an object
    input_schema: Any<Value>,
    output_schema: Option<Any<Value>>,
    /// http: {method, url, headers?, query?, body?, auth?, response_path?, timeout_ms?} with {{argument}} in its texts; code: {code, timeout_ms?, memory_mb?}
    config: Any<Value>,
}

impl From<ToolInput> for ToolDefinition {
    fn from(t: ToolInput) -> Self {
        Self {
            name: t.name,
            description: t.description,
            kind: t.kind.into(),
            category: t.category.unwrap_or_else(|| DEFAULT_CATEGORY.to_owned()),
            input_schema: t.input_schema.0,
            output_schema: t.output_schema.map(|s| s.0),
            config: t.config.0,
        }
    }
}

/// What is left out stays.
#[derive(Object)]
struct ToolPatch {
    name: Option<String>,
    description: Option<String>,
    #[oai(rename = "type")]
    kind: Option<OwnType>,
    category: Option<String>,
    input_schema: Option<Any<Value>>,
    output_schema: Option<Any<Value>>,
    config: Option<Any<Value>>,
    /// the version that you have read; 409 when it is no longer in force
    version: Option<i64>,
}

impl From<ToolPatch> for Change {
    fn from(t: ToolPatch) -> Self {
        Self {
            name: t.name,
            description: t.description,
            kind: t.kind.map(Into::into),
            category: t.category,
            input_schema: t.input_schema.map(|s| s.0),
            output_schema: t.output_schema.map(|s| s.0),
            config: t.config.map(|c| c.0),
            version: t.version,
        }
    }
}

#[derive(Object)]
struct BuiltinBody {
    /// its name
    id: String,
    name: String,
    category: String,
    description: String,
    input_schema: Any<Value>,
    output_schema: Any<Value>,
}

impl From<ToolDescriptor> for BuiltinBody {
    fn from(t: ToolDescriptor) -> Self {
        let (input_schema, output_schema) = (Any(t.input_schema), Any(t.output_schema));
        Self { id: t.name.clone(), name: t.name, category: t.category, description: t.description, input_schema, output_schema }
    }
}

#[derive(Object)]
struct ToolBody {
    /// of a built-in tool: its name
    id: String,
    name: String,
    category: String,
    description: String,
    /// builtin, http, code, mcp or openapi
    #[oai(rename = "type")]
    kind: String,
    input_schema: Any<Value>,
    #[oai(skip_serializing_if_is_none)]
    output_schema: Option<Any<Value>>,
    /// of the caller's own
    #[oai(skip_serializing_if_is_none)]
    config: Option<Any<Value>>,
    /// the plugin that brought it
    #[oai(skip_serializing_if_is_none)]
    plugin_id: Option<Uuid>,
    #[oai(skip_serializing_if_is_none)]
    version: Option<i64>,
    #[oai(skip_serializing_if_is_none)]
    created_at: Option<DateTime<Utc>>,
    #[oai(skip_serializing_if_is_none)]
    updated_at: Option<DateTime<Utc>>,
}

impl From<StoredTool> for ToolBody {
    fn from(t: StoredTool) -> Self {
        Self {
            id: t.id.to_string(),
            name: t.tool.name,
            category: t.tool.category,
            description: t.tool.description,
            kind: t.tool.kind.as_str().to_owned(),
            input_schema: Any(t.tool.input_schema),
            output_schema: t.tool.output_schema.map(Any),
            // How a plugin is reached is its owner's business.
            config: t.tool.plugin_id.is_none().then_some(Any(t.tool.config)),
            plugin_id: t.tool.plugin_id,
            version: Some(t.version),
            created_at: Some(t.created_at.utc()),
            updated_at: Some(t.updated_at.utc()),
        }
    }
}

impl From<Found> for ToolBody {
    fn from(found: Found) -> Self {
        match found {
            Found::Custom(stored) => (*stored).into(),
            Found::Builtin(t) => Self {
                id: t.name.clone(),
                name: t.name,
                category: t.category,
                description: t.description,
                kind: tools::BUILTIN.to_owned(),
                input_schema: Any(t.input_schema),
                output_schema: Some(Any(t.output_schema)),
                config: None,
                plugin_id: None,
                version: None,
                created_at: None,
                updated_at: None,
            },
        }
    }
}

#[derive(Object)]
struct CategoryBody {
    name: String,
    /// tools in it
    count: u64,
}

impl From<CategoryCount> for CategoryBody {
    fn from(c: CategoryCount) -> Self {
        Self { name: c.name, count: c.count.unsigned_abs() }
    }
}

#[derive(Object)]
struct UseInput {
    arguments: Option<Any<Value>>,
    /// whose files the tool sees; the call waits for its turn in that session
    session_id: Option<String>,
}

/// A tool that is not stored, and what it is called with.
#[derive(Object)]
struct TryInput {
    name: Option<String>,
    description: Option<String>,
    input_schema: Option<Any<Value>>,
    output_schema: Option<Any<Value>>,
    config: Any<Value>,
    arguments: Option<Any<Value>>,
}

impl TryInput {
    fn subject(self, kind: ToolType) -> (ToolDefinition, Value) {
        let definition = ToolDefinition {
            name: self.name.unwrap_or_else(|| "test".to_owned()),
            description: self.description.unwrap_or_default(),
            kind,
            category: DEFAULT_CATEGORY.to_owned(),
            input_schema: self.input_schema.map_or_else(|| json!({ "type": "object" }), |s| s.0),
            output_schema: self.output_schema.map(|s| s.0),
            config: self.config.0,
        };
        (definition, arguments(self.arguments))
    }
}

fn arguments(sent: Option<Any<Value>>) -> Value {
    sent.map_or_else(|| json!({}), |a| a.0)
}

#[derive(Object)]
struct FailureBody {
    /// stable, for programs: `BLOCKED_ADDRESS`
    code: String,
    message: String,
}

/// What the tool gave, or why it gave nothing: as an agent sees it.
#[derive(Object)]
struct OutcomeBody {
    ok: bool,
    /// any JSON, when ok
    #[oai(skip_serializing_if_is_none)]
    result: Option<Any<Value>>,
    #[oai(skip_serializing_if_is_none)]
    error: Option<FailureBody>,
    duration_ms: u64,
}

impl From<Outcome> for OutcomeBody {
    fn from(o: Outcome) -> Self {
        let duration_ms = o.duration_ms.unsigned_abs();
        match o.result {
            Ok(result) => Self { ok: true, result: Some(Any(result)), error: None, duration_ms },
            Err((code, message)) => Self { ok: false, result: None, error: Some(FailureBody { code, message }), duration_ms },
        }
    }
}

pub struct ToolsApi {
    pub builtin: Arc<[ToolDescriptor]>,
}

impl ToolsApi {
    async fn call(&self, app: &App, caller: &Caller, patience: &Patience, call: Call<'_>) -> Result<OutcomeBody> {
        patience.allow(app.config.http.request_timeout + app.config.tools.wait);
        Ok(tools::call(app, caller, &self.builtin, call).await?.into())
    }
}

#[OpenApi(prefix_path = "/api/v1/tools")]
impl ToolsApi {
    /// What the caller may use: the built-in tools, their own, and those of the plugins that they have enabled. Sorted by name,
    /// -name, created_at or -created_at, the built-in ones first.
    #[oai(path = "/", method = "get", operation_id = "listTools")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        category: Query<Option<String>>,
        /// builtin, http, code, mcp or openapi
        r#type: Query<Option<String>>,
    ) -> Reply<Json<Page<ToolBody>>> {
        let narrow = Narrow { category: category.0.unwrap_or_default(), kind: r#type.0.unwrap_or_default() };
        Ok(Json(paging.of(tools::list(&app, &caller.0, &self.builtin, &paging.0, &narrow).await?)))
    }

    /// Makes a tool of the caller's own.
    #[oai(path = "/", method = "post", operation_id = "createTool")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<ToolInput>) -> Reply<Created<ToolBody>> {
        let created = tools::create(&app, &caller.0, &self.builtin, &body.0.into()).await?;
        Ok(Created::New(Json(created.into())))
    }

    /// The categories of what the caller may use.
    #[oai(path = "/categories", method = "get", operation_id = "listToolCategories")]
    async fn categories(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<CategoryBody>>> {
        let all = tools::categories(&app, &caller.0, &self.builtin).await?;
        Ok(Json(paging.cut(all.into_iter().map(Into::into).collect())))
    }

    /// The built-in tools, all on one page when `page_size` is left out.
    #[oai(path = "/builtin", method = "get", operation_id = "listBuiltinTools")]
    async fn builtin(&self, _caller: Auth, paging: Paging, page_size: Query<Option<u64>>) -> Reply<Json<Page<BuiltinBody>>> {
        let all: Vec<_> = self.builtin.iter().cloned().map(Into::into).collect();
        let whole = |page: PageRequest| PageRequest { size: i64::try_from(all.len()).unwrap_or(i64::MAX).max(1), ..page };
        let paging = if page_size.0.is_none() { Paging(whole(paging.0)) } else { paging };
        Ok(Json(paging.cut(all)))
    }

    /// Tries an HTTP tool that is not stored.
    #[oai(path = "/test/http", method = "post", operation_id = "testHttpTool")]
    async fn test_http(
        &self,
        app: Data<&App>,
        caller: Auth,
        patience: Patience,
        trace: Trace,
        body: Body<TryInput>,
    ) -> Reply<Json<OutcomeBody>> {
        let (definition, arguments) = body.0.subject(ToolType::Http);
        let call = Call { subject: Subject::Tried(Box::new(definition)), arguments, session: None, trace: trace.0 };
        Ok(Json(self.call(&app, &caller.0, &patience, call).await?))
    }

    /// Tries a code tool that is not stored.
    #[oai(path = "/test/code", method = "post", operation_id = "testCodeTool")]
    async fn test_code(
        &self,
        app: Data<&App>,
        caller: Auth,
        patience: Patience,
        trace: Trace,
        body: Body<TryInput>,
    ) -> Reply<Json<OutcomeBody>> {
        let (definition, arguments) = body.0.subject(ToolType::Code);
        let call = Call { subject: Subject::Tried(Box::new(definition)), arguments, session: None, trace: trace.0 };
        Ok(Json(self.call(&app, &caller.0, &patience, call).await?))
    }

    /// A tool, by its id or its name.
    #[oai(path = "/:tool_id", method = "get", operation_id = "getTool")]
    async fn get(&self, app: Data<&App>, caller: Auth, tool_id: Path<String>) -> Reply<Json<ToolBody>> {
        Ok(Json(tools::get(&app, &caller.0, &self.builtin, &tool_id.0).await?.into()))
    }

    /// Changes a tool of the caller's own.
    #[oai(path = "/:tool_id", method = "put", operation_id = "updateTool")]
    async fn update(&self, app: Data<&App>, caller: Auth, tool_id: Path<String>, body: Body<ToolPatch>) -> Reply<Json<ToolBody>> {
        Ok(Json(tools::change(&app, &caller.0, &self.builtin, &tool_id.0, body.0.into()).await?.into()))
    }

    /// Deletes a tool of the caller's own.
    #[oai(path = "/:tool_id", method = "delete", operation_id = "deleteTool")]
    async fn delete(&self, app: Data<&App>, caller: Auth, tool_id: Path<String>) -> Reply<NoContent> {
        tools::delete(&app, &caller.0, &self.builtin, &tool_id.0).await?;
        Ok(NoContent::Done)
    }

    /// Calls a tool, by its id or its name, and waits for its result. What the tool fails at is data: 200 with `ok: false`.
    #[oai(path = "/:tool_id/use", method = "post", operation_id = "useTool")]
    async fn call_one(
        &self,
        app: Data<&App>,
        caller: Auth,
        patience: Patience,
        trace: Trace,
        tool_id: Path<String>,
        body: Body<UseInput>,
    ) -> Reply<Json<OutcomeBody>> {
        let UseInput { arguments: sent, session_id } = body.0;
        let (subject, session) = (Subject::Stored(&tool_id.0), session_id.as_deref());
        let call = Call { subject, arguments: arguments(sent), session, trace: trace.0 };
        Ok(Json(self.call(&app, &caller.0, &patience, call).await?))
    }
}
