//! A careful client of the Agent API: it says again what was not answered, and a reader resumes by the last id that it saw.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use runmill_shared::tasks;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::LIMIT;

const PAUSE: Duration = Duration::from_millis(25);

/// One event, as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub id: i64,
    pub event: String,
    /// The envelope.
    pub data: Value,
    pub at: Instant,
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    apis: Arc<Vec<SocketAddr>>,
}

impl Client {
    pub fn new(apis: Vec<SocketAddr>) -> Self {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build().unwrap();
        Self { http, apis: Arc::new(apis) }
    }

    /// Asks once: status and body, or why there was no answer.
    pub async fn post(&self, api: usize, thread: &str, run: &str) -> Result<(u16, Value)> {
        let body = json!({
            "threadId": thread, "runId": run,
            "messages": [{"id": format!("{run}-message"), "role": "user", "content": format!("{run} go on")}],
        });
        let url = format!("http://{}/api/v1/agent/runs", self.apis[api % self.apis.len()]);
        let answer = self.http.post(url).timeout(Duration::from_secs(10)).json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// A request of the platform's API, once: status and body, or why there was no answer.
    pub async fn call(&self, api: usize, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let url = format!("http://{}/api/v1{path}", self.apis[api % self.apis.len()]);
        let request = self.http.request(method.parse()?, url).timeout(Duration::from_secs(10));
        let request = if method == "GET" { request } else { request.json(body) };
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// Asks until the run is accepted; answers its id.
    pub async fn accept(&self, thread: &str, run: &str) -> Uuid {
        let deadline = Instant::now() + LIMIT;
        for api in 0.. {
            let outcome = match self.post(api, thread, run).await {
                Ok((200, body)) => return task_id(&body),
                outcome => format!("{outcome:?}"),
            };
            let refused = outcome.starts_with("Ok((4") && !outcome.starts_with("Ok((429");
            assert!(!refused && Instant::now() < deadline, "{run} was not accepted: {outcome}");
            sleep(PAUSE).await;
        }
        unreachable!("the loop has no end")
    }

    /// Follows a thread from its first event until nothing is active in it, over all APIs in turn, whatever happens to them.
    pub fn read(&self, thread: &str) -> Reader {
        let (send, seen) = watch::channel(Seen::default());
        let (client, name) = (self.clone(), thread.to_owned());
        tasks::spawn("read a thread", async move { client.follow(&name, send).await });
        Reader { thread: thread.to_owned(), seen }
    }

    async fn follow(&self, thread: &str, seen: watch::Sender<Seen>) {
        for api in 0.. {
            let more = match self.connect(thread, api, &seen).await {
                Ok(more) => more,
                Err(e) => {
                    seen.send_modify(|seen| seen.wrong = Some(format!("{e:#}")));
                    return;
                }
            };
            if !more {
                seen.send_modify(|seen| seen.ended = true);
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// One connection; `false`: the thread is at its end. An error is a broken promise: lost connections are not.
    async fn connect(&self, thread: &str, api: usize, seen: &watch::Sender<Seen>) -> Result<bool> {
        let url = format!("http://{}/api/v1/agent/runs/{thread}/events", self.apis[api % self.apis.len()]);
        let last = seen.borrow().frames.last().map_or(0, |frame| frame.id);
        let Ok(answer) = self.http.get(url).header("last-event-id", last).send().await else { return Ok(true) };
        match answer.status().as_u16() {
            200 => seen.send_modify(|seen| seen.connections += 1),
            204 => return Ok(false),
            // Not accepted yet, or the API cannot say.
            404 | 500..=599 => return Ok(true),
            status => bail!("after {last}: {status} {}", answer.text().await.unwrap_or_default()),
        }
        let (mut body, mut buffer) = (answer.bytes_stream(), Vec::new());
        while let Some(Ok(bytes)) = body.next().await {
            buffer.extend_from_slice(&bytes);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<_> = buffer.drain(..end + 2).collect();
                take(std::str::from_utf8(&frame)?, seen)?;
            }
        }
        Ok(true)
    }
}

/// Reads one frame: an event, a comment or a retry hint.
fn take(frame: &str, seen: &watch::Sender<Seen>) -> Result<()> {
    ensure!(!frame.contains('\r'), "a frame has carriage returns: {frame:?}");
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    if field("retry").is_some() {
        seen.send_modify(|seen| seen.retry_hints += 1);
    }
    let Some(id) = field("id") else { return Ok(()) };
    let data = serde_json::from_str(field("data").context("a frame without data")?)?;
    let event = field("event").context("a frame without a type")?.to_owned();
    let frame = Frame { id: id.parse()?, event, data, at: Instant::now() };
    let last = seen.borrow().frames.last().map_or(0, |last| last.id);
    ensure!(frame.id == last + 1, "{} came after {last}", frame.id);
    seen.send_modify(|seen| seen.frames.push(frame));
    Ok(())
}

pub fn task_id(body: &Value) -> Uuid {
    body["taskId"].as_str().unwrap_or_default().parse().unwrap_or_else(|_| panic!("no taskId in {body}"))
}

/// What a reader got so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub frames: Vec<Frame>,
    pub connections: usize,
    pub retry_hints: usize,
    pub ended: bool,
    wrong: Option<String>,
}

pub struct Reader {
    pub thread: String,
    seen: watch::Receiver<Seen>,
}

impl Reader {
    /// Waits until what it got is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let reached = tokio::time::timeout(LIMIT, self.seen.wait_for(|seen| seen.wrong.is_some() || wanted(seen))).await;
        let seen = reached.map(|seen| seen.map(|seen| seen.clone()));
        match seen {
            Ok(Ok(seen)) if seen.wrong.is_none() => seen,
            Ok(Ok(seen)) => panic!("reader of {}: {}", self.thread, seen.wrong.unwrap_or_default()),
            Ok(Err(_)) => panic!("reader of {} is gone", self.thread),
            Err(_) => panic!("reader of {} waits for {what}; it has {}", self.thread, brief(&self.seen.borrow())),
        }
    }

    pub async fn until_event(&mut self, kind: &str, times: usize) -> Seen {
        self.until(kind, |seen| seen.frames.iter().filter(|frame| frame.event == kind).count() >= times).await
    }

    pub async fn ended(&mut self) -> Seen {
        self.until("the end", |seen| seen.ended).await
    }
}

fn brief(seen: &Seen) -> String {
    let kinds: Vec<_> = seen.frames.iter().map(|frame| format!("{} {}", frame.id, frame.event)).collect();
    format!("{} connections, {}", seen.connections, kinds.join(", "))
}
