//! The loop: assemble the context, ask the model, execute its tool calls, until it answers or has to wait. Every step is in the
//! journal, so that whoever takes the run over goes on after the last finished one.
use std::{collections::HashSet, sync::Arc};

use runmill_shared::{
    App,
    domain::{
        agent::Agent,
        chat::{ChatMessage, FinishReason, ToolSpec},
        event::{NewEvent, kind},
        run::{Claimed, RunKind},
    },
    jobs::{AgentRun, MemoryExtraction},
    services::{
        self, agents,
        runs::execution::{End, Next, Parked, Writes},
    },
};
use serde_json::{Value, json};

use super::{
    Failure, Left, budget,
    calls::{self, Offer, Placed},
    compaction, context,
    conversation::Conversation,
    format::{self, Format},
    journal::{Journal, model_key},
    recorder::{Recorder, writes},
    turn::{self, Answer},
    waiting,
};
use crate::{
    models::{self, ChatModel, ChatRequest, ModelErrorKind},
    tools::{Tools, custom},
};

/// What a run about a goal can do to its plan.
const GOAL_TOOLS: [&str; 3] = ["task_create", "task_update", "task_list"];

/// One agent run in the hands of this worker.
pub(super) struct Loop<'a> {
    pub app: &'a App,
    tools: Tools,
    pub journal: Journal,
    agent: Agent,
    pub model: Arc<dyn ChatModel>,
    /// Without its messages: they are in `talk`.
    request: ChatRequest,
    pub talk: Conversation,
    /// What the final answer has to be.
    format: Option<Format>,
    /// Tools that the client executes.
    client_tools: HashSet<String>,
    wake_seq: i64,
}

/// Executes an agent run until it ends or has to wait.
pub async fn execute(app: &App, recorder: &Recorder, tools: &Tools, run: Arc<Claimed>) -> Result<Left, Failure> {
    let input: AgentRun =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    execute_with(app, recorder, tools, run, input).await
}

/// As `execute`, for a run whose payload holds the input as a part.
pub async fn execute_with(
    app: &App,
    recorder: &Recorder,
    tools: &Tools,
    run: Arc<Claimed>,
    input: AgentRun,
) -> Result<Left, Failure> {
    let wanted = run.agent_id.as_deref().or(input.options.agent_id.as_deref());
    let agent = agents::of_run(app, wanted, input.options.agent_version).await?;
    let model = model_of(app, &agent, run.model.as_deref().or(input.options.model.as_deref())).await?;
    let tools = custom::for_agent(app, tools, &agent).await?;
    let format = agent.definition.output_schema.as_ref().map(Format::new).transpose()?;
    let mut journal = Journal::open(app, run.clone(), recorder.clone()).await?;
    open(&mut journal, &agent, &*model, &input).await?;
    let talk = context::assemble(app, &journal, &agent, format.as_ref(), &input).await?;
    let this = Loop {
        app,
        request: request(app, &tools, &agent, &input, format.as_ref(), run.parent_run_id.is_some()),
        tools,
        client_tools: input.tools.iter().map(|t| t.name.clone()).collect(),
        wake_seq: run.wake_seq,
        journal,
        talk,
        format,
        agent,
        model,
    };
    match budget::time_left(app, &run, &this.agent.definition.budget) {
        None => this.iterate().await,
        Some(left) => tokio::time::timeout(left, this.iterate()).await.unwrap_or_else(|_| Err(budget::out_of_time())),
    }
}

/// The model of an agent's run: the run's own wish, else the agent's, else the deployment's.
pub async fn model_of(app: &App, agent: &Agent, wish: Option<&str>) -> Result<Arc<dyn ChatModel>, Failure> {
    Ok(models::connect(app, &services::models::targets(app, agent, wish).await?)?)
}

fn request(app: &App, tools: &Tools, agent: &Agent, input: &AgentRun, format: Option<&Format>, is_child: bool) -> ChatRequest {
    ChatRequest {
        tools: offered(tools, agent, input, is_child),
        // Where the agent and its model say nothing.
        temperature: Some(app.config.models.temperature),
        max_tokens: Some(app.config.models.max_tokens),
        output: format.map(|f| f.schema().clone()),
        ..ChatRequest::default()
    }
}

/// What the model may call. A client's tool takes the place of ours of the same name: providers refuse a name that comes twice.
fn offered(tools: &Tools, agent: &Agent, input: &AgentRun, is_child: bool) -> Vec<ToolSpec> {
    let is_clients = |name: &str| input.tools.iter().any(|t| t.name == name);
    let names = &tool_names(agent, input);
    let client = input.tools.iter().map(|t| ToolSpec {
        name: t.name.clone(),
        description: t.description.clone(),
        parameters: t.parameters.clone(),
    });
    let ours = tools.specs(names).into_iter().chain(waiting::specs(names, is_child)).filter(|spec| !is_clients(&spec.name));
    ours.chain(client).collect()
}

/// The agent's own tools; in a run about a goal, those that work on its tasks too.
fn tool_names(agent: &Agent, input: &AgentRun) -> Vec<String> {
    let mut names = agent.definition.include_tools.clone();
    if input.options.goal_id.is_some() {
        let more = GOAL_TOOLS.iter().filter(|name| !agent.definition.include_tools.iter().any(|own| own == *name));
        names.extend(more.map(|name| (*name).to_owned()));
    }
    names
}

/// Says that the run is executed, and closes an answer that a dead worker left half streamed.
async fn open(journal: &mut Journal, agent: &Agent, model: &dyn ChatModel, input: &AgentRun) -> Result<(), Failure> {
    let attempt = journal.run.attempt + 1;
    let started = json!({ "attempt": attempt, "agentId": agent.id, "model": model.name() });
    let mut events = vec![NewEvent::new(kind::RUN_STARTED, started)];
    let is_new = journal.steps().next().is_none();
    if let Some(state) = input.state.as_ref().filter(|_| is_new) {
        events.push(NewEvent::new(kind::STATE_SNAPSHOT, json!({ "snapshot": state })));
    }
    let half = journal.open_model_call().map(|s| (s.key.clone(), s.intent["messageId"].clone()));
    let Some((key, message)) = half else {
        // Nothing hangs on it: it is written with the first step.
        events.into_iter().for_each(|e| journal.emit(e));
        return Ok(());
    };
    events.push(NewEvent::discarded(message.as_str().unwrap_or_default()));
    let abandon = journal.abandoning(&key);
    journal.commit(events, vec![abandon], Vec::new()).await
}

impl Loop<'_> {
    async fn iterate(mut self) -> Result<Left, Failure> {
        let mut repairs = 0;
        for iteration in 0..self.agent.definition.iteration_limit {
            if self.journal.checkpoint(self.app, None).await? {
                return Ok(Left::Parked);
            }
            let answer = self.answer(iteration).await?;
            if answer.response.tool_calls.is_empty() {
                match self.format.as_ref().map(|f| f.read(&answer.response.message_text)).transpose() {
                    Ok(output) => return self.succeed(answer, output, &[]).await,
                    Err(problems) => self.repair(answer, &problems, &mut repairs).await?,
                }
                continue;
            }
            let response = answer.response.clone();
            let (ours, pending): (Vec<_>, Vec<_>) = calls::placed(iteration, &response.tool_calls)
                .into_iter()
                .partition(|p| !self.client_tools.contains(&p.call.name));
            let answer = if ours.is_empty() { answer } else { self.keep(answer).await? };
            if !ours.is_empty() && self.journal.checkpoint(self.app, None).await? {
                return Ok(Left::Parked);
            }
            if let Some(left) = self.call_tools(&ours).await? {
                return Ok(left);
            }
            if !pending.is_empty() {
                let ids: Vec<_> = pending.iter().map(|p| p.call.id.clone()).collect();
                return self.succeed(answer, None, &ids).await;
            }
            self.talk.push(Some(answer.message_id), response.message());
            for placed in &ours {
                let result = calls::result_message(&self.journal, placed);
                result.into_iter().for_each(|message| self.talk.push(Some(calls::message_id(placed.call)), message));
            }
        }
        let message = format!("the agent did not come to an answer within {} iterations", self.agent.definition.iteration_limit);
        Err(Failure::run("MAX_ITERATIONS", message, false))
    }

    /// The answer of an iteration, from the journal or from the model, after whatever it takes to make the conversation fit.
    async fn answer(&mut self, iteration: u32) -> Result<Answer, Failure> {
        compaction::before(self, iteration).await?;
        loop {
            match self.ask(iteration).await {
                Ok(answer) if answer.response.finish == FinishReason::Length && self.is_spent() => {
                    self.keep(answer).await?;
                    return Err(budget::cut_off());
                }
                Ok(answer) => return Ok(answer),
                // Once for an iteration: what is too long after that stays too long.
                Err(e) if e.is(ModelErrorKind::ContextOverflow) && !compaction::is_done(self, iteration) => {
                    if !compaction::compact(self, iteration).await? {
                        return Err(e);
                    }
                }
                // Providers refuse schemas that are right; the system prompt has it, and the answer is checked here.
                Err(e) if e.is(ModelErrorKind::InvalidRequest) && self.request.output.take().is_some() => {}
                Err(e) => return Err(e),
            }
        }
    }

    async fn ask(&mut self, iteration: u32) -> Result<Answer, Failure> {
        let key = model_key(iteration);
        self.check_budget(&key)?;
        self.request.most_tokens = budget::tokens_left(&self.agent.definition.budget, &self.journal.usage());
        self.request.messages = self.talk.take();
        let outcome = turn::answer(&mut self.journal, &*self.model, &self.request, iteration).await;
        self.talk.put_back(std::mem::take(&mut self.request.messages));
        outcome
    }

    fn is_spent(&self) -> bool {
        budget::check(&self.agent.definition.budget, &self.journal.usage()).is_err()
    }

    /// Before a model call that is not in the journal.
    pub fn check_budget(&self, key: &str) -> Result<(), Failure> {
        if self.journal.finished(key).is_some() {
            return Ok(());
        }
        budget::check(&self.agent.definition.budget, &self.journal.usage())
    }

    /// Journals an answer before what it asks for is done.
    async fn keep(&self, mut answer: Answer) -> Result<Answer, Failure> {
        if let Some(closing) = answer.unwritten.take() {
            self.journal.commit(vec![closing.event], vec![closing.step], vec![closing.message]).await?;
        }
        Ok(answer)
    }

    /// Tells the model what is wrong with its answer. The thread does not keep it: nobody should take it for the agent's word.
    async fn repair(&mut self, mut answer: Answer, problems: &str, repairs: &mut u32) -> Result<(), Failure> {
        if let Some(closing) = answer.unwritten.take() {
            self.journal.commit(vec![NewEvent::discarded(&answer.message_id)], vec![closing.step], Vec::new()).await?;
        }
        if *repairs == format::REPAIRS {
            let message = format!("the model's answer does not satisfy the agent's output_schema: {problems}");
            return Err(Failure::run("OUTPUT_INVALID", message, false));
        }
        *repairs += 1;
        self.talk.push(None, answer.response.message());
        self.talk.push(None, ChatMessage::user(format::correction(problems)));
        Ok(())
    }

    /// `Some`: the run was parked.
    async fn call_tools(&mut self, ours: &[Placed<'_>]) -> Result<Option<Left>, Failure> {
        if ours.iter().any(|p| self.journal.step(&p.key).is_none()) {
            // Their results could not be told to the model any more.
            budget::check(&self.agent.definition.budget, &self.journal.usage())?;
        }
        let approval = &self.agent.definition.approval_tools;
        let offer = Offer { app: self.app, tools: &self.tools, specs: &self.request.tools, approval };
        while let Some(waiting) = calls::execute(&offer, &mut self.journal, ours).await? {
            match self.journal.park(self.app, self.wake_seq, &waiting).await? {
                Parked::Yes => return Ok(Some(Left::Parked)),
                // Something happened meanwhile: look again.
                Parked::Woken(seq) => self.wake_seq = seq,
            }
        }
        Ok(None)
    }

    /// Ends the run: with the model's answer, or with calls that the client executes.
    async fn succeed(self, answer: Answer, output: Option<Value>, pending: &[String]) -> Result<Left, Failure> {
        let run = &self.journal.run;
        let content: Value = answer.response.message_text.clone().into();
        let mut result = json!({ "messageId": answer.message_id, "content": content });
        if let Some(output) = output {
            result["output"] = output;
        }
        let mut last = Writes::default();
        if let Some(closing) = answer.unwritten {
            last = writes(vec![closing.event], vec![closing.step], vec![closing.message]);
        }
        let usage = self.journal.usage();
        last.events.push(NewEvent::finished(&result, usage, pending));
        // An agent's task for another agent says nothing of the user.
        let is_turn = run.kind == RunKind::Agent && run.parent_run_id.is_none();
        let learns = self.agent.definition.memory.extract && is_turn && pending.is_empty();
        let next = if learns { Some(extraction(run)?) } else { None };
        self.journal.recorder.end(run, End::succeeded(result).using(usage), Writes { next, ..last }).await?;
        Ok(Left::Ended)
    }
}

/// Named after the run, so that there is one of it.
fn extraction(run: &Claimed) -> Result<Next, Failure> {
    let input = serde_json::to_string(&MemoryExtraction { run_id: run.id }).map_err(runmill_shared::Error::from)?;
    Ok(Next { kind: RunKind::MemoryExtraction, name: format!("memory-{}", run.id), input })
}
