//! One call of a model configuration. What fails is the result and no failure of the run: whoever tests wants to read it.
use std::{sync::Arc, time::Instant};

use runmill_shared::{
    Error,
    domain::{
        caller::Owner,
        chat::{ChatMessage, ModelResponse},
        event::{NewEvent, kind},
        run::{Claimed, RunUsage},
    },
    jobs::ModelTest,
    services::{
        self,
        model_configs::Tested,
        runs::execution::{End, Writes},
    },
};
use serde_json::{Value, json};

use super::Jobs;
use crate::{
    engine::{self, Failure, Journal, Left},
    models::{self, ChatRequest},
};

const QUESTION: &str = "This is a test of the connection. Answer with the one word: OK";
/// Enough for one word of a model that thinks first.
const MAX_TOKENS: u64 = 256;

pub async fn execute(jobs: &Jobs, run: &Arc<Claimed>) -> Result<Left, Failure> {
    let input: ModelTest =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let started = json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null });
    jobs.recorder.emit(run, NewEvent::new(kind::RUN_STARTED, started));
    let asked = Instant::now();
    let mut usage = RunUsage::default();
    let tested = match call(jobs, run, &input).await {
        Ok(response) => {
            usage.add(response.usage);
            Tested::answered(asked.elapsed(), response.message_text)
        }
        Err(Failure::Run { error, .. }) => Tested::failed(asked.elapsed(), error.code, error.message),
        Err(other) => return Err(other),
    };
    let result = serde_json::to_value(&tested).map_err(Error::from)?;
    let last = Writes { events: vec![NewEvent::finished(&result, usage, &[])], ..Writes::default() };
    let end = End::succeeded(result).using(usage);
    jobs.recorder.end(run, end, last).await?;
    Ok(Left::Ended)
}

async fn call(jobs: &Jobs, run: &Arc<Claimed>, input: &ModelTest) -> Result<ModelResponse, Failure> {
    let owner = Owner::of_row(run.owner.as_str());
    let mut target = services::models::of_config(&jobs.app, &owner, input.model_config_id).await?;
    target.max_tokens = Some(target.max_tokens.map_or(MAX_TOKENS, |own| own.min(MAX_TOKENS)));
    let model = models::connect(&jobs.app, &[target])?;
    let request = ChatRequest { messages: vec![ChatMessage::user(QUESTION)], ..ChatRequest::default() };
    let mut journal = Journal::open(&jobs.app, run.clone(), jobs.recorder.clone()).await?;
    engine::ask(&mut journal, &*model, &request, "model:0").await
}
