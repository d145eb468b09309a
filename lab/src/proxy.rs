//! A TCP proxy on loopback that cuts and delays what goes through it.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use runmill_shared::tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Bytes that may be under way in one direction of a connection, in pieces.
const UNDER_WAY: usize = 64;
const PIECE: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Connections are cut and refused.
    pub cut: bool,
    /// Every byte comes this much later, in both directions.
    pub delay: Duration,
}

/// Ends when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    condition: Arc<watch::Sender<Condition>>,
    stop: CancellationToken,
}

impl Proxy {
    /// To `target`, from a free port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let this = Self { address: listener.local_addr()?, condition: Arc::default(), stop: CancellationToken::new() };
        let (condition, stop) = (this.condition.clone(), this.stop.clone());
        tasks::spawn("a proxy", async move {
            stop.clone().run_until_cancelled(accept(listener, target, condition)).await;
        });
        Ok(this)
    }

    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Condition { cut: true, ..Condition::default() });
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, condition: Arc<watch::Sender<Condition>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if condition.borrow().cut {
            continue;
        }
        let seen = condition.subscribe();
        tasks::spawn("a proxied connection", async move {
            let mut cut = seen.clone();
            tokio::select! {
                // The other side may be down: then this one is closed.
                _ = carry(client, target, seen) => {}
                _ = cut.wait_for(|c| c.cut) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, target: SocketAddr, condition: watch::Receiver<Condition>) -> Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(pipe(from_client, to_server, condition.clone()), pipe(from_server, to_client, condition))?;
    Ok(())
}

/// Each piece is passed on when its time has come, in order, while the next are being read.
async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, condition: watch::Receiver<Condition>) -> Result<()> {
    let (send, mut pieces) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let n = from.read(&mut buffer).await?;
            let due = Instant::now() + condition.borrow().delay;
            if n == 0 || send.send((due, buffer[..n].to_vec())).await.is_err() {
                return anyhow::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything back.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks::spawn("an echo", async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut from, mut to) = socket.into_split();
                tasks::spawn("an echoed connection", async move {
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        address
    }

    async fn said(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        socket.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        socket.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_passes_on_delays_and_cuts() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address).await.unwrap();
        let long = vec![7; 300_000];
        assert_eq!(said(&mut socket, b"hello").await.unwrap(), b"hello");
        let (mut from, mut to) = socket.into_split();
        let mut answer = vec![0; long.len()];
        let (sent, got) = tokio::join!(to.write_all(&long), from.read_exact(&mut answer));
        assert!(sent.is_ok() && got.is_ok() && answer == long);
        let mut socket = from.reunite(to).unwrap();
        proxy.set(Condition { delay: Duration::from_millis(60), cut: false });
        let begun = Instant::now();
        assert_eq!(said(&mut socket, b"later").await.unwrap(), b"later");
        assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
        proxy.set(Condition { cut: true, ..Condition::default() });
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0, "cut");
        let mut refused = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0, "refused");
        proxy.set(Condition::default());
        let mut socket = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(said(&mut socket, b"again").await.unwrap(), b"again");
    }
}
