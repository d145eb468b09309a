//! What became of a run, step by step: the platform's word for it is an execution.
use serde_json::{Value, json};
use uuid::Uuid;

use super::runs::control;
use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        run::{Run, RunKind},
    },
    error::{Error, Result},
    store::executions as store,
};

pub use store::{Child, Step};

pub struct Execution {
    pub run: Run,
    /// The client's name of the conversation that it is part of.
    pub session: Option<String>,
    /// What it was asked: of an agent and a team `{"message", …}`, else the payload of its kind.
    pub input: Value,
    /// In the order in which they were started.
    pub steps: Vec<Step>,
    /// The runs that it started.
    pub children: Vec<Child>,
}

/// # Errors
/// `RUN_NOT_FOUND` when it is unknown or another's.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Execution> {
    let owner = caller.can(Scope::Read)?;
    let run = control::get(app, caller, id).await?;
    let gone = || Error::not_found("RUN_NOT_FOUND", "no such run");
    let request = store::request(&app.db, owner, id).await?.ok_or_else(gone)?;
    let steps = store::steps(&app.db, owner, id).await?;
    let ids: Vec<Uuid> = steps.iter().filter_map(|s| s.intent["childRunId"].as_str()?.parse().ok()).collect();
    let children = if ids.is_empty() { Vec::new() } else { store::children(&app.db, owner, &ids).await? };
    let session = request.listed.then(|| run.thread.clone());
    let message = request.message.map(|body| body.plain());
    let input = match run.kind {
        RunKind::Agent => json!({ "message": message }),
        RunKind::Team => {
            let team = &request.input["team"];
            json!({ "message": request.input["message"], "plan": team["plan"], "members": team["members"] })
        }
        _ => request.input,
    };
    Ok(Execution { run, session, input, steps, children })
}
