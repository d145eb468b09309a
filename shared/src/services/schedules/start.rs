//! The runs of fires, accepted in the transaction that stores the fires.
use std::{borrow::Cow, collections::HashMap};

use uuid::Uuid;

use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        Lane,
        agent::Status,
        caller::Owner,
        event::NewEvent,
        goal::GoalStatus,
        message::MessageBody,
        new_id,
        run::{Priority, RetryPolicy, RunKind, Watcher},
        run_input::{RunInput, RunOptions},
        schedule::{Schedule, TargetKind},
    },
    error::{Error, ErrorKind, Result},
    services::{
        goals,
        runs::{accept, after::After},
    },
    store::{
        db::Tx,
        runs::{
            Ready,
            batch::{self, Alone, Terms},
            view,
        },
        schedules as store,
    },
};

/// Why a fire has no run.
#[derive(Clone, Debug)]
pub struct Refused {
    pub code: &'static str,
    pub message: Cow<'static, str>,
    /// As a failure of the schedule.
    pub counts: bool,
}

impl Refused {
    fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), counts: true }
    }

    /// As the history shows it.
    pub fn detail(&self) -> String {
        format!("{}: {}", self.code, self.message)
    }
}

impl From<Refused> for Error {
    fn from(r: Refused) -> Self {
        Self::conflict(r.code, r.message)
    }
}

/// How a schedule's runs are started.
#[derive(Clone, Debug)]
pub enum Way {
    /// The version in force.
    Agent(i64),
    Goal,
}

/// For each schedule, as things stand now: one statement for all.
pub async fn ways(app: &App, tx: &mut Tx, schedules: &[Schedule]) -> Result<Vec<Result<Way, Refused>>> {
    let mut wanted: Vec<_> = schedules.iter().filter_map(|s| stored_agent(app, s)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = store::agents(tx, &wanted).await?;
    let found: HashMap<_, _> = found.iter().map(|a| ((a.owner.as_str(), a.id), (a.status, a.version))).collect();
    let way = |s: &Schedule| match s.target.kind {
        TargetKind::Goal => Ok(Way::Goal),
        TargetKind::Workflow => {
            let refused = Refused::new("WORKFLOWS_UNAVAILABLE", "workflows cannot be executed yet");
            Err(Refused { counts: false, ..refused })
        }
        TargetKind::Agent => match stored_agent(app, s).map(|key| found.get(&key)) {
            None if app.config.agent(Some(&s.target.id)).is_some() => Ok(Way::Agent(0)),
            None | Some(None) => Err(Refused::new("AGENT_NOT_FOUND", "the agent is gone")),
            Some(Some((Status::Published, version))) => Ok(Way::Agent(*version)),
            Some(Some((Status::Draft, _))) => Err(Refused::new("AGENT_NOT_PUBLISHED", "the agent is a draft; deploy it")),
            Some(Some((Status::Stopped, _))) => Err(Refused::new("AGENT_STOPPED", "the agent is stopped; deploy it to run it")),
        },
    };
    Ok(schedules.iter().map(way).collect())
}

/// The agent of a schedule, where it is none from the settings.
fn stored_agent<'a>(app: &App, s: &'a Schedule) -> Option<(&'a str, Uuid)> {
    if s.target.kind != TargetKind::Agent || app.config.agent(Some(&s.target.id)).is_some() {
        return None;
    }
    Some((s.owner.as_str(), Uuid::parse_str(&s.target.id).ok()?))
}

/// A run of an agent for an instant.
pub fn alone(s: &Schedule, at: Timestamp, version: i64) -> Result<Alone> {
    let (id, name) = (new_id(), s.run_name(at));
    let options = RunOptions { agent_id: Some(s.target.id.clone()), agent_version: version, ..RunOptions::default() };
    let input = RunInput {
        thread_id: name.clone(),
        run_id: name.clone(),
        messages: Vec::new(),
        state: None,
        tools: Vec::new(),
        context: Vec::new(),
        forwarded_props: serde_json::Value::Null,
        parent_run_id: None,
        options,
    };
    let said = s.spec.input.as_str().map_or_else(|| s.spec.input.to_string(), str::to_owned);
    Ok(Alone {
        id,
        thread_id: new_id(),
        owner: s.owner.clone(),
        name,
        kind: RunKind::Agent.as_str(),
        lane: RunKind::Agent.lane().as_str(),
        agent_id: Some(s.target.id.clone()),
        input: serde_json::to_string(&input)?,
        message_id: format!("user-{id}"),
        message: serde_json::to_string(&MessageBody::text(said))?,
    })
}

/// Accepts all of them in one go; answers those whose name was free.
pub async fn agents(app: &App, tx: &mut Tx, after: &mut After, runs: &[Alone], now: Timestamp) -> Result<Vec<Uuid>> {
    let settings = &app.config.runs;
    let queued = NewEvent::queued();
    let terms = Terms {
        queue_deadline: now.after(settings.queue_timeout),
        run_left: i64::try_from(settings.run_timeout.as_micros()).map_err(Error::internal)?,
        policy: &RetryPolicy::of(settings),
        watcher: Watcher::Schedule,
        event: (queued.kind, serde_json::to_string(&queued.data)?),
    };
    let accepted = batch::accept(tx, runs, terms, now).await?;
    let score = Priority::score(Priority::Normal.as_i64(), now);
    after.ready(accepted.iter().map(|id| Ready { id: *id, lane: Lane::Runs, score }));
    Ok(accepted)
}

/// The name is the owner's own to give, and somebody has given it.
pub fn taken() -> Refused {
    Refused::new("RUN_EXISTS", "there is a run or a thread of this name already")
}

/// A goal is executed anew, in its own thread; this takes its lock.
pub async fn goal(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    s: &Schedule,
    at: Timestamp,
    now: Timestamp,
) -> Result<Result<Uuid, Refused>> {
    let (owner, name) = (Owner::of_row(&s.owner), s.run_name(at));
    let id = Uuid::parse_str(&s.target.id).map_err(Error::internal)?;
    let goal = match goals::hold_mine(tx, &owner, id).await {
        Err(e) if e.kind == ErrorKind::NotFound => return Ok(Err(Refused::new(e.code, e.message))),
        held => held?,
    };
    let busy = match goal.run_id {
        Some(run) => view::any_by_id(&mut *tx, run).await?.is_some_and(|run| !run.state.is_ended()),
        None => false,
    };
    if busy || matches!(goal.status, GoalStatus::Planning | GoalStatus::Paused) {
        let how = if busy { "being executed" } else { goal.status.as_str() };
        // That is its owner's doing, or another run's, and no failure.
        return Ok(Err(Refused { counts: false, ..Refused::new("GOAL_STATE", format!("the goal is {how}")) }));
    }
    if view::by_external_id(&mut *tx, &owner, &name).await?.is_some() {
        return Ok(Err(taken()));
    }
    let fire = goals::Fire { name, fresh: true, watcher: Some(Watcher::Schedule), trace: None };
    let run = goals::begin_run(app, tx, after, &goal, fire, now).await?.id;
    if goal.status != GoalStatus::Active {
        goals::move_to(tx, after, &goal, GoalStatus::Active, None, now).await?;
    }
    Ok(Ok(run))
}

/// The run of one fire.
pub async fn one(
    app: &App,
    tx: &mut Tx,
    after: &mut After,
    s: &Schedule,
    at: Timestamp,
    now: Timestamp,
) -> Result<Result<Uuid, Refused>> {
    let way = ways(app, tx, std::slice::from_ref(s)).await?.pop();
    match way.ok_or_else(|| Error::internal("a schedule without a way"))? {
        Err(refused) => Ok(Err(refused)),
        Ok(Way::Goal) => goal(app, tx, after, s, at, now).await,
        Ok(Way::Agent(version)) => {
            accept::check_room(app, tx, Lane::Runs).await?;
            let accepted = agents(app, tx, after, &[alone(s, at, version)?], now).await?;
            Ok(accepted.first().copied().ok_or_else(taken))
        }
    }
}
