//! The HTTP below rig: one connection pool a process, and a limit on silence.
use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use rig_core::http_client::{
    BoxedStream, Error as HttpError, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StreamingResponse,
};
use rig_reqwest::ReqwestClient;
use runmill_shared::{ErrorKind, config::Config};

use crate::tools::ssrf::Guard;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No redirects: following one would turn the POST into a GET, or take the key to another host.
static POOL: LazyLock<std::result::Result<reqwest::Client, String>> = LazyLock::new(|| {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|e| e.to_string())
});

/// The clients for addresses that users name, one for each list of private hosts that the operator allows: a process has one.
static GUARDS: Mutex<BTreeMap<Vec<String>, Arc<Guard>>> = Mutex::new(BTreeMap::new());

/// The provider was silent for too long.
#[derive(Debug)]
pub(super) struct IdleTimeout;

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no byte within the idle timeout")
    }
}

impl Error for IdleTimeout {}

/// The answer does not end.
#[derive(Debug)]
pub(super) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more bytes than models.max_response_bytes")
    }
}

impl Error for TooLong {}

/// reqwest, whose answers may be silent for `idle` at a time: before their head, and between any two chunks. A server's
/// comments (`: keep-alive`) count as signs of life, up to `most` bytes.
#[derive(Clone)]
pub(super) struct Http {
    client: ReqwestClient,
    idle: Duration,
    most: u64,
}

impl Http {
    /// # Errors
    /// When the machine's TLS set-up does not let reqwest build a client.
    pub fn new(config: &Config) -> runmill_shared::Result<Self> {
        let client = POOL.clone().map_err(runmill_shared::Error::internal)?;
        Ok(Self::over(client, config))
    }

    /// For an address that a user named: no redirects, no proxy, and no address that tools may not reach either.
    ///
    /// # Errors
    /// `BLOCKED_ADDRESS`, `INVALID_URL`.
    pub fn guarded(config: &Config, url: &reqwest::Url) -> runmill_shared::Result<Self> {
        let guard = guard(&config.security.allow_private_hosts)?;
        let client =
            guard.client(url).map_err(|refused| runmill_shared::Error::new(ErrorKind::Invalid, refused.code, refused.message))?;
        Ok(Self::over(client.clone(), config))
    }

    fn over(client: reqwest::Client, config: &Config) -> Self {
        Self { client: client.into(), idle: config.runs.model_idle_timeout, most: config.models.max_response_bytes }
    }
}

fn guard(allowed: &[String]) -> runmill_shared::Result<Arc<Guard>> {
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(guard) = guards.get(allowed) {
        return Ok(guard.clone());
    }
    let guard = Arc::new(Guard::new(allowed)?);
    guards.insert(allowed.to_vec(), guard.clone());
    Ok(guard)
}

async fn within<T>(idle: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(idle, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(HttpError::instance(IdleTimeout)),
    }
}

fn watched(mut body: BoxedStream, idle: Duration, most: u64) -> BoxedStream {
    Box::pin(async_stream::stream! {
        let mut left = most;
        loop {
            match tokio::time::timeout(idle, body.next()).await {
                Ok(Some(Ok(chunk))) => {
                    let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                        yield Err(HttpError::instance(TooLong));
                        return;
                    };
                    left = rest;
                    yield Ok(chunk);
                }
                Ok(Some(failed)) => yield failed,
                Ok(None) => return,
                Err(_) => {
                    yield Err(HttpError::instance(IdleTimeout));
                    return;
                }
            }
        }
    })
}

impl HttpClientExt for Http {
    fn send<T, U>(&self, request: Request<T>) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        T: Into<Bytes> + Send,
        U: From<Bytes> + Send + 'static,
    {
        within(self.idle, self.client.send(request))
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        U: From<Bytes> + Send + 'static,
    {
        within(self.idle, self.client.send_multipart(request))
    }

    async fn send_streaming<T>(&self, request: Request<T>) -> Result<StreamingResponse>
    where
        T: Into<Bytes> + Send,
    {
        let response = within(self.idle, self.client.send_streaming(request)).await?;
        Ok(response.map(|body| watched(body, self.idle, self.most)))
    }
}
