//! A conversation that has become too long: its older part gives way to a summary by the same model. The summary is a journaled
//! step, and kept for the thread's later runs.
use runmill_shared::{
    domain::{
        chat::ChatMessage,
        event::{NewEvent, kind},
    },
    services::runs::execution,
};
use serde_json::json;

use super::{
    Failure,
    agent::Loop,
    journal::{compaction_key, model_key},
    turn,
};
use crate::models::{ChatRequest, ModelError, ModelErrorKind};

/// Of a summary, in tokens.
const LONGEST: u64 = 1500;
const INSTRUCTIONS: &str = "You keep the memory of a conversation between a user and an assistant that has become too long. \
Summarise what follows so that the assistant can go on as if it had read it: what the user wants and has decided, names, numbers, \
dates, file names and addresses exactly as they were given, which tools were called with what result as far as it still matters, \
what is done and what is open. Write in the conversation's own language, as briefly as that allows, and nothing but the summary.";

/// Whether the conversation has been compacted for that iteration.
pub fn is_done(this: &Loop<'_>, iteration: u32) -> bool {
    this.journal.finished(&compaction_key(iteration)).is_some()
}

/// Compacts where it was done before, and where the conversation is longer than the settings want it.
pub async fn before(this: &mut Loop<'_>, iteration: u32) -> Result<(), Failure> {
    let most = this.app.config.memory.compact_above_tokens;
    let is_new = this.journal.finished(&model_key(iteration)).is_none();
    if is_done(this, iteration) || (is_new && most > 0 && this.talk.estimate() > most) {
        compact(this, iteration).await?;
    }
    Ok(())
}

/// Puts a summary in the place of the older part of the conversation. `false`: there is nothing that could go.
pub async fn compact(this: &mut Loop<'_>, iteration: u32) -> Result<bool, Failure> {
    let key = compaction_key(iteration);
    let begun = this.journal.step(&key).and_then(|s| s.intent["upto"].as_str().map(str::to_owned));
    let Some(upto) = begun.or_else(|| this.talk.cut()) else { return Ok(false) };
    let (is_new, before) = (!is_done(this, iteration), this.talk.estimate());
    this.check_budget(&key)?;
    let request = ChatRequest {
        messages: vec![ChatMessage::system(INSTRUCTIONS), ChatMessage::user(this.talk.transcript(&upto))],
        temperature: Some(0.0),
        most_tokens: Some(LONGEST),
        ..ChatRequest::default()
    };
    let (model, intent) = (this.model.clone(), json!({ "upto": upto }));
    let response = turn::ask_about(&mut this.journal, &*model, &request, &key, intent).await?;
    let summary = response.message_text.trim();
    if summary.is_empty() {
        return Err(ModelError::new(ModelErrorKind::ContextOverflow).into());
    }
    let gone = this.talk.compact(&upto, summary.to_owned());
    execution::keep_summary(this.app, &this.journal.run, &upto, summary).await?;
    if is_new {
        let told = json!({ "messages": gone, "tokensBefore": before, "tokensAfter": this.talk.estimate(), "upto": upto });
        this.journal.emit(NewEvent::new(kind::PROGRESS, json!({ "compaction": told })));
    }
    Ok(true)
}
