//! An agent executes a task.
use std::sync::Arc;

use runmill_shared::{
    domain::{caller::Owner, run::Claimed},
    jobs::TaskRun,
    services::agents,
};

use super::Jobs;
use crate::engine::{Failure, Left, agent};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let TaskRun { mut agent, .. } =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    if agent.options.agent_version == 0 {
        // It is from the settings, or was gone or stopped when the task was started: here is said which.
        let wanted = run.agent_id.as_deref();
        agent.options.agent_version = agents::runnable(&jobs.app, &Owner::of_row(&run.owner), wanted).await?.version;
    }
    agent::execute_with(&jobs.app, &jobs.recorder, &jobs.tools, run.clone(), agent).await
}
