//! Registration, sign-in and the API keys of machines.
use std::{net::IpAddr, sync::LazyLock, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::tokens::Issued;
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::{Caller, Role, Scope},
        new_id,
    },
    error::{Error, FieldError, Result},
    store::accounts::{self as store, NewUser},
    tasks,
};

pub use store::ApiKey;

/// What an API key starts with: it tells a key from a token, and secret scanners what they have found.
pub const KEY_PREFIX: &str = "rm_";
const MINUTE: Duration = Duration::from_secs(60);

/// Hashing takes a core and 19 MiB for some 30 ms: so many at once, and the others wait.
static HASHING: Semaphore = Semaphore::const_new(4);
/// What the password of nobody is checked against, so that it takes as long as anybody's.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody").unwrap_or_default());

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub id: Uuid,
    pub email: String,
    pub nickname: String,
    pub role: Role,
    pub created_at: Timestamp,
}

impl From<store::User> for Profile {
    fn from(u: store::User) -> Self {
        Self { id: u.id, email: u.email, nickname: u.nickname, role: u.role, created_at: u.created_at }
    }
}

#[derive(Clone)]
pub struct Registration {
    pub email: String,
    pub password: String,
    pub nickname: String,
}

/// Makes an account; the first is the admin's. Errors: 422 naming every bad field; `EMAIL_TAKEN` or `NICKNAME_TAKEN`.
pub async fn register(app: &App, new: Registration) -> Result<Profile> {
    let email = new.email.trim().to_lowercase();
    let nickname = new.nickname.trim();
    check(&email, &new.password, nickname)?;
    let nickname_key = nickname.to_lowercase();
    let password = new.password;
    let password_hash = hashing(move || hash(&password)).await??;
    let user = NewUser {
        id: new_id(),
        email: &email,
        nickname,
        nickname_key: &nickname_key,
        password_hash: &password_hash,
        created_at: app.clock.now(),
    };
    let mut tx = app.db.begin().await?;
    store::lock_registration(&mut tx).await?;
    match store::taken(&mut tx, &email, &nickname_key).await? {
        (true, _) => return Err(Error::exists("EMAIL_TAKEN", "an account with this email exists already")),
        (false, true) => return Err(Error::exists("NICKNAME_TAKEN", "an account with this nickname exists already")),
        (false, false) => {}
    }
    let user = store::insert_user(&mut tx, &user).await?;
    tx.commit().await?;
    Ok(user.into())
}

fn check(email: &str, password: &str, nickname: &str) -> Result<()> {
    let mut bad = Vec::new();
    let mut rule = |ok: bool, field: &str, message: &str| {
        if !ok {
            bad.push(FieldError { field: field.into(), message: message.into() });
        }
    };
    rule(is_email(email), "email", "no email address");
    rule((8..=256).contains(&password.chars().count()), "password", "8 to 256 characters");
    rule((1..=64).contains(&nickname.chars().count()), "nickname", "1 to 64 characters");
    rule(!nickname.contains('@') && !nickname.contains(char::is_control), "nickname", "no @ and no control characters");
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

/// One `@` with something that has no blanks before it and a domain after it; whether it exists only a letter can tell.
pub(crate) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let label =
        |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.chars().all(|c| c.is_alphanumeric() || c == '-');
    text.len() <= 254
        && !local.is_empty()
        && local.len() <= 64
        && !local.chars().any(|c| c.is_whitespace() || c.is_control())
        && domain.split('.').all(label)
}

/// `username` is an email or a nickname. Each account has so many tries a minute from one address, good or bad: `RATE_LIMITED`.
/// A wrong name and a wrong password are told apart by neither words nor time.
pub async fn login(app: &App, username: &str, password: String, address: Option<IpAddr>) -> Result<Issued> {
    let login = username.trim().to_lowercase();
    let user = store::user_by_login(&app.db, &login).await?;
    let account = user.as_ref().map_or(login, |user| user.id.to_string());
    let place = hex::encode(Sha256::digest(format!("{account} {}", address.map_or_else(String::new, |a| a.to_string()))));
    let limit = app.config.auth.login_attempts_per_minute;
    app.limiter.take(&format!("login:{place}"), limit, MINUTE, &app.clock).await?;
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let matches = hashing(move || verify(stored.as_deref(), &password)).await?;
    match user {
        Some(user) if matches => app.tokens.issue_user(user.id, user.role, &app.clock),
        _ => Err(Error::unauthenticated("wrong username or password")),
    }
}

async fn hashing<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let permit = HASHING.acquire().await.map_err(Error::internal)?;
    // The permit goes along: a caller that leaves does not end the work.
    let done = tokio::task::spawn_blocking(move || {
        let _held = permit;
        work()
    });
    done.await.map_err(Error::internal)
}

fn hash(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|h| h.to_string()).map_err(|e| Error::internal(e.to_string()))
}

fn verify(stored: Option<&str>, password: &str) -> bool {
    let nobody = &*NOBODY;
    let matches = Argon2::default().verify_password(password.as_bytes(), stored.unwrap_or(nobody)).is_ok();
    matches && stored.is_some()
}

/// The caller's own account.
pub async fn me(app: &App, caller: &Caller) -> Result<Profile> {
    let owner = caller.can(Scope::Read)?;
    match Uuid::parse_str(owner.as_str()) {
        Ok(id) => profile(app, id).await?.ok_or_else(gone),
        Err(_) => Ok(Profile {
            id: Uuid::nil(),
            email: "local@localhost".into(),
            nickname: owner.as_str().into(),
            role: caller.role,
            created_at: Timestamp(0),
        }),
    }
}

/// `None` when there is no such user (any more).
pub async fn profile(app: &App, id: Uuid) -> Result<Option<Profile>> {
    Ok(store::user(&app.db, id).await?.map(Profile::from))
}

fn gone() -> Error {
    Error::unauthenticated("the account does not exist any more")
}

fn account(caller: &Caller, scope: Scope<'_>) -> Result<Uuid> {
    let owner = caller.can(scope)?;
    Uuid::parse_str(owner.as_str())
        .map_err(|_| Error::conflict("NO_ACCOUNT", "the local user of an open start has no account: register one and sign in"))
}

/// The key, shown this once, and what is kept of it.
pub async fn create_key(app: &App, caller: &Caller, name: &str) -> Result<(String, ApiKey)> {
    let user = account(caller, Scope::Write)?;
    let name = name.trim();
    if !(1..=64).contains(&name.chars().count()) {
        return Err(Error::invalid("name", "1 to 64 characters"));
    }
    let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let kept = store::insert_key(&app.db, new_id(), user, name, &digest(&secret), app.clock.now()).await?;
    Ok((secret, kept.ok_or_else(gone)?))
}

pub async fn keys(app: &App, caller: &Caller) -> Result<Vec<ApiKey>> {
    store::keys(&app.db, account(caller, Scope::Read)?).await
}

/// From now on the key opens nothing. One that is unknown, revoked or somebody else's is `API_KEY_NOT_FOUND`.
pub async fn revoke_key(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    let user = account(caller, Scope::Write)?;
    if store::revoke_key(&app.db, id, user, app.clock.now()).await? {
        return Ok(());
    }
    Err(Error::not_found("API_KEY_NOT_FOUND", "no such API key"))
}

/// Who holds the key. Notes its use, at most once a minute and off the caller's path.
pub async fn caller_of_key(app: &App, key: &str) -> Result<Caller> {
    let holder = store::key_by_hash(&app.db, &digest(key)).await?;
    let holder = holder.ok_or_else(|| Error::unauthenticated("the API key is not valid"))?;
    let now = app.clock.now();
    if holder.last_used_at.is_none_or(|used| now.since(used) >= MINUTE) {
        let db = app.db.clone();
        tasks::spawn("touch an API key", async move {
            if let Err(error) = store::touch_key(&db, holder.key, now).await {
                tracing::warn!(%error, "an API key's use was not noted");
            }
        });
    }
    Ok(Caller::user(holder.user, holder.role))
}

fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_that_are_none_are_refused() {
        for good in ["a@b", "first.last+tag@mail.example.org", "ü@exämple.de"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b@c", "a@b..c", "a@-b.c", "a@b c"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn nobody_has_a_hash_of_the_same_cost_and_no_password() {
        let real = hash("correct horse").unwrap();
        let cost = |h: &str| h.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(cost(&real), cost(&NOBODY));
        assert!(real.starts_with("$argon2id$"));
        assert!(verify(Some(&real), "correct horse") && !verify(Some(&real), "wrong"));
        assert!(!verify(None, "nobody"));
    }
}
