//! Who asks: `Authorization: Bearer` with a user's token or an API key. An open start takes whoever brings neither for the user `local`.
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use poem::{FromRequest, Request, RequestBody, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use runmill_shared::{
    App, Error, ErrorKind, Result,
    clock::Timestamp,
    config::AuthMode,
    domain::caller::{Caller, Scope},
    services::accounts,
};
use uuid::Uuid;

use super::error::refuse;

/// A token says who its user is; whether the account still exists is looked up this often and not with each request.
const RECHECK: Duration = Duration::from_secs(30);
/// Users that are remembered before those that must be looked up again anyway are forgotten.
const REMEMBERED: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A cheap clone; in the data of every request.
#[derive(Clone)]
pub struct Authenticator {
    app: App,
    /// When each user was last seen in the database.
    seen: Arc<Mutex<HashMap<Uuid, Timestamp>>>,
}

impl Authenticator {
    pub fn new(app: App) -> Self {
        Self { app, seen: Arc::default() }
    }

    async fn caller(&self, request: &Request) -> Result<Caller> {
        self.identify(bearer(request)?).await
    }

    /// The caller, who has a request left this minute.
    async fn identify(&self, token: Option<&str>) -> Result<Caller> {
        let caller = match token {
            Some(key) if key.starts_with(accounts::KEY_PREFIX) => accounts::caller_of_key(&self.app, key).await?,
            Some(token) => {
                let (user, role) = self.app.tokens.verify_user(token, &self.app.clock)?;
                self.still_exists(user).await?;
                Caller::user(user, role)
            }
            None if self.app.config.auth.mode == AuthMode::Open => Caller::local(),
            None => return Err(Error::unauthenticated("sign in first: send Authorization: Bearer with a token or an API key")),
        };
        let limit = self.app.config.http.requests_per_minute;
        if limit > 0 {
            let key = format!("requests:{}", caller.can(Scope::Read)?.as_str());
            self.app.limiter.take(&key, limit, MINUTE, &self.app.clock).await?;
        }
        Ok(caller)
    }

    /// A header wins over `?access_token=`.
    async fn stream_caller(&self, request: &Request) -> Result<Caller> {
        #[derive(serde::Deserialize)]
        struct Query {
            access_token: Option<String>,
        }
        if request.header(header::AUTHORIZATION).is_none()
            && let Ok(Query { access_token: Some(token) }) = request.params()
        {
            return self.app.tokens.verify_stream(&token, &self.app.clock);
        }
        self.caller(request).await
    }

    /// A header wins over `?token=`. Without either, an open start takes only what no foreign page has sent: a browser lets any page
    /// open a socket, and sends its origin with it.
    async fn socket_caller(&self, request: &Request) -> Result<Caller> {
        #[derive(serde::Deserialize)]
        struct Query {
            token: Option<String>,
        }
        if let Some(token) = bearer(request)? {
            return self.identify(Some(token)).await;
        }
        let given = request.params::<Query>().ok().and_then(|query| query.token).filter(|token| !token.is_empty());
        if given.is_none() && !is_same_origin(request) {
            return Err(Error::unauthenticated("a page of another origin has to bring a token"));
        }
        self.identify(given.as_deref()).await
    }

    async fn still_exists(&self, user: Uuid) -> Result<()> {
        let now = self.app.clock.now();
        let seen = self.seen().get(&user).copied();
        if seen.is_some_and(|at| now.since(at) < RECHECK) {
            return Ok(());
        }
        match accounts::profile(&self.app, user).await {
            Ok(Some(_)) => {
                let mut all = self.seen();
                if all.len() >= REMEMBERED {
                    all.retain(|_, at| now.since(*at) < RECHECK);
                }
                all.insert(user, now);
                Ok(())
            }
            Ok(None) => {
                self.seen().remove(&user);
                Err(Error::unauthenticated("the account does not exist any more"))
            }
            // While the database is away, who was there a moment ago still is.
            Err(e) if e.kind == ErrorKind::Unavailable && seen.is_some() => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Uuid, Timestamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(request: &Request) -> Result<Option<&str>> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token.map(|(_, token)| token.trim()) {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(Error::unauthenticated("send Authorization: Bearer with a token or an API key")),
    }
}

/// Whether the request comes from no page, or from one of this server's own.
fn is_same_origin(request: &Request) -> bool {
    let origin = request.header(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    match (request.header(header::ORIGIN), origin) {
        (None, _) => true,
        (_, Some((_, authority))) => request.header(header::HOST) == Some(authority),
        _ => false,
    }
}

/// The address that the connection comes from.
pub fn address(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|a| a.ip())
}

fn authenticator(request: &Request) -> poem::Result<&Authenticator> {
    request.data::<Authenticator>().ok_or_else(|| refuse(Error::internal("no Authenticator in the request's data")))
}

/// A handler's proof that somebody asks who may.
pub struct Auth(pub Caller);

impl<'a> ApiExtractor<'a> for Auth {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(BEARER, bearer_scheme());
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![BEARER]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        authenticator(request)?.caller(request).await.map(Self).map_err(refuse)
    }
}

/// As `Auth`, and also by `?access_token=` with a stream token: for event streams, because browsers send no headers there.
/// The caller of a stream token can do nothing but read its thread.
pub struct StreamAuth(pub Caller);

impl<'a> ApiExtractor<'a> for StreamAuth {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(BEARER, bearer_scheme());
        let description = Some("a token for the events of one thread, for an EventSource");
        let scheme =
            MetaSecurityScheme { ty: "apiKey", name: Some("access_token"), key_in: Some("query"), ..scheme(description) };
        registry.create_security_scheme(STREAM_TOKEN, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![BEARER, STREAM_TOKEN]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        authenticator(request)?.stream_caller(request).await.map(Self).map_err(refuse)
    }
}

/// As `Auth`, and also by `?token=`: for WebSockets, because browsers send no headers there.
pub struct SocketAuth(pub Caller);

impl<'a> FromRequest<'a> for SocketAuth {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        authenticator(request)?.socket_caller(request).await.map(Self).map_err(refuse)
    }
}

const BEARER: &str = "bearer";
const STREAM_TOKEN: &str = "stream_token";

fn bearer_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        scheme: Some("bearer"),
        ..scheme(Some("a token of /api/v1/auth/login, or an API key (rm_…)"))
    }
}

fn scheme(description: Option<&'static str>) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "",
        description,
        name: None,
        key_in: None,
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
