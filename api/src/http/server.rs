//! Listening and serving: bound sockets, guarded connections, a graceful end.
use std::{convert::Infallible, net::SocketAddr, time::Duration};

use poem::{Endpoint, FromRequest, Request, RequestBody, Server, error::GetDataError};
use runmill_shared::{
    Error, Result,
    config::{AuthMode, Config},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{observe::Observed, write_timeout::Guarded};

/// A kept-alive connection without a byte in either direction is closed after this long; streams ping more often.
const IDLE: Duration = Duration::from_secs(120);

/// Sockets that are bound, so that port 0 has become a number before anything is served.
pub struct Listeners {
    platform: TcpListener,
    ops: TcpListener,
}

impl Listeners {
    pub async fn bind(config: &Config) -> Result<Self> {
        Ok(Self { platform: bind(config.listen.platform).await?, ops: bind(config.listen.ops).await? })
    }

    pub fn platform_addr(&self) -> Result<SocketAddr> {
        Ok(self.platform.local_addr()?)
    }

    pub fn ops_addr(&self) -> Result<SocketAddr> {
        Ok(self.ops.local_addr()?)
    }

    /// (platform, ops). An open start is for this machine alone, whatever the settings were when the socket was bound.
    pub(crate) fn checked(self, config: &Config) -> Result<(TcpListener, TcpListener)> {
        if config.auth.mode == AuthMode::Open && !self.platform_addr()?.ip().is_loopback() {
            return Err(Error::invalid("auth.mode", "open is for loopback addresses only; set RUNMILL_AUTH=required"));
        }
        Ok((self.platform, self.ops))
    }
}

/// Names the address in its error, which `bind` itself does not.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| Error::unavailable("ADDRESS_UNAVAILABLE", format!("cannot listen on {address}: {e}")).because(e))
}

/// In the data of every request: cancelled when the server is told to stop, so that streams end while there is time to say so.
#[derive(Clone)]
pub struct Stopping(pub CancellationToken);

impl<'a> FromRequest<'a> for Stopping {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().cloned().ok_or(GetDataError("Stopping"))?)
    }
}

/// In the data of every request: whoever goes on after its connection was upgraded keeps it, and the end of the server waits for them.
#[derive(Clone)]
pub struct Sockets {
    _open: mpsc::Sender<Infallible>,
}

impl Sockets {
    /// With what ends when all of them are gone.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Infallible>) {
        let (open, gone) = mpsc::channel(1);
        (Self { _open: open }, gone)
    }
}

impl<'a> FromRequest<'a> for Sockets {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().cloned().ok_or(GetDataError("Sockets"))?)
    }
}

/// Serves until `shutdown`; then requests in flight have `http.shutdown_grace` to end, and what is left is cut.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    endpoint: impl Endpoint + 'static,
    config: &Config,
    shutdown: CancellationToken,
) -> Result<()> {
    let acceptor = Guarded::new(listener, config.http.write_timeout)?;
    Server::new_with_acceptor(acceptor)
        .name(name)
        .idle_timeout(IDLE)
        .run_with_graceful_shutdown(Observed(endpoint), shutdown.cancelled_owned(), Some(config.http.shutdown_grace))
        .await?;
    Ok(())
}
