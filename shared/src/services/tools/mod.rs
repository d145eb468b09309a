//! Tools: those that are built in, those that users define, and those that plugins bring.
mod call;

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

pub use self::call::{Call, Outcome, Subject, call};
use crate::{
    app::App,
    domain::{
        agent::Agent,
        caller::{Caller, Scope},
        new_id,
        page::{Listed, PageRequest},
        tool::{CustomTool, ToolDescriptor, ToolType, definition::ToolDefinition},
    },
    error::{Error, Result},
    store::tools as store,
};

pub use store::{CategoryCount, Narrow, StoredTool};

/// The type of those that are built in, in lists.
pub const BUILTIN: &str = "builtin";
const SORTS: [&str; 4] = ["name", "-name", "created_at", "-created_at"];

#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Builtin(Box<ToolDescriptor>),
    Custom(Box<StoredTool>),
}

/// What the caller may use, the built-in ones first.
///
/// # Errors
/// `Invalid` for a type or an order that there is not.
pub async fn list(
    app: &App,
    caller: &Caller,
    builtin: &[ToolDescriptor],
    page: &PageRequest,
    narrow: &Narrow,
) -> Result<Listed<Found>> {
    let owner = caller.can(Scope::Read)?;
    check(page, narrow)?;
    let wanted = |tool: &&ToolDescriptor| {
        ["", BUILTIN].contains(&narrow.kind.as_str())
            && (narrow.category.is_empty() || narrow.category == tool.category)
            && page.search.as_deref().is_none_or(|text| mentions(tool, text))
    };
    let mut ours: Vec<_> = builtin.iter().filter(wanted).collect();
    if page.sort.as_deref() == Some("-name") {
        ours.reverse();
    }
    let count = i64::try_from(ours.len()).unwrap_or(i64::MAX);
    let skip = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    let take = usize::try_from(page.size).unwrap_or(0);
    let mut items: Vec<_> = ours.into_iter().skip(skip).take(take).cloned().map(|tool| Found::Builtin(Box::new(tool))).collect();
    if narrow.kind == BUILTIN {
        return Ok(Listed { items, total: count });
    }
    let left = page.size - i64::try_from(items.len()).unwrap_or(page.size);
    let own = store::list(&app.db, owner, page, narrow, left, (page.offset() - count).max(0)).await?;
    items.extend(own.items.into_iter().map(|tool| Found::Custom(Box::new(tool))));
    Ok(Listed { items, total: count + own.total })
}

fn check(page: &PageRequest, narrow: &Narrow) -> Result<()> {
    let mut bad = Vec::new();
    if page.sort.as_deref().is_some_and(|sort| !SORTS.contains(&sort)) {
        bad.extend(Error::invalid("sort", format!("one of {}", SORTS.join(", "))).fields);
    }
    if !narrow.kind.is_empty() && narrow.kind != BUILTIN && ToolType::parse(&narrow.kind).is_none() {
        let all = ToolType::ALL.map(ToolType::as_str).join(", ");
        bad.extend(Error::invalid("type", format!("one of {BUILTIN}, {all}")).fields);
    }
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

fn mentions(tool: &ToolDescriptor, text: &str) -> bool {
    let text = text.trim().to_lowercase();
    tool.name.to_lowercase().contains(&text) || tool.description.to_lowercase().contains(&text)
}

/// The categories of what the caller may use, by name.
pub async fn categories(app: &App, caller: &Caller, builtin: &[ToolDescriptor]) -> Result<Vec<CategoryCount>> {
    let mut all: BTreeMap<String, i64> = BTreeMap::new();
    for tool in builtin {
        *all.entry(tool.category.clone()).or_default() += 1;
    }
    for own in store::categories(&app.db, caller.can(Scope::Read)?).await? {
        *all.entry(own.name).or_default() += own.count;
    }
    Ok(all.into_iter().map(|(name, count)| CategoryCount { name, count }).collect())
}

/// By the name of a built-in tool, by id, or by the name of one of the caller's.
///
/// # Errors
/// `TOOL_NOT_FOUND`, also for another's.
pub async fn get(app: &App, caller: &Caller, builtin: &[ToolDescriptor], key: &str) -> Result<Found> {
    let owner = caller.can(Scope::Read)?;
    if let Some(tool) = builtin.iter().find(|tool| tool.name == key) {
        return Ok(Found::Builtin(Box::new(tool.clone())));
    }
    let found = match Uuid::parse_str(key) {
        Ok(id) => store::by_id(&app.db, owner, id).await?,
        Err(_) => store::named(&app.db, owner.as_str(), &[key]).await?.into_iter().next(),
    };
    found.map(|tool| Found::Custom(Box::new(tool))).ok_or_else(|| Error::not_found("TOOL_NOT_FOUND", "no such tool"))
}

/// Stores a tool of the caller's own.
///
/// # Errors
/// `Invalid` naming every bad field; `TOOL_EXISTS` for a name that is taken, by a built-in tool too.
pub async fn create(app: &App, caller: &Caller, builtin: &[ToolDescriptor], new: &ToolDefinition) -> Result<StoredTool> {
    let owner = caller.can(Scope::Write)?;
    new.check(app.config.tools.max_definition_bytes)?;
    refuse_builtin(builtin, &new.name)?;
    store::insert(&app.db, new_id(), owner, new, app.clock.now()).await.map_err(|e| taken(e, &new.name))
}

/// A change of a tool; `None`: it stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    pub kind: Option<ToolType>,
    pub category: Option<String>,
    pub input_schema: Option<Value>,
    pub output_schema: Option<Value>,
    pub config: Option<Value>,
    /// What the change was made from.
    pub version: Option<i64>,
}

/// # Errors
/// Those of `create`; `TOOL_NOT_FOUND`; `Forbidden` for one that is built in or a plugin's; `VERSION_CONFLICT`.
pub async fn change(app: &App, caller: &Caller, builtin: &[ToolDescriptor], key: &str, change: Change) -> Result<StoredTool> {
    let owner = caller.can(Scope::Write)?;
    let StoredTool { id, tool, version, .. } = own(app, caller, builtin, key).await?;
    if change.version.is_some_and(|sent| sent != version) {
        return Err(conflict(version));
    }
    let new = ToolDefinition {
        name: change.name.unwrap_or(tool.name),
        description: change.description.unwrap_or(tool.description),
        kind: change.kind.unwrap_or(tool.kind),
        category: change.category.unwrap_or(tool.category),
        input_schema: change.input_schema.unwrap_or(tool.input_schema),
        output_schema: change.output_schema.or(tool.output_schema),
        config: change.config.unwrap_or(tool.config),
    };
    new.check(app.config.tools.max_definition_bytes)?;
    refuse_builtin(builtin, &new.name)?;
    let changed = store::update(&app.db, id, owner, version, &new, app.clock.now()).await.map_err(|e| taken(e, &new.name))?;
    changed.ok_or_else(|| conflict(version))
}

/// # Errors
/// `TOOL_NOT_FOUND`; `Forbidden` for one that is built in or a plugin's.
pub async fn delete(app: &App, caller: &Caller, builtin: &[ToolDescriptor], key: &str) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let tool = own(app, caller, builtin, key).await?;
    if store::delete(&app.db, tool.id, owner).await? {
        return Ok(());
    }
    Err(Error::not_found("TOOL_NOT_FOUND", "no such tool"))
}

/// One that the caller may change.
async fn own(app: &App, caller: &Caller, builtin: &[ToolDescriptor], key: &str) -> Result<StoredTool> {
    match get(app, caller, builtin, key).await? {
        Found::Builtin(_) => Err(Error::forbidden("a built-in tool cannot be changed")),
        Found::Custom(found) if found.tool.plugin_id.is_some() => {
            Err(Error::forbidden("this tool is a plugin's; it changes with the plugin"))
        }
        Found::Custom(found) => Ok(*found),
    }
}

fn refuse_builtin(builtin: &[ToolDescriptor], name: &str) -> Result<()> {
    if builtin.iter().any(|tool| tool.name == name) {
        return Err(exists(name));
    }
    Ok(())
}

fn taken(e: Error, name: &str) -> Error {
    if e.code == "DUPLICATE" { exists(name).because(e) } else { e }
}

fn exists(name: &str) -> Error {
    Error::exists("TOOL_EXISTS", format!("there is a tool named {name} already"))
}

fn conflict(version: i64) -> Error {
    Error::conflict("VERSION_CONFLICT", format!("the tool has been changed; it was at version {version}"))
}

/// Those of `names` that are an agent's owner's, or of plugins that they have enabled, for a run: one a name.
pub async fn of_agent(app: &App, agent: &Agent, names: &[&str]) -> Result<Vec<CustomTool>> {
    let Some(owner) = agent.owner.as_deref().filter(|_| !names.is_empty()) else { return Ok(Vec::new()) };
    let mut tools: Vec<CustomTool> = Vec::new();
    for found in store::named(&app.db, owner, names).await? {
        if !tools.iter().any(|tool| tool.name == found.tool.name) {
            tools.push(found.tool);
        }
    }
    Ok(tools)
}
