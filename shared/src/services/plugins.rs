//! Plugins: made by a user, read by a worker, installed by whoever wants their tools.
use std::collections::BTreeMap;

use uuid::Uuid;

use super::runs::{
    accept::{self, Work},
    control::{self, Filter},
    wait,
};
use crate::{
    app::App,
    clock::Timestamp,
    config::Secret,
    domain::{
        caller::{Caller, Owner, Role, Scope},
        new_id,
        page::{Listed, PageRequest},
        plugin::{FoundTool, Headers, Server, Source, slug, tool_names},
        run::{Run, RunError, RunKind, RunState},
    },
    error::{Error, ErrorKind, FieldError, Result},
    jobs::PluginSync,
    store::plugins::{self as store, NewPlugin, NewTool},
};

pub use crate::store::plugins::{Plugin, PluginTool, Shelf};

/// The category of a plugin's tools.
const CATEGORY: &str = "plugin";
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 2000;
const SORTS: [&str; 6] = ["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"];

/// What a user says of a plugin. Creating needs `name` and `source`; in a change, what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    /// As `domain::plugin::Source::read` takes it. Headers that are left out stay.
    pub source: Option<serde_json::Value>,
    pub is_public: Option<bool>,
    /// The version that the change was made from.
    pub version: Option<i64>,
    /// W3C traceparent of the request.
    pub trace: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Detail {
    pub plugin: Plugin,
    pub tools: Vec<PluginTool>,
    /// How its tools were read last; for its owner, while the run is kept.
    pub sync: Option<Sync>,
}

#[derive(Clone, Debug)]
pub struct Sync {
    pub state: RunState,
    pub error: Option<RunError>,
    pub at: Timestamp,
}

impl From<Run> for Sync {
    fn from(run: Run) -> Self {
        Self { state: run.state, error: run.error, at: run.finished_at.unwrap_or(run.created_at) }
    }
}

fn not_found() -> Error {
    Error::not_found("PLUGIN_NOT_FOUND", "no such plugin")
}

fn taken(e: Error) -> Error {
    if e.code == "DUPLICATE" { Error::exists("PLUGIN_EXISTS", "you have a plugin of this name") } else { e }
}

/// The caller's own and those that they installed, or the public ones of others.
///
/// # Errors
/// `Invalid` for a `sort` or a `status` that is none; `enabled` and `disabled` are.
pub async fn list(app: &App, caller: &Caller, shelf: Shelf, page: &PageRequest) -> Result<Listed<Plugin>> {
    let owner = caller.can(Scope::Read)?;
    let mut bad = Vec::new();
    if page.sort.as_deref().is_some_and(|s| !SORTS.contains(&s)) {
        bad.extend(Error::invalid("sort", format!("one of {}", SORTS.join(", "))).fields);
    }
    let enabled = match page.status.as_deref() {
        None => None,
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => {
            bad.extend(Error::invalid("status", "enabled or disabled").fields);
            None
        }
    };
    if bad.is_empty() { store::list(&app.db, owner, shelf, page, enabled).await } else { Err(Error::invalid_fields(bad)) }
}

pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Detail> {
    let plugin = seen(app, caller, id).await?;
    let sync = if plugin.source.is_some() { last_sync(app, caller, id).await? } else { None };
    Ok(Detail { tools: store::tools(&app.db, id).await?, plugin, sync })
}

async fn seen(app: &App, caller: &Caller, id: Uuid) -> Result<Plugin> {
    let owner = caller.can(Scope::Read)?;
    store::seen(&app.db, owner, id, caller.role == Role::Admin).await?.ok_or_else(not_found)
}

/// A plugin that is the caller's own.
async fn owned(app: &App, caller: &Caller, id: Uuid) -> Result<Plugin> {
    let owner = caller.can(Scope::Write)?;
    let plugin = seen(app, caller, id).await?;
    if plugin.owner == owner.as_str() { Ok(plugin) } else { Err(Error::forbidden("only its owner may change a plugin")) }
}

async fn last_sync(app: &App, caller: &Caller, id: Uuid) -> Result<Option<Sync>> {
    let filter = Filter { thread: Some(thread_of(id)), limit: 1, ..Filter::default() };
    match control::list(app, caller, filter).await {
        Ok(runs) => Ok(runs.into_iter().next().map(Sync::from)),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Stores a plugin, installs it for its owner and has its tools read: waits for that, at most for `plugins.sync_wait`.
///
/// # Errors
/// `Invalid` naming every bad field; `PLUGIN_EXISTS`. A source that cannot be read is no error: `Detail::sync` tells.
pub async fn create(app: &App, caller: &Caller, new: Change) -> Result<Detail> {
    let owner = caller.can(Scope::Write)?;
    let mut bad = check(&new);
    for (field, is_missing) in [("name", new.name.is_none()), ("source", new.source.is_none())] {
        if is_missing {
            bad.extend(Error::invalid(field, "is required").fields);
        }
    }
    let read = read_source(app, &new, &mut bad);
    let (Some(name), Some((source, headers)), true) = (&new.name, read, bad.is_empty()) else {
        return Err(Error::invalid_fields(bad));
    };
    let row = NewPlugin {
        id: new_id(),
        name: name.trim(),
        description: new.description.as_deref().unwrap_or_default(),
        source: &source,
        credentials: seal(app, owner, headers.as_ref())?,
        is_public: new.is_public.unwrap_or(false),
    };
    let (id, now) = (row.id, app.clock.now());
    let mut tx = app.db.begin().await?;
    store::insert(&mut tx, owner, row, now).await.map_err(taken)?;
    store::install(&mut tx, owner, id, now).await?;
    tx.commit().await?;
    if let Err(e) = sync(app, caller, id, new.trace).await {
        store::delete(&app.db, id).await?;
        return Err(e);
    }
    get(app, caller, id).await
}

fn read_source(app: &App, given: &Change, bad: &mut Vec<FieldError>) -> Option<(Source, Option<Headers>)> {
    match Source::read(given.source.as_ref()?, &app.config.plugins, &app.config.mcp) {
        Ok(read) => Some(read),
        Err(e) => {
            bad.extend(e.fields);
            None
        }
    }
}

fn check(change: &Change) -> Vec<FieldError> {
    let mut bad = Vec::new();
    let mut rule = |ok: bool, field: &str, message: String| {
        if !ok {
            bad.push(FieldError { field: field.into(), message });
        }
    };
    if let Some(name) = &change.name {
        let fits = (1..=MAX_NAME).contains(&name.trim().chars().count()) && !name.chars().any(char::is_control);
        rule(fits, "name", format!("1 to {MAX_NAME} characters, none of them a control character"));
    }
    if let Some(description) = &change.description {
        let fits = description.chars().count() <= MAX_DESCRIPTION;
        rule(fits, "description", format!("at most {MAX_DESCRIPTION} characters"));
    }
    bad
}

fn seal(app: &App, owner: &Owner, headers: Option<&Headers>) -> Result<Option<String>> {
    let Some(headers) = headers.filter(|h| !h.is_empty()) else { return Ok(None) };
    app.vault.seal(owner.as_str(), &Secret::new(serde_json::to_string(headers)?)).map(Some)
}

/// Changes a plugin of the caller's; with a source or another name its tools are read again, as when it was made.
///
/// # Errors
/// As `create`; `VERSION_CONFLICT`; `Forbidden` for a public one of another's. When the queue is full the change stays.
pub async fn update(app: &App, caller: &Caller, id: Uuid, change: Change) -> Result<Detail> {
    let old = owned(app, caller, id).await?;
    let mut bad = check(&change);
    let read = read_source(app, &change, &mut bad);
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    if change.version.is_some_and(|v| v != old.version) {
        return Err(outdated(old.version));
    }
    let is_renamed = change.name.as_deref().is_some_and(|name| name.trim() != old.name);
    store_change(app, caller.can(Scope::Write)?, &old, &change, read).await?;
    if change.source.is_some() || is_renamed {
        sync(app, caller, id, change.trace).await?;
    }
    get(app, caller, id).await
}

async fn store_change(
    app: &App,
    owner: &Owner,
    old: &Plugin,
    change: &Change,
    read: Option<(Source, Option<Headers>)>,
) -> Result<()> {
    let old_source = old.source.as_ref().ok_or_else(not_found)?;
    let replaces = read.as_ref().is_some_and(|(source, headers)| headers.is_some() || !is_http(source) || !is_http(old_source));
    let (source, headers) = merged(read, old_source);
    let row = NewPlugin {
        id: old.id,
        name: change.name.as_deref().map_or(old.name.as_str(), str::trim),
        description: change.description.as_deref().unwrap_or(&old.description),
        source: &source,
        credentials: seal(app, owner, headers.as_ref())?,
        is_public: change.is_public.unwrap_or(old.is_public),
    };
    let withdraws = old.is_public && !row.is_public;
    let mut tx = app.db.begin().await?;
    if !store::update(&mut tx, row, replaces, old.version, app.clock.now()).await.map_err(taken)? {
        return Err(outdated(old.version));
    }
    if withdraws {
        store::withdraw(&mut tx, owner, old.id).await?;
    }
    tx.commit().await
}

fn is_http(source: &Source) -> bool {
    matches!(source, Source::Mcp(Server::Http { .. }))
}

/// What stands after a change: headers that it does not speak of stay, and so do their names.
fn merged(read: Option<(Source, Option<Headers>)>, old: &Source) -> (Source, Option<Headers>) {
    match (read, old) {
        (None, _) => (old.clone(), None),
        (Some((Source::Mcp(Server::Http { url, .. }), None)), Source::Mcp(Server::Http { header_names, .. })) => {
            (Source::Mcp(Server::Http { url, header_names: header_names.clone() }), None)
        }
        (Some(read), _) => read,
    }
}

fn outdated(version: i64) -> Error {
    Error::conflict("VERSION_CONFLICT", format!("the plugin has changed since; it has version {version} or a later one now"))
}

/// Deletes a plugin with its tools, for everybody: its owner may, and an administrator.
pub async fn delete(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let owner = caller.can(Scope::Write)?;
    let plugin = seen(app, caller, id).await?;
    if plugin.owner != owner.as_str() && caller.role != Role::Admin {
        return Err(Error::forbidden("only its owner may delete a plugin"));
    }
    if store::delete(&app.db, id).await? { Ok(()) } else { Err(not_found()) }
}

/// The caller's agents may use its tools from now on. Twice is as good as once.
pub async fn install(app: &App, caller: &Caller, id: Uuid) -> Result<Detail> {
    let owner = caller.can(Scope::Write)?;
    let mut tx = app.db.begin().await?;
    let is_there = store::install(&mut tx, owner, id, app.clock.now()).await?;
    tx.commit().await?;
    if is_there { get(app, caller, id).await } else { Err(not_found()) }
}

/// # Errors
/// `NotFound` when the caller has not installed it.
pub async fn uninstall(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    if store::uninstall(&app.db, caller.can(Scope::Write)?, id).await? {
        return Ok(());
    }
    seen(app, caller, id).await?;
    Err(Error::not_found("PLUGIN_NOT_INSTALLED", "you have not installed this plugin"))
}

/// Whether the caller's agents may use the tools of a plugin that they installed.
///
/// # Errors
/// `PLUGIN_NOT_INSTALLED` (a conflict).
pub async fn enable(app: &App, caller: &Caller, id: Uuid, enabled: bool) -> Result<Detail> {
    let plugin = seen(app, caller, id).await?;
    if !store::enable(&app.db, caller.can(Scope::Write)?, plugin.id, enabled).await? {
        return Err(Error::conflict("PLUGIN_NOT_INSTALLED", "you have not installed this plugin"));
    }
    get(app, caller, id).await
}

/// The runs that read a plugin's tools stand in one thread, so that one waits for the other.
fn thread_of(id: Uuid) -> String {
    format!("plugin-{id}")
}

async fn sync(app: &App, caller: &Caller, id: Uuid, trace: Option<String>) -> Result<()> {
    let name = format!("plugin-sync-{}", new_id());
    let input = serde_json::to_string(&PluginSync { plugin_id: id })?;
    let work = Work { thread: thread_of(id), trace, ..Work::alone(RunKind::PluginSync, name, input) };
    let accepted = accept::accept(app, caller.can(Scope::Write)?, &work).await?;
    wait::ended(app, caller, &accepted.thread, accepted.id, app.config.plugins.sync_wait).await?;
    Ok(())
}

/// What a worker needs of a plugin: where its tools are, and what opens the door.
pub struct Access {
    pub id: Uuid,
    pub owner: Owner,
    pub name: String,
    pub source: Source,
    pub version: i64,
    /// To its MCP server, by lower-case name.
    pub headers: BTreeMap<String, Secret>,
    /// The secret of its owner that was asked for; `None`: there is none of this name.
    pub secret: Option<Secret>,
}

/// For work that is already allowed: the plugin as it is now, and the owner's secret of the name `secret`.
///
/// # Errors
/// `PLUGIN_NOT_FOUND` when it is gone; `SECRET_UNREADABLE`.
pub async fn access(app: &App, id: Uuid, secret: Option<&str>) -> Result<Access> {
    let row = store::definition(&app.db, id, secret).await?.ok_or_else(not_found)?;
    let unsealed = |sealed: &Option<String>| sealed.as_deref().map(|s| app.vault.unseal(&row.owner, s)).transpose();
    let headers: Headers = match unsealed(&row.credentials)? {
        Some(headers) => serde_json::from_str(headers.expose())?,
        None => Headers::new(),
    };
    Ok(Access {
        secret: unsealed(&row.secret)?,
        headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        id: row.id,
        owner: Owner::of_row(row.owner),
        name: row.name,
        source: row.source,
        version: row.version,
    })
}

/// Makes `found` the plugin's only tools. `None`: it has changed or gone since `read` was read, and nothing was written.
pub async fn replace_tools(app: &App, read: &Access, found: &[FoundTool]) -> Result<Option<usize>> {
    let mut tx = app.db.begin().await?;
    if !store::hold(&mut tx, read.id, read.version).await? {
        return Ok(None);
    }
    let taken = store::taken(&mut tx, &read.owner, read.id, &format!("{}__", slug(&read.name))).await?;
    let own: Vec<_> = found.iter().map(|t| t.name.as_str()).collect();
    let names = tool_names(&read.name, &own, &taken);
    let row = |(tool, name)| new_tool(tool, name);
    let rows: Vec<_> = found.iter().zip(&names).map(row).collect();
    let written = store::replace_tools(&mut tx, &read.owner, read.id, CATEGORY, &rows, app.clock.now()).await?;
    if written != rows.len() {
        return Err(Error::unavailable("TOOL_NAME_TAKEN", "another tool has taken a name meanwhile"));
    }
    tx.commit().await?;
    Ok(Some(written))
}

fn new_tool<'a>(tool: &'a FoundTool, name: &'a String) -> NewTool<'a> {
    NewTool {
        id: new_id(),
        name,
        description: &tool.description,
        kind: tool.kind,
        input_schema: &tool.input_schema,
        output_schema: tool.output_schema.as_ref(),
        config: &tool.config,
    }
}
