//! `/executions` and `/agents/{id}/execute`: runs, as the platform calls them.
use chrono::{DateTime, Utc};
use poem::{Request, RequestBody, web::Data};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, Enum, ExtractParamOptions, Object, OpenApi,
    param::Path,
    payload::Json,
    registry::{MetaParamIn, MetaSchemaRef, Registry},
    types::Type,
};
use runmill_shared::{
    App, Error, Result,
    domain::{
        caller::Caller,
        run::{RunError, RunState, Watcher},
        team::{self, Draft, DraftNode, Edge, Mode},
    },
    services::{
        agents,
        chat::{self, Message},
        executions::{self, Asked, Child, Execution, NewExecution, Step},
        runs::accept::Accepted,
        teams,
    },
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Reply,
    agent_chat::{EdgeInput, NodeInput, message},
    chat::TokenUsage,
    page::{CursorPage, Paging},
};
use crate::http::{auth::Auth, body::Body, error::refuse, trace::Trace};

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub enum Status {
    Queued,
    Running,
    Waiting,
    Completed,
    Failed,
    Cancelled,
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Queued => Self::Queued,
            RunState::Running => Self::Running,
            RunState::Waiting => Self::Waiting,
            RunState::Succeeded => Self::Completed,
            RunState::Failed => Self::Failed,
            RunState::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Object)]
struct ExecutionError {
    code: String,
    message: String,
    /// whether another try may succeed
    retryable: bool,
}

impl From<RunError> for ExecutionError {
    fn from(e: RunError) -> Self {
        Self { code: e.code, message: e.message, retryable: e.retryable }
    }
}

/// A row of the run's journal.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct StepBody {
    /// its place in the run
    key: String,
    /// model, tool, timer, child or approval
    kind: String,
    /// of the model, the tool or the participant
    name: String,
    status: Status,
    /// the run that it started
    execution_id: Option<Uuid>,
    output: Option<Value>,
    /// taken over from the execution that this one is a retry of
    inherited: bool,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<Step> for StepBody {
    fn from(s: Step) -> Self {
        let is_failed = s.result.as_ref().is_some_and(|r| !r["error"].is_null() || !r["failed"].is_null());
        let status = match (s.finished_at, is_failed) {
            (None, _) => Status::Running,
            (Some(_), true) => Status::Failed,
            (Some(_), false) => Status::Completed,
        };
        Self {
            key: s.key,
            kind: s.kind.as_str().to_owned(),
            name: s.name,
            status,
            execution_id: s.intent["childRunId"].as_str().and_then(|id| id.parse().ok()),
            output: s.result,
            inherited: s.inherited,
            started_at: s.started_at.utc(),
            finished_at: s.finished_at.map(|t| t.utc()),
        }
    }
}

#[derive(Object)]
struct ChildBody {
    id: Uuid,
    kind: String,
    agent_id: Option<String>,
    status: Status,
}

impl From<Child> for ChildBody {
    fn from(c: Child) -> Self {
        Self { id: c.id, kind: c.kind.as_str().to_owned(), agent_id: c.agent_id, status: c.state.into() }
    }
}

#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ExecutionBody {
    id: Uuid,
    /// the same
    task_id: Uuid,
    /// agent, team, tool_call, …
    kind: String,
    status: Status,
    /// it is held, or will be at its next checkpoint
    paused: bool,
    agent_id: Option<String>,
    /// the goal that it plans or executes, or whose task it executes
    goal_id: Option<Uuid>,
    /// the conversation that it is part of
    session_id: Option<String>,
    /// the run that started this one
    parent_id: Option<Uuid>,
    /// the execution that this one tries again
    retry_of: Option<Uuid>,
    input: Value,
    output: Option<Value>,
    error: Option<ExecutionError>,
    /// failures so far that count
    attempt: i64,
    usage: TokenUsage,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    /// approval, timer, children, tasks or paused
    waiting_for: Option<String>,
    /// where one is shown: not in lists
    steps: Option<Vec<StepBody>>,
    /// the runs that it started; not in lists
    children: Option<Vec<ChildBody>>,
}

impl From<Execution> for ExecutionBody {
    fn from(e: Execution) -> Self {
        let run = e.run;
        let (steps, children) = e.details.map(|d| (d.steps, d.children)).unzip();
        Self {
            id: run.id,
            task_id: run.id,
            kind: run.kind.as_str().to_owned(),
            status: run.state.into(),
            paused: run.paused && !run.state.is_ended(),
            agent_id: run.agent_id,
            goal_id: e.goal_id,
            session_id: e.session,
            parent_id: run.parent_run_id,
            retry_of: run.retry_of,
            input: e.input,
            output: run.result.map(snake),
            error: run.error.filter(|_| run.state == RunState::Failed).map(Into::into),
            attempt: run.attempt,
            usage: run.usage.unwrap_or_default().into(),
            created_at: run.created_at.utc(),
            started_at: run.started_at.map(|t| t.utc()),
            finished_at: run.finished_at.map(|t| t.utc()),
            waiting_for: run.waiting.filter(|_| run.state == RunState::Waiting).map(|w| w.reason().to_owned()),
            steps: steps.map(|all| all.into_iter().map(Into::into).collect()),
            children: children.map(|all| all.into_iter().map(Into::into).collect()),
        }
    }
}

/// The message's id, as this dialect spells it.
fn snake(mut result: Value) -> Value {
    if let Some(object) = result.as_object_mut()
        && let Some(id) = object.remove("messageId")
    {
        object.insert("message_id".to_owned(), id);
    }
    result
}

#[derive(Enum, Clone, Copy, PartialEq)]
#[oai(rename_all = "lowercase")]
enum ExecuteMode {
    /// it alone
    Agent,
    Sequential,
    Pipeline,
    Debate,
    Graph,
}

#[derive(Object)]
struct ExecuteInput {
    /// text; anything else is given to the agent as JSON
    input: Value,
    /// agent by default
    mode: Option<ExecuteMode>,
    /// who takes part beside the agent, which is the first
    agent_ids: Option<Vec<String>>,
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
    /// of a debate
    rounds: Option<u32>,
    /// of a graph; without them it is the agent's own workflow
    nodes: Option<Vec<NodeInput>>,
    edges: Option<Vec<EdgeInput>>,
}

#[derive(Object)]
pub struct StartedBody {
    execution_id: Uuid,
    /// the same
    task_id: Uuid,
    status: Status,
}

#[derive(ApiResponse)]
pub enum Started {
    /// It goes on in the background; `GET /executions/{execution_id}` tells what came of it.
    #[oai(status = 202)]
    Accepted(Json<StartedBody>),
}

impl Started {
    pub fn of(id: Uuid, state: RunState) -> Self {
        Self::Accepted(Json(StartedBody { execution_id: id, task_id: id, status: state.into() }))
    }

    pub fn queued(id: Uuid) -> Self {
        Self::of(id, RunState::Queued)
    }
}

#[derive(Object)]
struct NewExecutionBody {
    /// either this or `workflow_id`
    #[oai(validator(min_length = 1, max_length = 128))]
    agent_id: Option<String>,
    workflow_id: Option<Uuid>,
    /// text; anything else is given to the agent as JSON
    input: Value,
    #[oai(validator(min_length = 1, max_length = 128))]
    session_id: Option<String>,
}

/// Which executions.
#[derive(Object, Deserialize)]
struct ExecutionQuery {
    /// agent, team, goal, task, …
    kind: Option<String>,
    agent_id: Option<String>,
    goal_id: Option<String>,
    session_id: Option<String>,
    /// RFC 3339: accepted from here on
    from: Option<String>,
    /// RFC 3339: accepted before this
    to: Option<String>,
    /// `next_cursor` of the page before; `page` does not count then
    cursor: Option<String>,
}

struct Filters(Asked);

/// One parameter to OpenAPI: an object, whose fields go into the query one by one.
impl<'a> ApiExtractor<'a> for Filters {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        ExecutionQuery::register(registry);
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(ExecutionQuery::schema_ref())
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let query: ExecutionQuery = request.params().map_err(|_| refuse(Error::malformed("the query could not be read")))?;
        let given = |text: Option<String>| text.map(|t| t.replace('\0', "")).filter(|t| !t.is_empty());
        Ok(Self(Asked {
            kind: given(query.kind),
            agent_id: given(query.agent_id),
            goal_id: given(query.goal_id),
            session_id: given(query.session_id),
            from: given(query.from),
            to: given(query.to),
            cursor: given(query.cursor),
        }))
    }
}

pub struct ExecutionsApi;

#[OpenApi(prefix_path = "/api/v1")]
impl ExecutionsApi {
    /// Executes an agent in the background, alone or with others.
    #[oai(path = "/agents/:agent_id/execute", method = "post", operation_id = "executeAgent")]
    async fn execute(
        &self,
        app: Data<&App>,
        trace: Trace,
        caller: Auth,
        agent_id: Path<Uuid>,
        body: Body<ExecuteInput>,
    ) -> Reply<Started> {
        let run = execute(&app, &caller.0, agent_id.0, body.0, trace).await?;
        Ok(Started::queued(run.id))
    }

    /// The caller's executions, whoever or whatever started them: newest first, without their steps.
    #[oai(path = "/executions", method = "get", operation_id = "listExecutions")]
    async fn list(
        &self,
        app: Data<&App>,
        caller: Auth,
        paging: Paging,
        filters: Filters,
    ) -> Reply<Json<CursorPage<ExecutionBody>>> {
        let walks = filters.0.cursor.is_some();
        let page = executions::list(&app, &caller.0, &paging.0, filters.0).await?;
        let (next_cursor, total) = (page.next.map(|id| id.to_string()), page.listed.total);
        let shown = paging.with_cursor(page.listed, next_cursor);
        let counted = (!walks).then_some(total.unsigned_abs());
        Ok(Json(CursorPage { total: counted, page: if walks { 1 } else { shown.page }, ..shown }))
    }

    /// Executes an agent in the background; a notification tells when it has ended.
    #[oai(path = "/executions", method = "post", operation_id = "createExecution")]
    async fn create(&self, app: Data<&App>, trace: Trace, caller: Auth, body: Body<NewExecutionBody>) -> Reply<Started> {
        let NewExecutionBody { agent_id, workflow_id, input, session_id } = body.0;
        let new = NewExecution { agent_id, workflow_id, input, session: session_id, trace: trace.0 };
        Ok(Started::queued(executions::start(&app, &caller.0, new).await?.id))
    }

    /// How a run stands, step by step, whoever started it.
    #[oai(path = "/executions/:execution_id", method = "get", operation_id = "getExecution")]
    async fn get(&self, app: Data<&App>, caller: Auth, execution_id: Path<Uuid>) -> Reply<Json<ExecutionBody>> {
        Ok(Json(executions::get(&app, &caller.0, execution_id.0).await?.into()))
    }

    /// Holds it at its next checkpoint, between two steps.
    #[oai(path = "/executions/:execution_id/pause", method = "post", operation_id = "pauseExecution")]
    async fn pause(&self, app: Data<&App>, caller: Auth, execution_id: Path<Uuid>) -> Reply<Json<ExecutionBody>> {
        Ok(Json(executions::pause(&app, &caller.0, execution_id.0).await?.into()))
    }

    /// Lets it go on from where it was held.
    #[oai(path = "/executions/:execution_id/resume", method = "post", operation_id = "resumeExecution")]
    async fn resume(&self, app: Data<&App>, caller: Auth, execution_id: Path<Uuid>) -> Reply<Json<ExecutionBody>> {
        Ok(Json(executions::resume(&app, &caller.0, execution_id.0).await?.into()))
    }

    /// Ends it, and what it started.
    #[oai(path = "/executions/:execution_id/cancel", method = "post", operation_id = "cancelExecution")]
    async fn cancel(&self, app: Data<&App>, caller: Auth, execution_id: Path<Uuid>) -> Reply<Json<ExecutionBody>> {
        Ok(Json(executions::cancel(&app, &caller.0, execution_id.0).await?.into()))
    }

    /// A new execution with the same input; what succeeded is taken over and not done again.
    #[oai(path = "/executions/:execution_id/retry", method = "post", operation_id = "retryExecution")]
    async fn retry(&self, app: Data<&App>, trace: Trace, caller: Auth, execution_id: Path<Uuid>) -> Reply<Started> {
        Ok(Started::queued(executions::retry(&app, &caller.0, execution_id.0, trace.0).await?.id))
    }
}

async fn execute(app: &App, caller: &Caller, agent_id: Uuid, body: ExecuteInput, trace: Trace) -> Result<Accepted> {
    let text = match body.input {
        Value::String(text) if text.is_empty() => return Err(Error::invalid("input", "must not be empty")),
        Value::String(text) => text,
        other => other.to_string(),
    };
    // Nobody waits for it here.
    let said = Message { watcher: Some(Watcher::Owner), ..message(text, body.session_id, trace) };
    let itself = agent_id.to_string();
    let mode = match body.mode.unwrap_or(ExecuteMode::Agent) {
        ExecuteMode::Agent if body.agent_ids.is_some() => {
            return Err(Error::invalid("agent_ids", "need a mode of several agents"));
        }
        ExecuteMode::Agent => return chat::say(app, caller, &itself, said).await,
        ExecuteMode::Sequential => Mode::Sequential,
        ExecuteMode::Pipeline => Mode::Pipeline,
        ExecuteMode::Debate => Mode::Debate,
        ExecuteMode::Graph => Mode::Graph,
    };
    // Its own owner's draft, or somebody's that is published: another's is not there, whatever it is asked to do.
    let agent = agents::get(app, caller, agent_id).await?;
    let draft = if mode == Mode::Graph {
        let (nodes, edges) = match body.nodes {
            Some(nodes) => given(nodes, body.edges),
            None => team::of_workflow(&agent.definition.workflow_config.unwrap_or_default(), &itself),
        };
        Draft { nodes, edges, ..Draft::of(mode, Vec::new()) }
    } else {
        let others = body.agent_ids.unwrap_or_default().into_iter().filter(|id| *id != itself);
        Draft { rounds: body.rounds, ..Draft::of(mode, std::iter::once(itself.clone()).chain(others).collect()) }
    };
    teams::start(app, caller, draft, said).await
}

fn given(nodes: Vec<NodeInput>, edges: Option<Vec<EdgeInput>>) -> (Vec<DraftNode>, Vec<Edge>) {
    (nodes.into_iter().map(Into::into).collect(), edges.unwrap_or_default().into_iter().map(Into::into).collect())
}
