//! A notification is sent through a channel.
use std::sync::Arc;

use runmill_shared::{
    domain::{
        caller::Owner,
        event::{NewEvent, kind},
        run::{Claimed, RunUsage},
    },
    jobs::Delivery,
    services::{
        notifications,
        runs::execution::{End, Writes},
    },
};
use serde_json::{Value, json};

use super::Jobs;
use crate::engine::{Failure, Left};

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let input: Delivery =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null });
    jobs.recorder.emit(run, NewEvent::new(kind::RUN_STARTED, started));
    let parcel = notifications::parcel(&jobs.app, &Owner::of_row(run.owner.as_str()), &input).await?;
    let result = json!({ "status": jobs.deliveries.send(&jobs.app, &parcel).await? });
    let last = Writes { events: vec![NewEvent::finished(&result, RunUsage::default(), &[])], ..Writes::default() };
    let end = End::succeeded(result);
    jobs.recorder.end(run, end, last).await?;
    Ok(Left::Ended)
}
