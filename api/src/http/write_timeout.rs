//! Connections that are closed when their peer takes nothing for too long. A reader of an event stream that stops reading would
//! else keep its buffers, and what fills them, for ever; cut, it resumes by id.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use poem::{
    Addr,
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How long accepting rests after a failure: with no descriptors left it would otherwise spin.
const REST: Duration = Duration::from_millis(100);

pub struct Guarded {
    listener: TcpListener,
    local: SocketAddr,
    timeout: Duration,
}

impl Guarded {
    pub fn new(listener: TcpListener, timeout: Duration) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self { listener, local, timeout })
    }
}

impl Acceptor for Guarded {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![LocalAddr(Addr::SocketAddr(self.local))]
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    stream.set_nodelay(true).ok();
                    let connection = Connection { stream, timeout: self.timeout, stalled: None };
                    let (local, remote) = (Addr::SocketAddr(self.local), Addr::SocketAddr(remote));
                    return Ok((connection, LocalAddr(local), RemoteAddr(remote), Scheme::HTTP));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(REST).await;
                }
            }
        }
    }
}

pub struct Connection<S = TcpStream> {
    stream: S,
    timeout: Duration,
    /// Runs from the first write that found no room until one that did.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Connection<S> {
    fn progress<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.progress(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush: that says nothing of the peer, so the clock of a stalled write goes on.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_that_finds_no_room_for_too_long_fails_and_any_progress_starts_the_time_again() {
        let (ours, mut theirs) = duplex(10);
        let mut connection = Connection { stream: ours, timeout: Duration::from_millis(50), stalled: None };
        connection.write_all(&[7; 10]).await.unwrap();
        poll_fn(|cx| {
            assert!(Pin::new(&mut connection).poll_write(cx, &[7; 10]).is_pending(), "there is no room");
            assert!(Pin::new(&mut connection).poll_flush(cx).is_ready());
            Poll::Ready(())
        })
        .await;
        assert!(connection.stalled.is_some(), "its time runs, and flushing does not end it");
        theirs.read_exact(&mut [0; 10]).await.unwrap();
        connection.write_all(&[7; 10]).await.unwrap();
        assert!(connection.stalled.is_none(), "progress");

        let began = Instant::now();
        let error = connection.write_all(&[7; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= connection.timeout);
    }
}
