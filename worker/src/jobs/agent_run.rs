//! An agent answers.
use std::sync::Arc;

use runmill_shared::domain::run::Claimed;

use super::Jobs;
use crate::engine::{Failure, Left, agent};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    agent::execute(&jobs.app, &jobs.recorder, &jobs.tools, run.clone()).await
}
