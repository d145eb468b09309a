//! A load generator shares the machine with what it measures: HTTP/1.1 with nothing that the benchmarks do not need.
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// One kept-alive connection; one request at a time.
pub struct Connection {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
    body: Vec<u8>,
}

struct Head {
    status: u16,
    /// `None`: in chunks.
    length: Option<usize>,
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// As a form of a web page is sent. Its text is put in as it is.
pub fn post_form(path: &str, form: &str) -> Vec<u8> {
    let (length, kind) = (form.len(), "application/x-www-form-urlencoded");
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}").into_bytes()
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(4096, stream), line: Vec::new(), body: Vec::new() })
    }

    /// Sends a request of `get` or `post` and answers the body of a 2xx; everything else is an error.
    pub async fn send(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.get_mut().write_all(request).await?;
        let head = self.head().await?;
        self.body.clear();
        match head.length {
            Some(length) => {
                self.body.resize(length, 0);
                self.stream.read_exact(&mut self.body).await?;
            }
            None => while self.chunk().await? {},
        }
        ensure!((200..300).contains(&head.status), "answered {}: {}", head.status, String::from_utf8_lossy(&self.body));
        Ok(&self.body)
    }

    /// Begins to read an event stream; `None` for a stream that is over (204).
    pub async fn follow(mut self, path: &str) -> Result<Option<Events>> {
        self.stream.get_mut().write_all(&get(path)).await?;
        let head = self.head().await?;
        match head.status {
            200 => Ok(Some(Events { connection: self, read: 0 })),
            204 => Ok(None),
            status => bail!("a stream answered {status}"),
        }
    }

    /// Sends a request and waits until the stream that answers it has said this.
    pub async fn until(mut self, request: &[u8], said: &str) -> Result<()> {
        self.stream.get_mut().write_all(request).await?;
        let head = self.head().await?;
        ensure!(head.status == 200 && head.length.is_none(), "a stream answered {}", head.status);
        while !self.body.windows(said.len()).any(|window| window == said.as_bytes()) {
            ensure!(self.chunk().await?, "the stream ended without {said}");
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<&str> {
        self.line.clear();
        ensure!(self.stream.read_until(b'\n', &mut self.line).await? > 0, "the server closed the connection");
        Ok(std::str::from_utf8(&self.line)?.trim_end())
    }

    async fn head(&mut self) -> Result<Head> {
        let status = self.line().await?.split(' ').nth(1).context("no status line")?.parse()?;
        let mut head = Head { status, length: Some(0) };
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(head) };
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.length = None;
            }
        }
    }

    /// Adds a chunk to the body; `false` after the last.
    async fn chunk(&mut self) -> Result<bool> {
        let length = usize::from_str_radix(self.line().await?, 16)?;
        let before = self.body.len();
        self.body.resize(before + length, 0);
        self.stream.read_exact(&mut self.body[before..]).await?;
        ensure!(self.line().await?.is_empty(), "a chunk is longer than it says");
        Ok(length > 0)
    }
}

/// Server-sent events as they come.
pub struct Events {
    connection: Connection,
    /// How far the connection's body was read.
    read: usize,
}

#[derive(Default)]
pub struct Frame<'a> {
    pub id: i64,
    pub kind: &'a str,
    pub data: &'a str,
}

impl Events {
    /// The next frame that has an id; `None` when the server has ended the stream.
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>> {
        loop {
            let rest = &self.connection.body[self.read..];
            if let Some(length) = rest.windows(2).position(|w| w == b"\n\n") {
                let range = self.read..self.read + length;
                self.read += length + 2;
                if self.connection.body[range.clone()].starts_with(b"id:") {
                    return parse(&self.connection.body[range]).map(Some);
                }
                continue;
            }
            self.connection.body.drain(..self.read);
            self.read = 0;
            if !self.connection.chunk().await? {
                return Ok(None);
            }
        }
    }
}

fn parse(frame: &[u8]) -> Result<Frame<'_>> {
    let mut parsed = Frame::default();
    for line in std::str::from_utf8(frame)?.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => parsed.id = id.parse()?,
            Some(("event", kind)) => parsed.kind = kind,
            Some(("data", data)) => parsed.data = data,
            _ => {}
        }
    }
    Ok(parsed)
}
