//! Tools that the engine executes itself, because they let the run wait: for a time, for another agent, for a person.
use std::time::Duration;

use runmill_shared::{
    App, ErrorKind,
    clock::Timestamp,
    domain::{
        agent::Agent,
        caller::Owner,
        chat::ToolSpec,
        event::{NewEvent, kind},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{RunKind, RunState},
        run_input::{RunInput, RunOptions},
        step::StepKind,
        tool::ToolDescriptor,
    },
    services::{
        agents,
        runs::execution::{self, Child},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failure, approval,
    calls::{Placed, failed, start},
    journal::Journal,
};
use crate::tools::ToolError;

const WAIT: &str = "wait";
const DELEGATE: &str = "delegate_to_agent";
const LONGEST_WAIT: u64 = 30 * 24 * 3600;

/// What a call came to so far.
pub enum Progress {
    Result(Value),
    Until(Timestamp),
    Child(Uuid),
}

/// Whether the engine executes it, and knows how to wait for it. Questions to people are in `approval`.
pub fn is_waiting(tool: &str) -> bool {
    [WAIT, DELEGATE].contains(&tool)
}

pub fn descriptors() -> Vec<ToolDescriptor> {
    vec![
        approval::descriptor(),
        ToolDescriptor {
            name: WAIT.to_owned(),
            category: "time".to_owned(),
            description:
                "Waits for a time, without costing anything meanwhile. Use it when something has to be tried again later."
                    .to_owned(),
            input_schema: json!({
                "type": "object", "additionalProperties": false, "required": ["seconds"],
                "properties": { "seconds": { "type": "integer", "minimum": 1, "maximum": LONGEST_WAIT } },
            }),
            output_schema: json!({
                "type": "object", "required": ["waited_until"],
                "properties": { "waited_until": { "type": "string", "format": "date-time" } },
            }),
        },
        ToolDescriptor {
            name: DELEGATE.to_owned(),
            category: "agents".to_owned(),
            description: "Gives a task to another agent, which works on it in the background, and answers with its result."
                .to_owned(),
            input_schema: json!({
                "type": "object", "additionalProperties": false, "required": ["task"],
                "properties": { "task": { "type": "string", "minLength": 1 }, "agent": { "type": "string" } },
            }),
            output_schema: json!({ "description": "what the agent answered" }),
        },
    ]
}

/// As models see them. A child run does not delegate any further.
pub fn specs(names: &[String], is_child: bool) -> Vec<ToolSpec> {
    let wanted = |d: &ToolDescriptor| names.contains(&d.name) && !(is_child && d.name == DELEGATE);
    let spec = |d: ToolDescriptor| ToolSpec { name: d.name, description: d.description, parameters: d.input_schema };
    descriptors().into_iter().filter(wanted).map(spec).collect()
}

/// Starts a call, or looks how far it has come.
pub async fn advance(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    if placed.call.name == WAIT { wait(app, journal, placed).await } else { delegate(app, journal, placed).await }
}

#[derive(Deserialize)]
struct WaitArguments {
    seconds: u64,
}

#[derive(Deserialize)]
struct DelegateArguments {
    task: String,
    agent: Option<String>,
}

fn bad_arguments(e: &serde_json::Error) -> Progress {
    Progress::Result(failed(&ToolError::new("INVALID_ARGUMENTS", e.to_string())))
}

async fn wait(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let until = match journal.step(&placed.key) {
        Some(step) => step.intent["until"].as_i64().map(Timestamp),
        None => None,
    };
    let until = match until {
        Some(until) => until,
        None => {
            let seconds = match serde_json::from_value::<WaitArguments>(placed.call.arguments.clone()) {
                Ok(arguments) => arguments.seconds.clamp(1, LONGEST_WAIT),
                Err(e) => {
                    start(journal, placed, StepKind::Timer, json!({})).await?;
                    return Ok(bad_arguments(&e));
                }
            };
            let until = app.clock.now().after(Duration::from_secs(seconds));
            start(journal, placed, StepKind::Timer, json!({ "until": until })).await?;
            until
        }
    };
    if app.clock.now() < until {
        return Ok(Progress::Until(until));
    }
    Ok(Progress::Result(json!({ "ok": { "waited_until": until.rfc3339() } })))
}

async fn delegate(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let known = journal.step(&placed.key).and_then(|s| s.intent["childRunId"].as_str()?.parse::<Uuid>().ok());
    let Some(child) = known else { return start_child(app, journal, placed).await };
    let outcomes = execution::outcomes(app, &[child]).await?;
    let Some(outcome) = outcomes.first() else {
        return Ok(Progress::Result(failed(&ToolError::new("CHILD_GONE", "the delegated run is gone"))));
    };
    Ok(match outcome.state {
        RunState::Succeeded => {
            // An agent whose answers have a schema gives the answer itself, and not its text.
            let answer = outcome.result.as_ref().map_or(Value::Null, |r| r.get("output").unwrap_or(&r["content"]).clone());
            Progress::Result(json!({ "ok": answer }))
        }
        RunState::Failed | RunState::Cancelled => {
            let message = outcome.error.as_ref().map_or_else(|| "it was cancelled".to_owned(), |e| e.message.clone());
            Progress::Result(failed(&ToolError::new("CHILD_FAILED", message)))
        }
        RunState::Queued | RunState::Running | RunState::Waiting => Progress::Child(child),
    })
}

async fn start_child(app: &App, journal: &mut Journal, placed: &Placed<'_>) -> Result<Progress, Failure> {
    let arguments = match serde_json::from_value::<DelegateArguments>(placed.call.arguments.clone()) {
        Ok(arguments) => arguments,
        Err(e) => {
            start(journal, placed, StepKind::Child, json!({})).await?;
            return Ok(bad_arguments(&e));
        }
    };
    let wanted = arguments.agent.clone().or_else(|| journal.run.agent_id.clone());
    let agent = match agents::runnable(app, &Owner::of_row(&journal.run.owner), wanted.as_deref()).await {
        Ok(agent) => agent,
        Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {
            start(journal, placed, StepKind::Child, json!({})).await?;
            return Ok(Progress::Result(failed(&ToolError::new(e.code, e.message.into_owned()))));
        }
        Err(e) => return Err(e.into()),
    };
    let id = new_id();
    let step = journal.starting(&placed.key, StepKind::Child, DELEGATE, json!({ "childRunId": id }));
    let child = child_of(journal, id, agent, &arguments.task)?;
    execution::start_child(app, &journal.run, child, step).await?;
    let data = json!({ "toolCallId": placed.call.id, "childTaskId": id, "childThreadId": format!("child-{id}") });
    journal.emit(NewEvent::new(kind::PROGRESS, data));
    Ok(Progress::Child(id))
}

fn child_of(journal: &Journal, id: Uuid, agent: Agent, task: &str) -> Result<Child, Failure> {
    let name = format!("child-{id}");
    let options = RunOptions {
        agent_id: Some(agent.id.clone()),
        agent_version: agent.version,
        model: journal.run.model.clone(),
        ..RunOptions::default()
    };
    let input = RunInput {
        thread_id: name.clone(),
        run_id: name,
        messages: Vec::new(),
        state: None,
        tools: Vec::new(),
        context: Vec::new(),
        forwarded_props: Value::Null,
        parent_run_id: Some(journal.run.external_id.clone()),
        options,
    };
    let input = serde_json::to_string(&input).map_err(|e| Failure::from(runmill_shared::Error::from(e)))?;
    let message = NewMessage { id: format!("{id}-task"), role: MessageRole::User, body: MessageBody::text(task) };
    Ok(Child {
        id,
        kind: RunKind::Agent,
        input,
        messages: vec![message],
        agent_id: Some(agent.id),
        model: journal.run.model.clone(),
        watcher: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_run_does_not_delegate() {
        let names = [approval::ASK, WAIT, DELEGATE].map(str::to_owned);
        let seen = |is_child| specs(&names, is_child).into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(seen(false), [approval::ASK, WAIT, DELEGATE]);
        assert_eq!(seen(true), [approval::ASK, WAIT]);
    }
}
