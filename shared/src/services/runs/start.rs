//! Starting an agent's run from a request as it came in: what it asks for is checked here, and then accepted.
use std::collections::BTreeSet;

use serde_json::Value;

use super::accept::{self, Accepted, Work};
use crate::{
    app::App,
    domain::{
        agent::Agent,
        caller::{Caller, Owner, Scope},
        message::{MessagePart, MessageRole, NewMessage, Source},
        run::RunKind,
        run_input::{InputLimits, RunInput, body_hash},
    },
    error::{Error, ErrorKind, FieldError, Result},
    services::{agents, attachments},
};

const MAX_KEY: usize = 255;

pub struct Request<'a> {
    /// AG-UI's `RunAgentInput`, not checked yet.
    pub body: &'a Value,
    pub idempotency_key: Option<String>,
    /// W3C traceparent.
    pub trace: Option<String>,
}

/// Accepts the run that the request describes.
///
/// # Errors
/// `Malformed` for a bad key, `Invalid` naming every bad field, `NotFound` for an attachment that is not the caller's, and those of
/// `accept`.
pub async fn start(app: &App, caller: &Caller, request: Request<'_>) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    if request.idempotency_key.as_deref().is_some_and(|key| !is_key(key)) {
        return Err(Error::malformed(format!("Idempotency-Key: must be 1 to {MAX_KEY} visible ASCII characters")));
    }
    let mut input = RunInput::parse(request.body, &InputLimits { max_messages: app.config.http.max_messages })?;
    let agent = agents::runnable(app, owner, input.options.agent_id.as_deref()).await;
    let agent = check(agent, &input)?;
    input.options.agent_version = agent.version;
    check_attachments(app, owner, &input.messages).await?;
    let messages = stored(std::mem::take(&mut input.messages));
    let options = input.options.clone();
    let work = Work {
        kind: RunKind::Agent,
        thread: input.thread_id.clone(),
        listed: true,
        run: input.run_id.clone(),
        // Without its messages: the thread has them.
        input: serde_json::to_string(&input)?,
        hash: body_hash(request.body),
        idempotency_key: request.idempotency_key,
        messages,
        priority: options.priority,
        run_at: options.run_at,
        multitask: options.multitask,
        agent_id: Some(agent.id),
        model: options.model,
        retry_of: None,
        watcher: None,
        trace: request.trace,
    };
    accept::accept(app, owner, &work).await
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// What only the agent can tell.
fn check(agent: Result<Agent>, input: &RunInput) -> Result<Agent> {
    let mut bad = Vec::new();
    let mut fail = |field: String, message: String| bad.push(FieldError { field, message });
    if input.options.model.as_deref().is_some_and(|model| !is_model(model)) {
        fail("forwardedProps.model".into(), "must be provider:name, as openai:gpt-4.1-mini".into());
    }
    match &agent {
        Ok(agent) => {
            let own = &agent.definition.include_tools;
            for (i, tool) in input.tools.iter().enumerate().filter(|(_, tool)| own.contains(&tool.name)) {
                fail(format!("tools.{i}.name"), format!("the agent has a tool of its own named {}", tool.name));
            }
        }
        Err(e) if e.kind == ErrorKind::NotFound => fail("forwardedProps.agentId".into(), "there is no such agent".into()),
        Err(_) => {}
    }
    if bad.is_empty() { agent } else { Err(Error::invalid_fields(bad)) }
}

fn is_model(spec: &str) -> bool {
    spec.split_once(':').is_some_and(|(provider, name)| {
        let word = provider.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        !provider.is_empty() && word && !name.trim().is_empty() && name.trim() == name
    })
}

/// What models are told. Reasoning and activities are for the screen: AG-UI clients send back even what they were shown.
fn stored(messages: Vec<NewMessage>) -> Vec<NewMessage> {
    messages.into_iter().filter(|m| !matches!(m.role, MessageRole::Reasoning | MessageRole::Activity)).collect()
}

async fn check_attachments(app: &App, owner: &Owner, messages: &[NewMessage]) -> Result<()> {
    let parts = messages.iter().flat_map(|m| &m.body.parts);
    let named: BTreeSet<_> = parts
        .filter_map(|part| match part {
            MessagePart::Media { source: Source::Attachment { bucket, path }, .. } => Some((bucket.as_str(), path.as_str())),
            _ => None,
        })
        .collect();
    let named: Vec<_> = named.into_iter().collect();
    let found = attachments::owned_among(app, owner, &named).await?;
    match named.iter().find(|(bucket, path)| !found.iter().any(|a| a.bucket == *bucket && a.path == *path)) {
        None => Ok(()),
        Some((_, path)) => Err(Error::not_found("ATTACHMENT_NOT_FOUND", format!("no such attachment: {path}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::agent::Definition;

    fn input(body: &Value) -> RunInput {
        RunInput::parse(body, &InputLimits { max_messages: 10 }).unwrap()
    }

    #[test]
    fn every_setting_that_does_not_fit_is_named() {
        let agent = || {
            let definition = Definition { include_tools: vec!["calculator".into()], ..Definition::default() };
            Agent { id: "demo".into(), name: "Demo".into(), owner: None, version: 0, definition }
        };
        let tools = json!([{ "name": "mine", "description": "" }, { "name": "calculator", "description": "" }]);
        let body =
            |props: Value| json!({ "threadId": "t", "runId": "r", "messages": [], "tools": tools, "forwardedProps": props });
        let fields = |agent: Result<Agent>, props: Value| -> Vec<String> {
            let e = check(agent, &input(&body(props))).unwrap_err();
            e.fields.into_iter().map(|f| f.field).collect()
        };
        assert_eq!(fields(Ok(agent()), json!({ "model": "gpt" })), ["forwardedProps.model", "tools.1.name"]);
        let unknown = Err(Error::not_found("AGENT_NOT_FOUND", "no such agent"));
        assert_eq!(fields(unknown, json!({ "model": ":x" })), ["forwardedProps.model", "forwardedProps.agentId"]);
        let plain = json!({ "threadId": "t", "runId": "r", "messages": [], "forwardedProps": { "model": "ollama:qwen3:8b" } });
        assert_eq!(check(Ok(agent()), &input(&plain)).unwrap().id, "demo");
        let stopped = check(Err(Error::conflict("AGENT_STOPPED", "the agent is stopped")), &input(&plain));
        assert_eq!(stopped.unwrap_err().code, "AGENT_STOPPED");
    }

    #[test]
    fn keys_are_visible_and_short() {
        assert!(is_key("a b-1") && is_key(&"k".repeat(MAX_KEY)));
        for bad in ["", "a\tb", "ü", &"k".repeat(MAX_KEY + 1)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn reasoning_and_activities_are_not_stored() {
        let body = json!({ "threadId": "t", "runId": "r", "messages": [
            { "id": "1", "role": "user", "content": "a" }, { "id": "2", "role": "reasoning", "content": "b" },
            { "id": "3", "role": "activity", "activityType": "PLAN", "content": {} },
            { "id": "4", "role": "tool", "toolCallId": "c", "content": "d" }, { "id": "5", "role": "assistant", "content": "e" },
        ] });
        let ids: Vec<_> = stored(input(&body).messages).into_iter().map(|m| m.id).collect();
        assert_eq!(ids, ["1", "4", "5"]);
    }
}
