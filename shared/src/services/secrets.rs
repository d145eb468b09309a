//! Secrets that tools name: stored sealed, put into a request at the last moment, and never shown again.
use crate::{
    app::App,
    config::Secret,
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        page::{Listed, PageRequest},
        tool::definition::is_name,
    },
    error::{Error, FieldError, Result},
    store::secrets as store,
};

pub use store::SecretName;

const MAX_BYTES: usize = 8192;

/// Stores or replaces one of the caller's; `true`: it is new.
///
/// # Errors
/// `Invalid` for a bad name or value.
pub async fn put(app: &App, caller: &Caller, name: &str, value: &Secret) -> Result<(bool, SecretName)> {
    let owner = caller.can(Scope::Write)?;
    let mut bad = Vec::new();
    let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
    if !is_name(name) {
        fail("name", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -".into());
    }
    if !(1..=MAX_BYTES).contains(&value.expose().len()) || value.expose().chars().any(char::is_control) {
        fail("value", format!("must be 1 to {MAX_BYTES} bytes, none of them a control character"));
    }
    if !bad.is_empty() {
        return Err(Error::invalid_fields(bad));
    }
    let sealed = app.vault.seal(owner.as_str(), value)?;
    let (is_new, stored) = store::put(&app.db, new_id(), owner, name, &sealed, app.clock.now()).await?;
    Ok((is_new, stored.ok_or_else(|| Error::internal("a stored secret answered no row"))?))
}

/// The caller's, by name, without their values.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<SecretName>> {
    store::list(&app.db, caller.can(Scope::Read)?, page).await
}

/// # Errors
/// `SECRET_NOT_FOUND`.
pub async fn delete(app: &App, caller: &Caller, name: &str) -> Result<()> {
    if store::delete(&app.db, caller.can(Scope::Write)?, name).await? {
        return Ok(());
    }
    Err(Error::not_found("SECRET_NOT_FOUND", "no such secret"))
}

/// For a tool that is about to send it.
///
/// # Errors
/// `SECRET_NOT_FOUND`; `SECRET_UNREADABLE` when its key is gone.
pub async fn reveal(app: &App, owner: &Owner, name: &str) -> Result<Secret> {
    let sealed = store::sealed(&app.db, owner.as_str(), name).await?;
    let missing =
        || Error::not_found("SECRET_NOT_FOUND", format!("there is no secret named {name}; store it with PUT /secrets/{name}"));
    app.vault.unseal(owner.as_str(), &sealed.ok_or_else(missing)?)
}
