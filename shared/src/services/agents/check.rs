//! What an agent may name: tools that there are, and model configurations of its owner's.
use std::collections::HashSet;

use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        agent::{Definition, ModelChoice, NewAgent},
        caller::Owner,
        tool::ToolDescriptor,
    },
    error::{Error, FieldError, Result},
    store::{agents as store, tools},
};

/// The agent as it will be stored.
///
/// # Errors
/// `Invalid` naming every bad field; `MODEL_CONFIG_NOT_FOUND` when nothing else is wrong.
pub async fn checked(app: &App, owner: &Owner, mut new: NewAgent, builtin: &[ToolDescriptor]) -> Result<NewAgent> {
    new.name = new.name.trim().to_owned();
    let mut bad = new.faults();
    let unknown = unknown_tools(app, owner, &new.definition, builtin).await?;
    for (i, name) in new.definition.include_tools.iter().enumerate().filter(|(_, name)| unknown.contains(*name)) {
        bad.push(FieldError { field: format!("include_tools.{i}"), message: format!("there is no tool {name}") });
    }
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    if let Some(id) = unknown_models(app, owner, &new.definition.model).await?.first() {
        return Err(Error::not_found("MODEL_CONFIG_NOT_FOUND", format!("no such model configuration: {id}")));
    }
    Ok(new)
}

/// Takes out what `owner` has not: a copy of another's agent has to work for them.
pub async fn leave_out_foreign(app: &App, owner: &Owner, definition: &mut Definition, builtin: &[ToolDescriptor]) -> Result<()> {
    let unknown = unknown_tools(app, owner, definition, builtin).await?;
    definition.include_tools.retain(|name| !unknown.contains(name));
    definition.approval_tools.retain(|name| !unknown.contains(name));
    let unknown = unknown_models(app, owner, &definition.model).await?;
    let model = &mut definition.model;
    model.model_config_id = model.model_config_id.filter(|id| !unknown.contains(id));
    model.fallbacks.retain(|fallback| fallback.model_config_id.is_none_or(|id| !unknown.contains(&id)));
    Ok(())
}

async fn unknown_tools(app: &App, owner: &Owner, definition: &Definition, builtin: &[ToolDescriptor]) -> Result<HashSet<String>> {
    let is_builtin = |name: &str| builtin.iter().any(|tool| tool.name == name);
    let names: Vec<_> = definition.include_tools.iter().map(String::as_str).filter(|name| !is_builtin(name)).collect();
    if names.is_empty() {
        return Ok(HashSet::new());
    }
    // As its runs will find them.
    let own = tools::named(&app.db, owner.as_str(), &names).await?;
    Ok(names.into_iter().filter(|name| own.iter().all(|own| own.tool.name != *name)).map(str::to_owned).collect())
}

async fn unknown_models(app: &App, owner: &Owner, model: &ModelChoice) -> Result<Vec<Uuid>> {
    let fallbacks = model.fallbacks.iter().filter_map(|fallback| fallback.model_config_id);
    let named: Vec<_> = model.model_config_id.into_iter().chain(fallbacks).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let own = store::own_models(&app.db, owner, &named).await?;
    Ok(named.into_iter().filter(|id| !own.contains(id)).collect())
}
