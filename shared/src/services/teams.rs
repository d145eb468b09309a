//! Teams of agents: what somebody asks of several agents becomes a run that follows a plan.
use uuid::Uuid;

use super::{
    agents::BARE,
    runs::accept::{self, Accepted, Work},
};
use crate::{
    app::App,
    domain::{
        caller::{Caller, Owner, Scope},
        message::{MessageBody, MessageRole, NewMessage},
        new_id,
        run::{RunKind, check_external_id},
        team::{Draft, Limits, Member, Team},
    },
    error::{Error, Result},
    jobs::TeamRun,
    services::chat::Message,
    store::teams as store,
};

/// Starts a team on a message.
///
/// # Errors
/// `Invalid` naming every bad field of the draft; `AGENT_NOT_FOUND` for an agent that is unknown or another's draft; `AGENT_STOPPED`;
/// and those of `accept`.
pub async fn start(app: &App, caller: &Caller, draft: Draft, message: Message) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    let limits = &app.config.teams;
    let limits = Limits { max_agents: limits.max_agents, max_nodes: limits.max_nodes, max_rounds: limits.max_rounds };
    check_external_id("session_id", &message.session)?;
    let (ids, plan) = draft.plan(&limits)?;
    let team = Team { members: members(app, owner, &ids).await?, plan };
    let id = new_id();
    let message_id = format!("user-{id}");
    let said = NewMessage { id: message_id.clone(), role: MessageRole::User, body: MessageBody::text(&*message.text) };
    let input = serde_json::to_string(&TeamRun { team, message_id, message: message.text })?;
    let work = Work {
        thread: message.session,
        listed: true,
        messages: vec![said],
        trace: message.trace,
        watcher: message.watcher,
        ..Work::alone(RunKind::Team, format!("team-{id}"), input)
    };
    accept::accept(app, owner, &work).await
}

/// The agents of these ids, in their order, as they are now.
async fn members(app: &App, owner: &Owner, ids: &[String]) -> Result<Vec<Member>> {
    let stored: Vec<Uuid> = ids.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect();
    let found = if stored.is_empty() { Vec::new() } else { store::members(&app.db, &stored, owner.as_str()).await? };
    let member = |id: &String| {
        let (agent_id, description) = (id.clone(), String::new());
        if id == BARE {
            return Ok(Member { agent_id, agent_version: 0, name: "Bare".to_owned(), description });
        }
        if let Some((_, agent)) = app.config.agent(Some(id)) {
            return Ok(Member { agent_id, agent_version: 0, name: agent.name.clone(), description });
        }
        let uuid = Uuid::parse_str(id).ok();
        let found = found.iter().find(|f| Some(f.id) == uuid);
        let found = found.ok_or_else(|| Error::not_found("AGENT_NOT_FOUND", format!("no such agent: {id}")))?;
        if found.status == "stopped" {
            return Err(Error::conflict("AGENT_STOPPED", format!("the agent {} is stopped; deploy it to run it", found.name)));
        }
        Ok(Member {
            agent_id: found.id.to_string(),
            agent_version: found.version,
            name: found.name.clone(),
            description: found.description.clone(),
        })
    };
    ids.iter().map(member).collect()
}
