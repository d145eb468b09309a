//! A tool is called.
use std::sync::Arc;

use runmill_shared::domain::run::Claimed;

use super::Jobs;
use crate::engine::{Failure, Left, tool_call};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    tool_call::execute(&jobs.app, &jobs.recorder, &jobs.tools, run.clone()).await
}
