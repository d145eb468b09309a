//! Where else an owner wants to be told. What signs a webhook is shown once, when it is made, and sealed at once.
use std::{collections::BTreeSet, ops::RangeInclusive};

use base64::{Engine, prelude::BASE64_STANDARD};
use uuid::Uuid;

use super::{
    accounts::is_email,
    model_configs::Patch,
    notifications::{Wanted, start_delivery},
    runs::{accept::Accepted, after::After},
};
use crate::{
    app::App,
    clock::Timestamp,
    config::Secret,
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        notification::{ChannelKind, NewNotification, NotificationKind, SECRET_PREFIX},
        page::{Listed, PageRequest},
    },
    error::{Error, FieldError, Result},
    jobs::Delivery,
    store::{
        notification_channels::{self as store, ChannelRow},
        notifications,
    },
};

/// Bytes of a key that signs webhooks, as Standard Webhooks wants them.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;
const MAX_URL: usize = 2048;

/// As its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    pub id: Uuid,
    pub name: String,
    pub kind: ChannelKind,
    pub target: String,
    pub kinds: Option<Vec<String>>,
    pub enabled: bool,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<ChannelRow> for Channel {
    fn from(row: ChannelRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            kind: row.kind,
            target: row.target,
            kinds: row.kinds,
            enabled: row.enabled,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What a request says; what it leaves out stays as it is. A new one needs a name, a kind and a target.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The version that the caller has seen.
    pub version: Option<i64>,
    pub name: Option<String>,
    /// Only of a new one.
    pub kind: Option<String>,
    pub target: Option<String>,
    /// Removed: all kinds.
    pub kinds: Patch<Vec<String>>,
    pub enabled: Option<bool>,
    /// Of a webhook.
    pub secret: Option<Secret>,
}

fn not_found() -> Error {
    Error::not_found("CHANNEL_NOT_FOUND", "no such channel")
}

/// Answers the secret of a webhook too: nobody is ever shown it again.
///
/// # Errors
/// `Invalid` naming every bad field; `CHANNEL_EXISTS`; `TOO_MANY_CHANNELS`.
pub async fn create(app: &App, caller: &Caller, new: Change) -> Result<(Channel, Option<Secret>)> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let kind = new.kind.as_deref().and_then(ChannelKind::parse);
    let mut row = ChannelRow {
        id: new_id(),
        owner: owner.as_str().to_owned(),
        name: String::new(),
        kind: kind.unwrap_or(ChannelKind::Webhook),
        target: String::new(),
        sealed_secret: None,
        kinds: None,
        enabled: true,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let mut bad = Vec::new();
    if kind.is_none() {
        bad.push(FieldError { field: "kind".into(), message: "one of email, webhook".into() });
    }
    if kind == Some(ChannelKind::Email) && app.config.notifications.smtp_url.is_empty() {
        let message = "no e-mail can be sent here; set notifications.smtp_url".into();
        bad.push(FieldError { field: "kind".into(), message });
    }
    let given = new.secret.clone();
    apply(new, &mut row, bad)?;
    let secret = (row.kind == ChannelKind::Webhook).then(|| given.unwrap_or_else(new_secret));
    row.sealed_secret = secret.as_ref().map(|s| app.vault.seal(&row.owner, s)).transpose()?;
    let most = app.config.notifications.max_channels;
    if !store::insert(&app.db, &row, most).await? {
        return Err(Error::conflict("TOO_MANY_CHANNELS", format!("you have {most} channels; delete one first")));
    }
    Ok((row.into(), secret))
}

fn new_secret() -> Secret {
    let key: [u8; 32] = rand::random();
    Secret::new(format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(key)))
}

/// The caller's, newest first.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Channel>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&[], &[])?;
    let found = store::page(&app.db, owner, page).await?;
    Ok(Listed { items: found.items.into_iter().map(Channel::from).collect(), total: found.total })
}

pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Channel> {
    Ok(owned(app, caller.can(Scope::Read)?, id).await?.into())
}

async fn owned(app: &App, owner: &Owner, id: Uuid) -> Result<ChannelRow> {
    store::owned(&app.db, id, owner).await?.ok_or_else(not_found)
}

/// # Errors
/// `Invalid` naming every bad field; `VERSION_CONFLICT` when it was changed since the version that the caller names, or just now.
pub async fn update(app: &App, caller: &Caller, id: Uuid, change: Change) -> Result<Channel> {
    let owner = caller.can(Scope::Write)?;
    let mut row = owned(app, owner, id).await?;
    let changed = || Error::conflict("VERSION_CONFLICT", "it was changed meanwhile; read it again");
    if change.version.is_some_and(|seen| seen != row.version) {
        return Err(changed());
    }
    let mut bad = Vec::new();
    if change.kind.as_deref().is_some_and(|kind| kind != row.kind.as_str()) {
        bad.push(FieldError { field: "kind".into(), message: "cannot be changed; make another channel".into() });
    }
    let given = change.secret.clone();
    apply(change, &mut row, bad)?;
    if let Some(secret) = given {
        row.sealed_secret = Some(app.vault.seal(&row.owner, &secret)?);
    }
    let now = app.clock.now();
    if !store::update(&app.db, &row, now).await? {
        return Err(changed());
    }
    row.version += 1;
    row.updated_at = now;
    Ok(row.into())
}

/// What has not been delivered through it yet never is.
pub async fn remove(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    if store::delete(&app.db, id, caller.can(Scope::Write)?).await? { Ok(()) } else { Err(not_found()) }
}

/// Sends a test through it, once, whether it is enabled or not.
pub async fn test(app: &App, caller: &Caller, id: Uuid) -> Result<Accepted> {
    let owner = caller.can(Scope::Write)?;
    let channel = owned(app, owner, id).await?;
    let now = app.clock.now();
    let title = format!("A test of the channel {}", channel.name);
    let about = NewNotification::about(owner.as_str(), NotificationKind::Test, "notification_channel", &id.to_string(), title);
    let new = NewNotification { dedupe_key: format!("test:{}", new_id()), ..about.saying("It works.") };
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let notification_id = notifications::insert_sent(&mut tx, &new, now).await?;
    let delivery = Delivery { notification_id, channel_id: id };
    let wanted = Wanted { owner: owner.as_str(), delivery, attempts: 1 };
    let accepted = start_delivery(app, &mut tx, &mut after, wanted, now).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(accepted)
}

/// What is at its other end says that it is gone for good.
pub async fn disable(app: &App, owner: &Owner, id: Uuid) -> Result<bool> {
    store::disable(&app.db, id, owner, app.clock.now()).await
}

/// Puts the change into the row, or names every field that cannot be, after those that are `bad` already.
fn apply(change: Change, row: &mut ChannelRow, mut bad: Vec<FieldError>) -> Result<()> {
    if let Some(name) = change.name {
        name.trim().clone_into(&mut row.name);
    }
    if let Some(target) = change.target {
        target.trim().clone_into(&mut row.target);
    }
    match change.kinds {
        Patch::Keep => {}
        Patch::Remove => row.kinds = None,
        Patch::Set(kinds) => row.kinds = Some(kinds),
    }
    row.enabled = change.enabled.unwrap_or(row.enabled);
    let mut rule = |ok: bool, field: &str, message: &str| {
        if !ok {
            bad.push(FieldError { field: field.into(), message: message.into() });
        }
    };
    let line = (1..=128).contains(&row.name.chars().count()) && !row.name.chars().any(char::is_control);
    rule(line, "name", "1 to 128 characters");
    let wrong = match row.kind {
        ChannelKind::Email => (!is_mailbox(&row.target)).then_some("no email address"),
        ChannelKind::Webhook => wrong_url(&row.target),
    };
    rule(wrong.is_none(), "target", wrong.unwrap_or_default());
    for (n, kind) in row.kinds.iter().flatten().enumerate() {
        let known = NotificationKind::parse(kind).is_some_and(|k| k != NotificationKind::Test);
        rule(known, &format!("kinds.{n}"), "no kind of notification");
    }
    let once = |kinds: &Vec<String>| !kinds.is_empty() && kinds.iter().collect::<BTreeSet<_>>().len() == kinds.len();
    rule(row.kinds.as_ref().is_none_or(once), "kinds", "each at most once, and at least one; null for all of them");
    if let Some(secret) = &change.secret {
        rule(row.kind == ChannelKind::Webhook, "secret", "only webhooks are signed");
        rule(is_secret(secret), "secret", "whsec_ and 24 to 64 bytes in base64");
    }
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

/// An address that needs no quoting in the header of a mail.
fn is_mailbox(text: &str) -> bool {
    is_email(text) && text.bytes().all(|b| b.is_ascii_graphic() && !br"<>()[],;:\".contains(&b) && b != b'"')
}

fn is_secret(secret: &Secret) -> bool {
    let key = secret.expose().strip_prefix(SECRET_PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
    key.is_some_and(|key| KEY_BYTES.contains(&key.len()))
}

/// Whether it may be reached is asked when it is.
fn wrong_url(text: &str) -> Option<&'static str> {
    let Ok(url) = url::Url::parse(text) else { return Some("no URL") };
    if text.len() > MAX_URL || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some("at most 2048 visible ASCII characters");
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Some("http://… or https://… is needed");
    }
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (!is_plain).then_some("must have no credentials and no fragment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_plain_addresses() {
        for good in ["a@example.org", "a.b+c@mail.example.org"] {
            assert!(is_mailbox(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "a@",
            "@b.c",
            "a@b@c",
            "a b@c.d",
            "a\r\nBcc: x@y.z",
            "a@b.c\r\n",
            "A <a@b.c>",
            "a,b@c.d",
            "ä@b.c",
            "\"a\"@b.c",
        ] {
            assert!(!is_mailbox(bad), "{bad}");
        }
        for good in ["https://example.org/hook?a=b", "http://127.0.0.1:9/"] {
            assert_eq!(wrong_url(good), None, "{good}");
        }
        for bad in
            ["", "example.org", "ftp://example.org", "https://u:p@example.org", "https://example.org/#x", "https://exa mple.org"]
        {
            assert!(wrong_url(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_long_enough_to_sign_with() {
        assert!(is_secret(&new_secret()) && new_secret() != new_secret());
        for bad in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqr"] {
            assert!(!is_secret(&Secret::new(bad)), "{bad}");
        }
        assert!(is_secret(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")));
    }
}
