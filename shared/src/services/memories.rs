//! What agents remember of a user. Nobody else's memories are ever read: every call names the owner.
use uuid::Uuid;

use super::runs::control;
use crate::{
    app::App,
    domain::{
        caller::Owner,
        memory::{Memory, NewMemory},
        message::Message,
        new_id,
        run::Run,
        run_input::RunInput,
        search,
    },
    error::Result,
    store::{memories as store, messages, runs::view},
};

/// What became of memories that were to be kept.
#[derive(Debug, Default)]
pub struct Saved {
    /// Those that are new.
    pub new: Vec<Memory>,
    /// Those that were known, in these words or nearly.
    pub known: Vec<Memory>,
}

/// Keeps what is new; what is known is confirmed. Past `memory.max_per_user` those that were confirmed longest ago are forgotten.
pub async fn save(app: &App, owner: &Owner, wanted: &[NewMemory], run_id: Option<Uuid>) -> Result<Saved> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let stored = store::of_owner(&mut tx, owner).await?;
    let mut saved = Saved::default();
    for one in wanted {
        if let Some(known) = stored.iter().find(|m| one.repeats(&m.text)) {
            saved.known.push(Memory { updated_at: now, ..known.clone() });
        } else if saved.new.len() < app.config.memory.max_per_user && !saved.new.iter().any(|m| one.repeats(&m.text)) {
            let NewMemory { text, topics } = one.clone();
            saved.new.push(Memory { id: new_id(), text, topics, run_id, created_at: now, updated_at: now });
        }
    }
    let confirmed: Vec<_> = saved.known.iter().map(|m| m.id).collect();
    let room = app.config.memory.max_per_user.saturating_sub(saved.new.len());
    let old: Vec<_> = stored.iter().map(|m| m.id).filter(|id| !confirmed.contains(id)).collect();
    let kept = room.saturating_sub(confirmed.len()).min(old.len());
    store::forget(&mut tx, owner, &old[kept..]).await?;
    store::touch(&mut tx, owner, &confirmed, now).await?;
    store::insert(&mut tx, owner, &saved.new, now).await?;
    tx.commit().await?;
    Ok(saved)
}

/// The best `limit` for `query`, best first: what shares no word with it is not among them.
pub async fn search(app: &App, owner: &Owner, query: &str, limit: usize) -> Result<Vec<Memory>> {
    let all = store::of_owner(&app.db, owner).await?;
    let texts: Vec<_> = all.iter().map(|m| format!("{} {}", m.text, m.topics.join(" "))).collect();
    let ranked = search::rank(query, texts.iter().map(String::as_str));
    Ok(ranked.into_iter().take(limit).map(|(at, _)| all[at].clone()).collect())
}

/// A run that something can be learned from.
pub struct Told {
    pub run: Run,
    pub input: RunInput,
    /// What it brought and said, in order.
    pub messages: Vec<Message>,
}

/// # Errors
/// `NotFound` when it is not the owner's, or is past retention.
pub async fn told(app: &App, owner: &Owner, run_id: Uuid) -> Result<Told> {
    let run = view::by_id(&app.db, owner, run_id).await?.ok_or_else(control::not_found)?;
    let stored = view::input(&app.db, owner, run_id).await?.ok_or_else(control::not_found)?;
    let messages = messages::of_run(&app.db, run_id).await?;
    Ok(Told { run, input: serde_json::from_str(&stored.input)?, messages })
}
