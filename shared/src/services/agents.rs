//! Agents: what their owners do with them, and finding the one that a run names, from the settings or from the database.
mod check;
mod preview;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    app::App,
    config,
    domain::{
        agent::{Agent, Definition, ModelChoice, NewAgent, Status},
        caller::{Caller, Owner, Role, Scope},
        new_id,
        page::{Listed, PageRequest},
        tool::ToolDescriptor,
    },
    error::{Error, Result},
    group::Together,
    store::{agents as store, db::Db},
};

pub use preview::{preview, preview_thread};
pub use store::AgentRecord;

/// What a copy's name ends with.
const COPY: &str = " (copy)";
const SORTS: [&str; 3] = ["name", "created_at", "updated_at"];

/// The agent that `owner` wants to run. When they name none: their main agent, and without one the first of the settings.
///
/// # Errors
/// `AGENT_NOT_FOUND` when it is unknown or another's draft; `AGENT_STOPPED`.
pub async fn runnable(app: &App, owner: &Owner, id: Option<&str>) -> Result<Agent> {
    let found = match id {
        None => app.main_agents.ask(owner.clone()).await?,
        Some(id) => match (app.config.agent(Some(id)), Uuid::parse_str(id)) {
            (None, Ok(id)) => store::current(&app.db, id, owner.as_str()).await?,
            _ => None,
        },
    };
    let Some(found) = found else { return from_settings(app, id).ok_or_else(not_found) };
    if found.status == Status::Stopped {
        return Err(Error::conflict("AGENT_STOPPED", "the agent is stopped; deploy it to run it"));
    }
    Ok(found.into())
}

/// Every run that names no agent asks for its owner's main one: those who ask at the same time share a statement.
pub struct MainAgents(pub Db);

#[async_trait]
impl Together for MainAgents {
    type Item = Owner;
    type Answer = Option<AgentRecord>;
    type Key = ();

    fn key(_: &Owner) -> Option<()> {
        None
    }

    async fn ask(&self, owners: &[Owner]) -> Vec<Result<Option<AgentRecord>>> {
        match store::main(&self.0, &owners.iter().map(Owner::as_str).collect()).await {
            Ok(found) => owners.iter().map(|o| Ok(found.iter().find(|agent| agent.owner == o.as_str()).cloned())).collect(),
            Err(e) => e.for_each(owners.len()),
        }
    }
}

/// The version of an agent that a run was accepted with.
///
/// # Errors
/// `AGENT_NOT_FOUND` when it has been deleted since.
pub async fn of_run(app: &App, id: Option<&str>, version: i64) -> Result<Agent> {
    if let Some(agent) = from_settings(app, id) {
        return Ok(agent);
    }
    let found = match id.and_then(|id| Uuid::parse_str(id).ok()) {
        Some(id) => store::version(&app.db, id, version).await?,
        None => None,
    };
    Ok(found.ok_or_else(not_found)?.into())
}

/// The caller's agents, and those that others have published.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<AgentRecord>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&Status::ALL.map(Status::as_str), &SORTS)?;
    store::list(&app.db, owner, page).await
}

/// # Errors
/// `AGENT_NOT_FOUND` when it is unknown or another's draft.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<AgentRecord> {
    visible(app, caller.can(Scope::Read)?, id).await
}

/// As `get`, for who is about to change it.
///
/// # Errors
/// `Forbidden` too, when it is another's.
pub async fn changeable(app: &App, caller: &Caller, id: Uuid) -> Result<AgentRecord> {
    let owner = caller.can(Scope::Write)?;
    let found = visible(app, owner, id).await?;
    if found.owner != owner.as_str() {
        return Err(Error::forbidden("only its owner may do this"));
    }
    Ok(found)
}

async fn visible(app: &App, owner: &Owner, id: Uuid) -> Result<AgentRecord> {
    store::current(&app.db, id, owner.as_str()).await?.ok_or_else(not_found)
}

/// Stores a draft. `builtin` are the tools that every worker has.
///
/// # Errors
/// `Invalid` naming every bad field, unknown tools too; `MODEL_CONFIG_NOT_FOUND`.
pub async fn create(app: &App, caller: &Caller, new: NewAgent, builtin: &[ToolDescriptor]) -> Result<AgentRecord> {
    let owner = caller.can(Scope::Write)?;
    let new = check::checked(app, owner, new, builtin).await?;
    insert(app, owner, &new).await
}

async fn insert(app: &App, owner: &Owner, new: &NewAgent) -> Result<AgentRecord> {
    let id = new_id();
    let mut tx = app.db.begin().await?;
    store::insert(&mut tx, id, owner, new, app.clock.now()).await?;
    tx.commit().await?;
    visible(app, owner, id).await
}

/// Adds a version with this content, when `version` is the one in force.
///
/// # Errors
/// Those of `changeable` and `create`; `VERSION_CONFLICT`.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    version: i64,
    new: NewAgent,
    builtin: &[ToolDescriptor],
) -> Result<AgentRecord> {
    let found = changeable(app, caller, id).await?;
    let owner = caller.can(Scope::Write)?;
    let conflict = || Error::conflict("VERSION_CONFLICT", "somebody has changed it meanwhile: read it again");
    if found.version != version {
        return Err(conflict());
    }
    let new = check::checked(app, owner, new, builtin).await?;
    let mut tx = app.db.begin().await?;
    if !store::update(&mut tx, id, owner, version, &new, app.clock.now()).await? {
        return Err(conflict());
    }
    tx.commit().await?;
    visible(app, owner, id).await
}

/// By its owner, or by an administrator who can see it.
///
/// # Errors
/// Those of `changeable`; `AGENT_BUSY` while a run of it has not ended.
pub async fn delete(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let found = visible(app, owner, id).await?;
    if found.owner != owner.as_str() && caller.role != Role::Admin {
        return Err(Error::forbidden("only its owner or an administrator may delete it"));
    }
    let mut tx = app.db.begin().await?;
    // Its runs read the version that they were accepted with.
    if store::is_busy(&mut tx, id).await? {
        return Err(Error::conflict("AGENT_BUSY", "runs of this agent have not ended: cancel them, or wait"));
    }
    if !store::delete(&mut tx, id, found.status).await? {
        return Err(not_found());
    }
    tx.commit().await
}

/// Publishes: others may read and run it.
///
/// # Errors
/// Those of `changeable`; `AGENT_STATE` when it is published already.
pub async fn deploy(app: &App, caller: &Caller, id: Uuid) -> Result<AgentRecord> {
    change(app, caller, id, &[Status::Draft, Status::Stopped], Status::Published).await
}

/// New runs are refused; those under way end as they will.
///
/// # Errors
/// Those of `changeable`; `AGENT_STATE` when it is not published.
pub async fn stop(app: &App, caller: &Caller, id: Uuid) -> Result<AgentRecord> {
    change(app, caller, id, &[Status::Published], Status::Stopped).await
}

async fn change(app: &App, caller: &Caller, id: Uuid, from: &[Status], to: Status) -> Result<AgentRecord> {
    let found = changeable(app, caller, id).await?;
    let owner = caller.can(Scope::Write)?;
    let mut tx = app.db.begin().await?;
    if !from.contains(&found.status) || !store::change_status(&mut tx, id, owner, found.status, to, app.clock.now()).await? {
        let message = format!("the agent is {}; it cannot become {}", found.status.as_str(), to.as_str());
        return Err(Error::conflict("AGENT_STATE", message));
    }
    tx.commit().await?;
    visible(app, owner, id).await
}

/// A draft of the caller's own with the same content. What another's agent has of its owner alone (model configurations, tools
/// that they defined) stays with them.
pub async fn duplicate(app: &App, caller: &Caller, id: Uuid, builtin: &[ToolDescriptor]) -> Result<AgentRecord> {
    let owner = caller.can(Scope::Write)?;
    let found = visible(app, owner, id).await?;
    let mut copy = NewAgent { name: copied(&found.name), description: found.description, definition: found.definition };
    if found.owner != owner.as_str() {
        check::leave_out_foreign(app, owner, &mut copy.definition, builtin).await?;
    }
    insert(app, owner, &copy).await
}

fn copied(name: &str) -> String {
    let room = 100 - COPY.chars().count();
    format!("{}{COPY}", name.chars().take(room).collect::<String>().trim_end())
}

/// The agent that runs of its owner's which name none are executed by; it takes the place of the one before.
///
/// # Errors
/// Those of `changeable`.
pub async fn make_main(app: &App, caller: &Caller, id: Uuid) -> Result<AgentRecord> {
    changeable(app, caller, id).await?;
    let owner = caller.can(Scope::Write)?;
    let mut tx = app.db.begin().await?;
    store::promote(&mut tx, id, owner, app.clock.now()).await?;
    tx.commit().await?;
    visible(app, owner, id).await
}

fn not_found() -> Error {
    Error::not_found("AGENT_NOT_FOUND", "no such agent")
}

/// The agent of a chat without one: the default model, no instructions, no tools.
pub const BARE: &str = "bare";

fn from_settings(app: &App, id: Option<&str>) -> Option<Agent> {
    if id == Some(BARE) {
        return Some(Agent {
            id: BARE.to_owned(),
            name: "Bare".to_owned(),
            owner: None,
            version: 0,
            definition: Definition::default(),
        });
    }
    let (id, agent) = app.config.agent(id)?;
    Some(Agent { id: id.to_owned(), name: agent.name.clone(), owner: None, version: 0, definition: definition(agent) })
}

fn definition(agent: &config::Agent) -> Definition {
    let (provider, model_name) = match agent.model.split_once(':') {
        Some((provider, name)) => (Some(provider.to_owned()), Some(name.to_owned())),
        None => (None, None),
    };
    Definition {
        system_prompt: agent.system.clone(),
        model: ModelChoice { provider, model_name, ..ModelChoice::default() },
        iteration_limit: agent.max_iterations,
        include_tools: agent.tools.clone(),
        ..Definition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_copy_fits() {
        assert_eq!(copied("Helper"), "Helper (copy)");
        let long = copied(&"ä".repeat(100));
        assert!(long.chars().count() == 100 && long.ends_with(COPY));
    }
}
