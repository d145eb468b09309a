//! The participants as child runs: starting them, and reading what they came to.
use runmill_shared::{
    Error,
    domain::{
        chat::ModelResponse,
        event::{NewEvent, kind},
        message::{Message, MessageBody, MessageRole, NewMessage},
        new_id,
        run::{RunKind, RunState},
        run_input::{ClientTool, RunInput, RunOptions},
        step::StepKind,
    },
    services::runs::execution::{self, Child},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Driver, HandOver, Turn, participant_failed};
use crate::engine::Failure;

const HAND_OVER: &str = "hand_over";

impl Driver<'_> {
    /// Starts a participant, in the transaction that journals it.
    pub(super) async fn start(&mut self, turn: &Turn) -> Result<Uuid, Failure> {
        let id = new_id();
        let member = self.input.team.members[turn.member].clone();
        let mut messages = if turn.with_history { self.earlier(id).await? } else { Vec::new() };
        let body = MessageBody::text(&*turn.prompt);
        messages.push(NewMessage { id: format!("{id}-task"), role: MessageRole::User, body });
        let options =
            RunOptions { agent_id: Some(member.agent_id.clone()), agent_version: member.agent_version, ..RunOptions::default() };
        let name = format!("child-{id}");
        let input = RunInput {
            thread_id: name.clone(),
            run_id: name.clone(),
            messages: Vec::new(),
            state: None,
            tools: hand_over_tool(&turn.hand_over).into_iter().collect(),
            context: Vec::new(),
            forwarded_props: Value::Null,
            parent_run_id: Some(self.journal.run.external_id.clone()),
            options,
        };
        let input = serde_json::to_string(&input).map_err(Error::from)?;
        let agent_id = Some(member.agent_id.clone());
        let child = Child { id, kind: RunKind::Agent, input, messages, agent_id, model: None, watcher: None };
        let intent = json!({ "childRunId": id, "agentId": member.agent_id, "name": self.labels[turn.member] });
        let step = self.journal.starting(&turn.key, StepKind::Child, &self.labels[turn.member], intent);
        execution::start_child(self.app, &self.journal.run, child, step).await?;
        self.tell(turn, id, "started", None);
        Ok(id)
    }

    fn tell(&self, turn: &Turn, child: Uuid, status: &str, error: Option<&str>) {
        self.journal.emit(self.told(turn, child, status, error));
    }

    fn told(&self, turn: &Turn, child: Uuid, status: &str, error: Option<&str>) -> NewEvent {
        let agent_id = &self.input.team.members[turn.member].agent_id;
        let mut data = json!({
            "key": turn.key, "agentId": agent_id, "name": self.labels[turn.member], "status": status,
            "childTaskId": child, "childThreadId": format!("child-{child}"),
        });
        if let Some(error) = error {
            data["error"] = error.into();
        }
        NewEvent::new(kind::PROGRESS, data)
    }

    /// The session's earlier messages, for the thread of a child.
    async fn earlier(&mut self, child: Uuid) -> Result<Vec<NewMessage>, Failure> {
        if self.history.is_none() {
            let all = execution::context(self.app, &self.journal.run).await?;
            let limits = &self.app.config.teams;
            self.history = Some(bounded(all, &self.input.message_id, limits.max_history, limits.max_history_bytes));
        }
        let history = self.history.iter().flatten().enumerate();
        Ok(history.map(|(i, m)| NewMessage { id: format!("{child}-history-{i}"), ..m.clone() }).collect())
    }

    /// Journals what has ended since it was looked at last; `false` when nothing has.
    pub(super) async fn settle(&mut self, turns: &[Turn]) -> Result<bool, Failure> {
        let asked: Vec<_> = turns.iter().filter_map(|t| Some((t, self.child_of(&t.key)?))).collect();
        let ids: Vec<_> = asked.iter().map(|(_, id)| *id).collect();
        let outcomes = execution::outcomes(self.app, &ids).await?;
        let (mut events, mut steps) = (Vec::new(), Vec::new());
        for (turn, id) in asked {
            let outcome = outcomes.iter().find(|o| o.id == id);
            let why = match outcome.map(|o| o.state) {
                Some(RunState::Queued | RunState::Running | RunState::Waiting) => continue,
                Some(RunState::Succeeded) => {
                    let content = outcome.and_then(|o| o.result.as_ref()).map_or(&Value::Null, |r| &r["content"]);
                    let hand_over = if turn.hand_over.is_empty() { None } else { self.handed_over(id).await? };
                    let answer = Answer { content: text_of(content), hand_over, failed: None };
                    steps.push(self.journal.finishing(&turn.key, serde_json::to_value(answer).map_err(Error::from)?));
                    events.push(self.told(turn, id, "finished", None));
                    continue;
                }
                Some(RunState::Failed) => outcome.and_then(|o| o.error.as_ref()).map_or("it failed", |e| e.message.as_str()),
                Some(RunState::Cancelled) => "it was cancelled",
                None => "its run is gone",
            };
            events.push(self.told(turn, id, "failed", Some(why)));
            if !turn.may_fail {
                // Not journaled as ended: a retry of the team asks this one again. What the others said is kept.
                self.journal.commit(events, steps, Vec::new()).await?;
                return Err(participant_failed(&self.input.team, turn.member, why));
            }
            let answer = Answer { failed: Some(why.to_owned()), ..Answer::default() };
            steps.push(self.journal.finishing(&turn.key, serde_json::to_value(answer).map_err(Error::from)?));
        }
        if steps.is_empty() {
            return Ok(false);
        }
        self.journal.commit(events, steps, Vec::new()).await?;
        Ok(true)
    }

    /// Whom a participant handed over to: its last answer is in its journal.
    async fn handed_over(&self, child: Uuid) -> Result<Option<HandOver>, Failure> {
        let steps = execution::journal(self.app, child).await?;
        let answers = steps.into_iter().filter(|s| s.kind == StepKind::Model);
        let Some(last) = answers.filter_map(|s| Some((s.ordinal, s.result?))).max_by_key(|(ordinal, _)| *ordinal) else {
            return Ok(None);
        };
        let response: ModelResponse = serde_json::from_value(last.1).map_err(Error::from)?;
        let call = response.tool_calls.into_iter().find(|c| c.name == HAND_OVER);
        let text = |call: &Value, name: &str| call[name].as_str().unwrap_or_default().to_owned();
        Ok(call.map(|c| HandOver { agent: text(&c.arguments, "agent"), message: text(&c.arguments, "message") }))
    }
}

/// What an answer that satisfies a schema is, to those who read text.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A call of it ends the participant's run, as that of any tool that is not ours to execute.
fn hand_over_tool(to: &[String]) -> Option<ClientTool> {
    let parameters = json!({
        "type": "object", "additionalProperties": false, "required": ["agent", "message"],
        "properties": {
            "agent": { "type": "string", "enum": to },
            "message": { "type": "string", "description": "what they have to do, and what they need to know for it" },
        },
    });
    let description = "Hands the work over to another agent, who goes on with it in your place. Answer instead when you can.";
    (!to.is_empty()).then(|| ClientTool { name: HAND_OVER.to_owned(), description: description.to_owned(), parameters })
}

/// What users and agents said before the message, the last of it: at most so many messages, and so many bytes of text.
fn bounded(all: Vec<Message>, message_id: &str, most: usize, mut bytes: usize) -> Vec<NewMessage> {
    let mut kept = Vec::new();
    let spoken = all.into_iter().filter(|m| matches!(m.role, MessageRole::User | MessageRole::Assistant) && m.id != message_id);
    let spoken: Vec<_> = spoken.filter(|m| !m.body.parts.is_empty()).collect();
    for message in spoken.into_iter().rev().take(most) {
        let size = message.body.plain().len();
        if size > bytes {
            break;
        }
        bytes -= size;
        let body = MessageBody { parts: message.body.parts, ..MessageBody::default() };
        kept.push(NewMessage { id: message.id, role: message.role, body });
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use runmill_shared::clock::Timestamp;

    use super::*;

    #[test]
    fn participants_see_the_last_of_what_was_said() {
        let message = |(i, (role, text)): (usize, &(MessageRole, &str))| Message {
            id: format!("m{i}"),
            seq: 0,
            run_id: Uuid::nil(),
            role: *role,
            body: if text.is_empty() { MessageBody::default() } else { MessageBody::text(*text) },
            at: Timestamp(0),
        };
        use MessageRole::{Assistant, Tool, User};
        let said = [(User, "a"), (Assistant, "bb"), (Assistant, ""), (Tool, "cc"), (Assistant, "dd"), (User, "question")];
        let all = || said.iter().enumerate().map(message).collect::<Vec<_>>();
        let texts = |most, bytes| bounded(all(), "m5", most, bytes).iter().map(|m| m.body.plain()).collect::<Vec<_>>();
        assert_eq!(texts(10, 100), ["a", "bb", "dd"]);
        assert_eq!(texts(2, 100), ["bb", "dd"]);
        assert_eq!(texts(10, 3), ["dd"]);
        assert!(texts(0, 100).is_empty());
    }

    #[test]
    fn nobody_is_offered_a_hand_over_to_nobody() {
        assert_eq!(hand_over_tool(&[]), None);
        assert_eq!(hand_over_tool(&["b".into()]).unwrap().parameters["properties"]["agent"]["enum"], json!(["b"]));
    }
}
