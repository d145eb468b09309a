//! A goal becomes a tree of tasks.
use std::sync::Arc;

use runmill_shared::domain::run::Claimed;

use super::Jobs;
use crate::engine::{Failure, Left};

pub async fn execute(_jobs: &Jobs, _run: &Arc<Claimed>) -> Result<Left, Failure> {
    Err(Failure::run("NOT_THERE", "not there yet", false))
}
