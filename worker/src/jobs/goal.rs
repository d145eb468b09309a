//! A goal's tasks are executed until it ends.
use std::sync::Arc;

use runmill_shared::domain::run::Claimed;

use super::Jobs;
use crate::engine::{Failure, Left, goal};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    goal::execute(&jobs.app, &jobs.recorder, run.clone()).await
}
