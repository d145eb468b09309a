//! A plugin's tools are read from its source and take the place of those that it had.
use std::sync::Arc;

use runmill_shared::{
    domain::{
        event::{NewEvent, kind},
        run::{Claimed, RunUsage},
    },
    jobs::PluginSync,
    services::{
        plugins,
        runs::execution::{End, Writes},
    },
};
use serde_json::{Value, json};

use super::Jobs;
use crate::{
    engine::{Failure, Left},
    plugins::find_tools,
    tools::{ToolError, prefix},
};

/// A plugin that changes while its tools are read is read again, so often at most.
const TRIES: usize = 3;
const MAX_MESSAGE_BYTES: usize = 2048;

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let input: PluginSync =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null });
    jobs.recorder.emit(run, NewEvent::new(kind::RUN_STARTED, started));
    let result = json!({ "tools": read(jobs, &input).await? });
    let last = Writes { events: vec![NewEvent::finished(&result, RunUsage::default(), &[])], ..Writes::default() };
    let end = End::succeeded(result);
    jobs.recorder.end(run, end, last).await?;
    Ok(Left::Ended)
}

async fn read(jobs: &Jobs, input: &PluginSync) -> Result<usize, Failure> {
    for _ in 0..TRIES {
        let access = plugins::access(&jobs.app, input.plugin_id, None).await?;
        let found = find_tools(&jobs.app, &access).await.map_err(failure)?;
        if let Some(written) = plugins::replace_tools(&jobs.app, &access, &found).await? {
            return Ok(written);
        }
    }
    Err(Failure::run("PLUGIN_CHANGED", "the plugin was changed while its tools were read", true))
}

/// Not tried again by itself: whoever made the plugin waits for what is wrong with it.
fn failure(e: ToolError) -> Failure {
    Failure::run(&e.code, prefix(&e.message, MAX_MESSAGE_BYTES), false)
}
