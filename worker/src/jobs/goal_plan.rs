//! A goal becomes a tree of tasks.
use std::sync::Arc;

use runmill_shared::domain::run::Claimed;

use super::Jobs;
use crate::engine::{Failure, Left, planning};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    planning::execute(&jobs.app, &jobs.recorder, run).await
}
