//! Signed tokens: a user's, and one that reads the events of a single thread. Each has its own audience, so that neither is
//! ever taken for the other. A header names the key (`kid`); tokens of previous secrets are still accepted.
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    clock::{Clock, Timestamp},
    config::{AuthMode, Config},
    domain::{
        caller::{Caller, Role, Scope},
        new_id,
    },
    error::{Error, Result},
};

/// Shorter secrets can be guessed from one token.
const MIN_SECRET: usize = 32;
const USER: &str = "api";
const STREAM: &str = "stream";

/// A cheap clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    /// The first signs; all verify.
    keys: Vec<Key>,
    signing_keys: Vec<[u8; 32]>,
    sealing_keys: Vec<[u8; 32]>,
    user_lifetime: Duration,
    stream_lifetime: Duration,
}

struct Key {
    /// First 16 hex digits of the secret's sha256.
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// A token and the seconds until it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub token: String,
    pub expires_in: u64,
}

#[derive(Serialize, Deserialize)]
struct UserClaims {
    aud: String,
    sub: Uuid,
    role: String,
    iat: i64,
    exp: i64,
}

#[derive(Serialize, Deserialize)]
struct StreamClaims {
    aud: String,
    /// the owner
    sub: String,
    /// the client's own id of it
    thread: String,
    iat: i64,
    exp: i64,
}

trait Expires {
    fn expires(&self) -> i64;
}

impl Expires for UserClaims {
    fn expires(&self) -> i64 {
        self.exp
    }
}

impl Expires for StreamClaims {
    fn expires(&self) -> i64 {
        self.exp
    }
}

impl Tokens {
    /// Takes the configured secrets. In open mode without one it makes one and keeps it in `data_dir/secret`, for its owner's
    /// eyes only, so that tokens and signed URLs outlive a restart.
    pub fn open(config: &Config) -> Result<Self> {
        let auth = &config.auth;
        let mut secrets: Vec<String> =
            std::iter::once(&auth.jwt_secret).chain(&auth.previous_jwt_secrets).map(|s| s.expose().to_owned()).collect();
        if secrets[0].is_empty() && auth.mode == AuthMode::Open {
            secrets[0] = kept_secret(&config.data_dir)?;
        }
        if secrets.iter().any(|s| s.len() < MIN_SECRET) {
            return Err(Error::invalid("auth.jwt_secret", format!("each secret needs at least {MIN_SECRET} bytes")));
        }
        Ok(Self(Arc::new(Inner {
            keys: secrets.iter().map(|s| Key::new(s)).collect(),
            signing_keys: secrets.iter().map(|s| derive(s, b"runmill signed urls")).collect::<Result<_>>()?,
            sealing_keys: secrets.iter().map(|s| derive(s, b"runmill sealed secrets")).collect::<Result<_>>()?,
            user_lifetime: auth.token_lifetime,
            stream_lifetime: auth.stream_token_lifetime,
        })))
    }

    pub fn issue_user(&self, user: Uuid, role: Role, clock: &Clock) -> Result<Issued> {
        let (iat, exp) = times(clock.now(), self.0.user_lifetime);
        let role = if role == Role::Admin { "admin" } else { "user" }.to_owned();
        self.issue(&UserClaims { aud: USER.into(), sub: user, role, iat, exp }, self.0.user_lifetime)
    }

    /// The user and the role; it says nothing of whether the user still exists.
    pub fn verify_user(&self, token: &str, clock: &Clock) -> Result<(Uuid, Role)> {
        let claims: UserClaims = self.verify(token, USER, clock)?;
        match claims.role.as_str() {
            "admin" => Ok((claims.sub, Role::Admin)),
            "user" => Ok((claims.sub, Role::User)),
            _ => Err(refused()),
        }
    }

    /// For reading the events of one thread; `thread` is the client's own id of it, and whoever calls this has seen that it is the caller's.
    pub fn issue_stream(&self, caller: &Caller, thread: &str, clock: &Clock) -> Result<Issued> {
        let owner = caller.can(Scope::Read)?;
        let (iat, exp) = times(clock.now(), self.0.stream_lifetime);
        let claims = StreamClaims { aud: STREAM.into(), sub: owner.as_str().into(), thread: thread.into(), iat, exp };
        self.issue(&claims, self.0.stream_lifetime)
    }

    pub fn verify_stream(&self, token: &str, clock: &Clock) -> Result<Caller> {
        let claims: StreamClaims = self.verify(token, STREAM, clock)?;
        Ok(Caller::reader(claims.sub, claims.thread))
    }

    /// What signs the URLs that we serve ourselves. Derived, so that a signature of one use is none of another.
    pub fn signing_key(&self) -> &[u8; 32] {
        &self.0.signing_keys[0]
    }

    /// The signing key and those of the previous secrets: all that a signature may be checked with.
    pub fn accepted_signing_keys(&self) -> &[[u8; 32]] {
        &self.0.signing_keys
    }

    /// What seals secrets when no key of their own is set.
    pub fn sealing_keys(&self) -> &[[u8; 32]] {
        &self.0.sealing_keys
    }

    fn issue(&self, claims: &impl Serialize, lifetime: Duration) -> Result<Issued> {
        let key = &self.0.keys[0];
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, claims, &key.encoding).map_err(Error::internal)?;
        Ok(Issued { token, expires_in: lifetime.as_secs() })
    }

    fn verify<T: DeserializeOwned + Expires>(&self, token: &str, audience: &str, clock: &Clock) -> Result<T> {
        let kid = decode_header(token).map_err(|_| refused())?.kid.ok_or_else(refused)?;
        let key = self.0.keys.iter().find(|key| key.id == kid).ok_or_else(refused)?;
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["aud", "exp", "sub"]);
        // Against our own clock, below.
        rules.validate_exp = false;
        let claims: T = decode(token, &key.decoding, &rules).map_err(|_| refused())?.claims;
        if claims.expires() <= seconds(clock.now()) {
            return Err(Error::unauthenticated("the token has expired"));
        }
        Ok(claims)
    }
}

impl Key {
    fn new(secret: &str) -> Self {
        Self {
            id: hex::encode(Sha256::digest(secret))[..16].to_owned(),
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
        }
    }
}

fn refused() -> Error {
    Error::unauthenticated("the token is not valid")
}

fn times(now: Timestamp, lifetime: Duration) -> (i64, i64) {
    (seconds(now), seconds(now.after(lifetime)))
}

fn seconds(t: Timestamp) -> i64 {
    t.0.div_euclid(1_000_000)
}

pub(super) fn derive(secret: &str, label: &[u8]) -> Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(Error::internal)?;
    mac.update(label);
    Ok(mac.finalize().into_bytes().into())
}

fn kept_secret(data_dir: &Path) -> Result<String> {
    let file = data_dir.join("secret");
    match fs::read_to_string(&file) {
        Ok(secret) => return Ok(secret.trim().to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    fs::create_dir_all(data_dir)?;
    let draft = data_dir.join(format!("secret.{}", new_id().simple()));
    write_private(&draft, &hex::encode(rand::random::<[u8; 32]>()))?;
    // Whole or not at all, and the first of two processes that start together wins.
    let placed = fs::hard_link(&draft, &file);
    fs::remove_file(&draft)?;
    match placed {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e.into()),
        _ => Ok(fs::read_to_string(&file)?.trim().to_owned()),
    }
}

fn write_private(file: &PathBuf, text: &str) -> io::Result<()> {
    use io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn config(secrets: &[&str]) -> Config {
        let mut config = Config::defaults().unwrap();
        config.auth.mode = AuthMode::Required;
        config.auth.jwt_secret = Secret::new(secrets[0]);
        config.auth.previous_jwt_secrets = secrets[1..].iter().map(|s| Secret::new(*s)).collect();
        config
    }

    const OLD: &str = "an old secret of more than 32 bytes";
    const NEW: &str = "a new secret of more than 32 bytes!";

    #[test]
    fn a_token_holds_until_its_time_and_no_longer() {
        let (tokens, clock) = (Tokens::open(&config(&[NEW])).unwrap(), Clock::manual(Timestamp(0)));
        let user = new_id();
        let issued = tokens.issue_user(user, Role::Admin, &clock).unwrap();
        clock.advance(Duration::from_secs(issued.expires_in) - Duration::from_micros(1));
        assert_eq!(tokens.verify_user(&issued.token, &clock).unwrap(), (user, Role::Admin));
        clock.advance(Duration::from_micros(1));
        assert_eq!(tokens.verify_user(&issued.token, &clock).unwrap_err().message, "the token has expired");
    }

    #[test]
    fn secrets_rotate() {
        let clock = Clock::manual(Timestamp(0));
        let old = Tokens::open(&config(&[OLD])).unwrap();
        let both = Tokens::open(&config(&[NEW, OLD])).unwrap();
        let new = Tokens::open(&config(&[NEW])).unwrap();
        let token = old.issue_user(new_id(), Role::User, &clock).unwrap().token;
        assert!(both.verify_user(&token, &clock).is_ok());
        assert!(new.verify_user(&token, &clock).is_err());
        assert!(new.verify_user(&both.issue_user(new_id(), Role::User, &clock).unwrap().token, &clock).is_ok());
        assert_eq!(both.signing_key(), new.signing_key());
        assert_eq!(both.accepted_signing_keys(), [*new.signing_key(), *old.signing_key()]);
    }

    #[test]
    fn a_stream_token_is_no_user_token_nor_the_other_way_round() {
        let (tokens, clock) = (Tokens::open(&config(&[NEW])).unwrap(), Clock::manual(Timestamp(0)));
        let user = tokens.issue_user(new_id(), Role::User, &clock).unwrap().token;
        let stream = tokens.issue_stream(&Caller::local(), "t", &clock).unwrap().token;
        assert!(tokens.verify_user(&stream, &clock).is_err());
        assert!(tokens.verify_stream(&user, &clock).is_err());
        let reader = tokens.verify_stream(&stream, &clock).unwrap();
        assert!(reader.can(Scope::Stream { thread: "t" }).is_ok());
        assert!(reader.can(Scope::Read).is_err());
        assert!(tokens.issue_stream(&reader, "t", &clock).is_err(), "a reader makes no tokens");
    }

    #[test]
    fn a_token_that_was_tampered_with_is_refused() {
        let (tokens, clock) = (Tokens::open(&config(&[NEW])).unwrap(), Clock::manual(Timestamp(0)));
        let token = tokens.issue_user(new_id(), Role::User, &clock).unwrap().token;
        let (head, rest) = token.split_once('.').unwrap();
        let none = Header { alg: Algorithm::HS512, kid: None, ..Header::default() };
        let other = encode(&none, &serde_json::json!({}), &EncodingKey::from_secret(NEW.as_bytes())).unwrap();
        for bad in ["", "a.b.c", &format!("{head}.e30.{rest}"), &format!("{}A", &token[..token.len() - 2]), &other] {
            assert!(tokens.verify_user(bad, &clock).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_secrets_are_refused_and_an_open_start_keeps_its_own() {
        assert!(Tokens::open(&config(&["short"])).is_err());
        assert!(Tokens::open(&config(&[NEW, "short"])).is_err());
        assert!(Tokens::open(&config(&[""])).is_err(), "required, and none is set");
        let dir = tempfile::tempdir().unwrap();
        let mut open = config(&[""]);
        open.auth.mode = AuthMode::Open;
        open.data_dir = dir.path().join("new");
        let (first, second) = (Tokens::open(&open).unwrap(), Tokens::open(&open).unwrap());
        assert_eq!(first.signing_key(), second.signing_key());
        let names: Vec<_> = fs::read_dir(&open.data_dir).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(open.data_dir.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
