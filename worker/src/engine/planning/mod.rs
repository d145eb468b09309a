//! A goal becomes tasks: a model plans, its plan is checked, told once what is wrong with it, and stored. `told` is what models read of
//! a goal.
mod told;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use runmill_shared::{
    App,
    domain::{
        caller::Owner,
        chat::{ChatMessage, ModelResponse},
        event::{NewEvent, kind},
        plan::{self, Kept, Plan},
        run::Claimed,
        step::StepKind,
        task::Assignee,
    },
    jobs::GoalPlan,
    services::{
        agents,
        goals::{self, Board},
        runs::execution::{End, Writes},
    },
};
use serde_json::{Value, json};

pub(super) use self::told::about;
use super::{
    Failure, Left,
    agent::model_of,
    format::{self, Format},
    journal::Journal,
    recorder::Recorder,
    turn,
};
use crate::models::{ChatModel, ChatRequest, ModelErrorKind};

/// How often the model is told what is wrong with its plan.
const REPAIRS: u32 = 1;
const STORE: &str = "store";
/// Of what is wrong with a plan, in characters.
const LONGEST_REASON: usize = 4000;

/// Plans a goal, or what is not done of it anew.
pub async fn execute(app: &App, recorder: &Recorder, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let wanted: GoalPlan =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    if run.retry_of.is_some() {
        return Err(Failure::run("PLAN_OUTDATED", "a plan is not tried again: have the goal planned anew", false));
    }
    let mut journal = Journal::open(app, run.clone(), recorder.clone()).await?;
    let result = match journal.finished(STORE) {
        // Its worker died between the plan and the run's end.
        Some(stored) => stored.clone(),
        None => plan_and_store(app, &mut journal, &wanted).await?,
    };
    let usage = journal.usage();
    let last = Writes { events: vec![NewEvent::finished(&result, usage, &[])], ..Writes::default() };
    let end = End::succeeded(result).using(usage);
    recorder.end(run, end, last).await?;
    Ok(Left::Ended)
}

async fn plan_and_store(app: &App, journal: &mut Journal, wanted: &GoalPlan) -> Result<Value, Failure> {
    let run = journal.run.clone();
    let board = goals::open_planning(app, &run, wanted).await?;
    let owner = Owner::of_row(&run.owner);
    let agent = agents::runnable(app, &owner, board.goal.agent_id.as_deref()).await?;
    let model = model_of(app, &agent, run.model.as_deref()).await?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": agent.id, "model": model.name() });
    journal.emit(NewEvent::new(kind::RUN_STARTED, started));
    let seen = seen(journal, &board);
    let format = Format::new(&Plan::schema(&goals::limits(app)))?;
    let agents = goals::assignable(app, &owner).await?;
    let instructions = told::instructions(&agent.definition.system_prompt, &format, &goals::limits(app), &agents, &owner);
    let request = ChatRequest {
        messages: vec![
            ChatMessage::system(instructions),
            ChatMessage::user(told::request(&board, wanted.instructions.as_deref(), app.clock.now())),
        ],
        temperature: Some(app.config.models.temperature),
        max_tokens: Some(app.config.models.max_tokens),
        output: Some(format.schema().clone()),
        ..ChatRequest::default()
    };
    let planner = Planner { app, owner, format, kept: plan::kept(&board.tasks, &seen), model };
    let plan = planner.plan(journal, request, &seen).await?;
    let step = journal.starting(STORE, StepKind::Tool, "store_plan", json!({}));
    // What was said is written first: the plan's own transaction does not have it.
    journal.commit(Vec::new(), Vec::new(), Vec::new()).await?;
    Ok(goals::store_plan(app, &run, wanted, plan, &seen, step).await?.result())
}

fn key(attempt: u32) -> String {
    format!("plan:{attempt}")
}

/// The keys of the tasks that the model is shown, or was when it was asked.
fn seen(journal: &Journal, board: &Board) -> HashSet<String> {
    let asked = journal.step(&key(0)).filter(|step| step.result.is_some());
    match asked.and_then(|step| serde_json::from_value(step.intent["seen"].clone()).ok()) {
        Some(seen) => seen,
        None => board.tasks.iter().map(|t| t.key.clone()).collect(),
    }
}

struct Planner<'a> {
    app: &'a App,
    owner: Owner,
    format: Format,
    kept: Vec<Kept>,
    model: Arc<dyn ChatModel>,
}

impl Planner<'_> {
    /// # Errors
    /// `PLAN_INVALID` with all that is wrong, when the model did not mend its plan.
    async fn plan(&self, journal: &mut Journal, mut request: ChatRequest, seen: &HashSet<String>) -> Result<Plan, Failure> {
        let mut reason = String::new();
        for attempt in 0..=REPAIRS {
            let response = self.ask(journal, &mut request, &key(attempt), seen).await?;
            let told = match self.read(&response.message_text).await? {
                Ok(plan) => return Ok(plan),
                Err(told) => told,
            };
            tracing::info!(attempt, reason = told.reason, "a plan is refused");
            request.messages.push(response.message());
            request.messages.push(ChatMessage::user(told.correction));
            reason = told.reason;
        }
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        Err(Failure::run("PLAN_INVALID", format!("the model's plan cannot be used: {reason}"), false))
    }

    async fn ask(
        &self,
        journal: &mut Journal,
        request: &mut ChatRequest,
        key: &str,
        seen: &HashSet<String>,
    ) -> Result<ModelResponse, Failure> {
        let intent = json!({ "seen": seen });
        match turn::ask_about(journal, &*self.model, request, key, intent.clone()).await {
            // Providers refuse schemas that are right; the instructions have it, and the plan is checked here.
            Err(e) if e.is(ModelErrorKind::InvalidRequest) && request.output.take().is_some() => {
                turn::ask_about(journal, &*self.model, request, key, intent).await
            }
            outcome => outcome,
        }
    }

    /// The plan, or what is wrong with it.
    async fn read(&self, text: &str) -> Result<Result<Plan, Told>, Failure> {
        let value = match self.format.read(text) {
            Ok(value) => value,
            Err(problems) => return Ok(Err(Told { correction: format::correction(&problems), reason: problems })),
        };
        let mut plan: Plan = match serde_json::from_value(value) {
            Ok(plan) => plan,
            Err(e) => return Ok(Err(Told { correction: format::correction(&e.to_string()), reason: e.to_string() })),
        };
        plan.settle(&self.kept);
        let mut problems = plan.check(&goals::limits(self.app), &self.kept);
        problems.extend(self.assignees(&plan).await?);
        Ok(if problems.is_empty() { Ok(plan) } else { Err(Told::of(&problems)) })
    }

    /// Whoever is to do a task has to be there.
    async fn assignees(&self, plan: &Plan) -> Result<Vec<String>, Failure> {
        let mut problems = Vec::new();
        let named = plan.tasks.iter().filter_map(|t| t.assignee.as_ref());
        for (kind, id) in named.map(|a| (a.kind(), a.id())).collect::<BTreeSet<_>>() {
            let is_there = match Assignee::of(kind, id.to_owned()) {
                Some(Assignee::Agent(id)) => match agents::runnable(self.app, &self.owner, Some(&id)).await {
                    Ok(_) => true,
                    Err(e) if matches!(e.code, "AGENT_NOT_FOUND" | "AGENT_STOPPED") => false,
                    Err(e) => return Err(e.into()),
                },
                _ => id == self.owner.as_str(),
            };
            if !is_there {
                problems.push(format!("there is no {kind} {id:?}; leave the assignee out, or name one that is listed"));
            }
        }
        Ok(problems)
    }
}

/// What the model is told of a plan that does not do, and what its owner is told.
struct Told {
    correction: String,
    reason: String,
}

impl Told {
    fn of(problems: &[String]) -> Self {
        let list = problems.join("\n- ");
        let correction =
            format!("Your plan cannot be used:\n- {list}\nAnswer again with the whole corrected plan as JSON and nothing else.");
        Self { correction, reason: problems.join("; ") }
    }
}
