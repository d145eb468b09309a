//! The conversation of an agent's design preview: each user has one with each agent, in a thread that its name says.
use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        caller::{Caller, Scope},
        message::Message,
        page::{Listed, PageRequest},
    },
    error::Result,
    store::{messages, threads},
};

/// The name of the thread in which a user tries an agent out: the `session_id` of that chat.
pub fn preview_thread(agent_id: Uuid) -> String {
    format!("preview-{agent_id}")
}

/// The messages of the caller's preview, oldest first; none when there was none yet.
///
/// # Errors
/// `AGENT_NOT_FOUND` as `get`.
pub async fn preview(app: &App, caller: &Caller, id: Uuid, page: &PageRequest) -> Result<Listed<Message>> {
    super::get(app, caller, id).await?;
    page.check(&[], &[])?;
    let Some(thread) = threads::by_name(&app.db, caller.can(Scope::Read)?, &preview_thread(id)).await? else {
        return Ok(Listed { items: Vec::new(), total: 0 });
    };
    messages::page(&app.db, thread.id, page).await
}
