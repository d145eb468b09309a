//! An HTTP/1.1 server whose answers a test scripts to the byte: streams that break off, lengths that lie, connections that hang.
//! One thread a connection, one request a connection.
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Says this length instead of the body's own: a body that breaks off.
    pub length: Option<usize>,
    /// After the body: the connection stays open until the client closes it.
    pub hold: bool,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, hold: false }
    }

    pub fn json(status: u16, body: &impl ToString) -> Self {
        Self::new(status, body.to_string()).with("content-type", "application/json")
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Its threads end with the test's process.
pub struct HttpServer {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl HttpServer {
    /// On a free port; `answer` is asked for every request. One without length that is not held ends with the connection.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its server")]
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let (seen, answer) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(answer));
        let log = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    // A client that has gone is part of many tests.
                    write(stream, &answer(&request)).ok();
                });
            }
        });
        Self { url, seen }
    }

    /// So far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request = Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Request::default() };
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn write(mut stream: TcpStream, response: &Response) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has = |name: &str, value: &str| response.headers.iter().any(|(n, v)| *n == name && v == value);
    let is_stream = has("content-type", "text/event-stream") || has("transfer-encoding", "chunked");
    if !is_stream && response.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", response.length.unwrap_or(response.body.len())));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&response.body)?;
    if response.hold {
        std::io::copy(&mut stream, &mut std::io::sink())?;
    }
    Ok(())
}
