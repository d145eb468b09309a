//! The loop: assemble the context, ask the model, execute its tool calls, until it answers or has to wait. Every step is in the
//! journal, so that whoever takes the run over goes on after the last finished one.
use std::{collections::HashSet, sync::Arc};

use runmill_shared::{
    App,
    config::Agent,
    domain::{
        chat::ToolSpec,
        event::{NewEvent, kind},
        run::{Claimed, RunState, RunUsage, Waiting},
        step::StepKind,
    },
    jobs::AgentRun,
    services::runs::execution::{self, End, Parked, Writes},
};
use serde_json::{Value, json};

use super::{
    Failure, Left, calls,
    calls::Placed,
    context,
    journal::Journal,
    recorder::{Recorder, writes},
    turn::{self, Answer},
};
use crate::{
    models::{self, ChatModel, ChatRequest},
    tools::Tools,
};

/// One agent run in the hands of this worker.
struct Loop<'a> {
    app: &'a App,
    tools: &'a Tools,
    journal: Journal,
    agent: &'a Agent,
    model: Arc<dyn ChatModel>,
    request: ChatRequest,
    /// Tools that the client executes.
    client_tools: HashSet<String>,
    usage: RunUsage,
    wake_seq: i64,
}

/// Executes an agent run until it ends or has to wait.
pub async fn execute(app: &App, recorder: &Recorder, tools: &Tools, run: Arc<Claimed>) -> Result<Left, Failure> {
    let input: AgentRun =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let wanted = run.agent_id.as_deref().or(input.options.agent_id.as_deref());
    let (agent_id, agent) = app
        .config
        .agent(wanted)
        .ok_or_else(|| Failure::run("AGENT_NOT_FOUND", "the run's agent is not there any more", false))?;
    let spec = run.model.clone().or_else(|| input.options.model.clone()).filter(|m| !m.is_empty());
    let spec = spec.or_else(|| Some(agent.model.clone()).filter(|m| !m.is_empty())).unwrap_or_else(|| app.config.default_model());
    let model = models::resolve(&app.config, &spec)?;
    let journal = Journal::open(app, run.clone(), recorder.clone()).await?;
    let mut this = Loop {
        app,
        tools,
        agent,
        request: ChatRequest {
            tools: offered(tools, agent, &input, run.parent_run_id.is_some()),
            temperature: Some(app.config.models.temperature),
            max_tokens: Some(app.config.models.max_tokens),
            ..ChatRequest::default()
        },
        client_tools: input.tools.iter().map(|t| t.name.clone()).collect(),
        usage: RunUsage::default(),
        wake_seq: run.wake_seq,
        model,
        journal,
    };
    this.open(agent_id, &input).await?;
    let own = this.own_messages();
    this.request.messages = context::assemble(app, &run, &agent.system, &input, &own).await?;
    this.iterate().await
}

/// What the model may call. A client's tool takes the place of ours of the same name: providers refuse a name that comes twice.
fn offered(tools: &Tools, agent: &Agent, input: &AgentRun, is_child: bool) -> Vec<ToolSpec> {
    let is_clients = |name: &str| input.tools.iter().any(|t| t.name == name);
    let builtin = tools.specs(&agent.tools).into_iter().map(|(name, description, parameters)| ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
    });
    let client = input.tools.iter().map(|t| ToolSpec {
        name: t.name.clone(),
        description: t.description.clone(),
        parameters: t.parameters.clone(),
    });
    let ours = builtin.chain(calls::specs(&agent.tools, is_child)).filter(|spec| !is_clients(&spec.name));
    ours.chain(client).collect()
}

impl Loop<'_> {
    /// Says that the run is executed, and closes an answer that a dead worker left half streamed.
    async fn open(&mut self, agent_id: &str, input: &AgentRun) -> Result<(), Failure> {
        let attempt = self.journal.run.attempt + 1;
        let started = json!({ "attempt": attempt, "agentId": agent_id, "model": self.model.name() });
        let mut events = vec![NewEvent::new(kind::RUN_STARTED, started)];
        let is_new = self.journal.steps().next().is_none();
        if let Some(state) = input.state.as_ref().filter(|_| is_new) {
            events.push(NewEvent::new(kind::STATE_SNAPSHOT, json!({ "snapshot": state })));
        }
        let half = self.journal.open_model_call().map(|s| (s.key.clone(), s.intent["messageId"].clone()));
        let Some((key, message)) = half else {
            // Nothing hangs on it: it is written with the first step.
            events.into_iter().for_each(|e| self.journal.emit(e));
            return Ok(());
        };
        events.push(NewEvent::discarded(message.as_str().unwrap_or_default()));
        let abandon = self.journal.abandoning(&key);
        self.journal.commit(events, vec![abandon], Vec::new()).await
    }

    /// Ids of what this run has said itself: the thread has it too, and the journal says it again.
    fn own_messages(&self) -> HashSet<String> {
        let id = |step: &runmill_shared::domain::step::Step| match step.kind {
            StepKind::Model => step.intent["messageId"].as_str().map(str::to_owned),
            StepKind::Tool | StepKind::Timer | StepKind::Child => None,
        };
        let mut own: HashSet<String> = self.journal.steps().filter_map(id).collect();
        for step in self.journal.steps().filter(|s| s.kind == StepKind::Model) {
            let calls = step.result.as_ref().and_then(|r| r["tool_calls"].as_array().cloned()).unwrap_or_default();
            own.extend(calls.iter().filter_map(|c| c["id"].as_str().map(|id| format!("{id}-result"))));
        }
        own
    }

    async fn iterate(mut self) -> Result<Left, Failure> {
        for iteration in 0..self.agent.max_iterations {
            let answer = turn::answer(&mut self.journal, &*self.model, &self.request, iteration).await?;
            self.usage.input_tokens += answer.response.usage.input_tokens;
            self.usage.output_tokens += answer.response.usage.output_tokens;
            if answer.response.tool_calls.is_empty() {
                return self.succeed(answer, &[]).await;
            }
            let response = answer.response.clone();
            let (ours, pending): (Vec<_>, Vec<_>) = calls::placed(iteration, &response.tool_calls)
                .into_iter()
                .partition(|p| !self.client_tools.contains(&p.call.name));
            let answer = if ours.is_empty() { answer } else { self.keep(answer).await? };
            if let Some(left) = self.call_tools(&ours).await? {
                return Ok(left);
            }
            if !pending.is_empty() {
                let ids: Vec<_> = pending.iter().map(|p| p.call.id.clone()).collect();
                return self.succeed(answer, &ids).await;
            }
            self.request.messages.push(response.message());
            let results: Vec<_> = ours.iter().filter_map(|p| calls::result_message(&self.journal, p)).collect();
            self.request.messages.extend(results);
        }
        let message = format!("the agent did not come to an answer within {} iterations", self.agent.max_iterations);
        Err(Failure::run("MAX_ITERATIONS", message, false))
    }

    /// Journals an answer before what it asks for is done.
    async fn keep(&self, mut answer: Answer) -> Result<Answer, Failure> {
        if let Some(closing) = answer.unwritten.take() {
            self.journal.commit(vec![closing.event], vec![closing.step], vec![closing.message]).await?;
        }
        Ok(answer)
    }

    /// `Some`: the run was parked.
    async fn call_tools(&mut self, ours: &[Placed<'_>]) -> Result<Option<Left>, Failure> {
        while let Some(waiting) = calls::execute(self.app, &mut self.journal, self.tools, &self.request.tools, ours).await? {
            if self.park(&waiting).await? {
                return Ok(Some(Left::Parked));
            }
        }
        Ok(None)
    }

    /// `false`: something happened meanwhile, look again.
    async fn park(&mut self, waiting: &Waiting) -> Result<bool, Failure> {
        let run = self.journal.run.clone();
        // What was said is written first: a refused park must not lose it.
        self.journal.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        match execution::park(self.app, &run, self.wake_seq, waiting, Writes::default()).await? {
            Parked::Yes => Ok(true),
            Parked::Woken(seq) => {
                self.wake_seq = seq;
                Ok(false)
            }
        }
    }

    /// Ends the run: with the model's answer, or with calls that the client executes.
    async fn succeed(self, answer: Answer, pending: &[String]) -> Result<Left, Failure> {
        let run = &self.journal.run;
        let content: Value = answer.response.message_text.clone().into();
        let result = json!({ "messageId": answer.message_id, "content": content });
        let mut last = Writes::default();
        if let Some(closing) = answer.unwritten {
            last = writes(vec![closing.event], vec![closing.step], vec![closing.message]);
        }
        last.events.push(NewEvent::finished(&result, self.usage, pending));
        let end = End { state: RunState::Succeeded, result: Some(&result), error: None, usage: Some(self.usage) };
        self.journal.recorder.end(run, end, last).await?;
        Ok(Left::Ended)
    }
}
