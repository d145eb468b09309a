//! The HTTP below rig: one connection pool a process, and a limit on silence.
use std::{error::Error, fmt, sync::LazyLock, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use rig_core::http_client::{
    BoxedStream, Error as HttpError, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StreamingResponse,
};
use rig_reqwest::ReqwestClient;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No redirects: following one would turn the POST into a GET, or take the key to another host.
static POOL: LazyLock<std::result::Result<reqwest::Client, String>> = LazyLock::new(|| {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|e| e.to_string())
});

/// The provider was silent for too long.
#[derive(Debug)]
pub(super) struct IdleTimeout;

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no byte within the idle timeout")
    }
}

impl Error for IdleTimeout {}

/// reqwest, whose answers may be silent for `idle` at a time: before their head, and between any two chunks. A server's
/// comments (`: keep-alive`) count as signs of life.
#[derive(Clone)]
pub(super) struct Http {
    client: ReqwestClient,
    idle: Duration,
}

impl Http {
    /// # Errors
    /// When the machine's TLS set-up does not let reqwest build a client.
    pub fn new(idle: Duration) -> runmill_shared::Result<Self> {
        let client = POOL.clone().map_err(runmill_shared::Error::internal)?;
        Ok(Self { client: client.into(), idle })
    }
}

async fn within<T>(idle: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(idle, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(HttpError::instance(IdleTimeout)),
    }
}

fn watched(mut body: BoxedStream, idle: Duration) -> BoxedStream {
    Box::pin(async_stream::stream! {
        loop {
            match tokio::time::timeout(idle, body.next()).await {
                Ok(Some(chunk)) => yield chunk,
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
        Ok(response.map(|body| watched(body, self.idle)))
    }
}
