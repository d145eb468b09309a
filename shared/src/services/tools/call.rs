//! Calling a tool without an agent: a run of its own, which a worker executes, and whose caller waits.
use serde_json::{Value, json};

use super::Found;
use crate::{
    app::App,
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        run::{Run, RunKind, RunState},
        tool::{CustomTool, ToolDescriptor, definition::ToolDefinition, schema},
    },
    error::{Error, Result},
    jobs::{CalledTool, ToolCall},
    services::runs::{
        accept::{self, Accepted, Work},
        wait,
    },
    store::threads,
};

pub enum Subject<'a> {
    /// By the name of a built-in tool, by id, or by the name of one of the caller's.
    Stored(&'a str),
    /// A definition that is only tried out.
    Tried(Box<ToolDefinition>),
}

pub struct Call<'a> {
    pub subject: Subject<'a>,
    pub arguments: Value,
    /// The thread whose files the tool sees; the call waits for its turn there.
    pub session: Option<&'a str>,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What the tool gave, or the code and message of what it refused or failed at.
    pub result: Result<Value, (String, String)>,
    /// Milliseconds since a worker took it up.
    pub duration_ms: i64,
}

/// Calls a tool and waits for its result, `tools.wait` at most.
///
/// # Errors
/// `TOOL_NOT_FOUND`, `SESSION_NOT_FOUND`, `Invalid` for arguments that break the tool's schema, those of `accept`, and
/// `TOOL_STILL_RUNNING` when there is no result yet: the run goes on.
pub async fn call(app: &App, caller: &Caller, builtin: &[ToolDescriptor], call: Call<'_>) -> Result<Outcome> {
    let owner = caller.can(Scope::Write)?;
    let tool = match call.subject {
        Subject::Stored(key) => match super::get(app, caller, builtin, key).await? {
            Found::Builtin(tool) => check(&tool.input_schema, &call.arguments).map(|()| CalledTool::Builtin(tool.name))?,
            Found::Custom(found) => {
                check(&found.tool.input_schema, &call.arguments)?;
                CalledTool::Custom(Box::new(found.tool))
            }
        },
        Subject::Tried(definition) => {
            definition.check(app.config.tools.max_definition_bytes)?;
            check(&definition.input_schema, &call.arguments)?;
            CalledTool::Custom(Box::new(tried(owner, *definition)))
        }
    };
    let input = serde_json::to_string(&ToolCall { tool, arguments: call.arguments })?;
    let mut work = Work { trace: call.trace, ..Work::alone(RunKind::ToolCall, format!("tool-call-{}", new_id()), input) };
    if let Some(session) = call.session {
        let thread = threads::by_name(&app.db, owner, session).await?;
        work.thread = thread.ok_or_else(|| Error::not_found("SESSION_NOT_FOUND", "no such session"))?.external_id;
        work.listed = true;
    }
    let accepted = accept::accept(app, owner, &work).await?;
    outcome(wait::ended(app, caller, &accepted.thread, accepted.id, app.config.tools.wait).await?, &accepted)
}

fn tried(owner: &Owner, definition: ToolDefinition) -> CustomTool {
    CustomTool {
        id: None,
        owner: owner.as_str().to_owned(),
        plugin_id: None,
        name: definition.name,
        description: definition.description,
        kind: definition.kind,
        category: definition.category,
        input_schema: definition.input_schema,
        output_schema: definition.output_schema,
        config: definition.config,
    }
}

fn check(input_schema: &Value, arguments: &Value) -> Result<()> {
    let validator = schema::compile(input_schema).map_err(Error::internal)?;
    let problems = schema::problems(&validator, arguments, "arguments");
    if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
}

fn outcome(run: Run, accepted: &Accepted) -> Result<Outcome> {
    let result = match run.state {
        RunState::Succeeded => told(run.result.unwrap_or_default())?,
        RunState::Failed => match run.error {
            Some(error) => Err((error.code, error.message)),
            None => return Err(Error::internal("a failed run has no error")),
        },
        RunState::Cancelled => Err(("CANCELLED".to_owned(), "the call was cancelled".to_owned())),
        RunState::Queued | RunState::Running | RunState::Waiting => {
            let message = format!("the tool has no result yet; it goes on as execution {}", accepted.id);
            return Err(Error::unavailable("TOOL_STILL_RUNNING", message));
        }
    };
    let took = run.started_at.zip(run.finished_at).map_or(0, |(from, to)| to.since(from).as_millis());
    Ok(Outcome { result, duration_ms: i64::try_from(took).unwrap_or(i64::MAX) })
}

/// What the job has stored.
fn told(mut result: Value) -> Result<Result<Value, (String, String)>> {
    if result["ok"] == json!(true) {
        return Ok(Ok(result["result"].take()));
    }
    let text = |field: &str| result["error"][field].as_str().map(str::to_owned);
    let error = text("code").zip(text("message"));
    error.map(Err).ok_or_else(|| Error::internal("the result of a call is neither a result nor an error"))
}
