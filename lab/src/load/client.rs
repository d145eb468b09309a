//! One careful client of all APIs.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, multipart::Form};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    history::{Frame, History, Kind, Offer, Read, ServerError},
    model::{Forgiven, Wish},
};

const PAUSE: Duration = Duration::from_millis(50);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    apis: Arc<Vec<SocketAddr>>,
    pub history: History,
    pub forgiven: Forgiven,
}

impl Client {
    pub fn new(apis: Vec<SocketAddr>, history: History, forgiven: Forgiven) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).build()?;
        Ok(Self { http, apis: Arc::new(apis), history, forgiven })
    }

    fn url(&self, api: usize, path: &str) -> String {
        format!("http://{}{path}", self.apis[api % self.apis.len()])
    }

    /// One request to one API. `None`: no answer. Server errors are noted.
    async fn once(
        &self,
        api: usize,
        method: &Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Option<(u16, Value)> {
        let began = Instant::now();
        let request = self.http.request(method.clone(), self.url(api, path)).timeout(REQUEST_LIMIT);
        let answer = match fill(request).send().await {
            Ok(answer) => answer,
            Err(_) => {
                self.fails(api, began, None, format!("{method} {path}"));
                return None;
            }
        };
        let status = answer.status().as_u16();
        let Ok(body) = answer.bytes().await else {
            self.fails(api, began, None, format!("{method} {path}"));
            return None;
        };
        self.history.lock().answered += 1;
        if status >= 500 {
            self.fails(api, began, Some(status), format!("{method} {path}"));
        }
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    fn fails(&self, api: usize, began: Instant, status: Option<u16>, what: String) {
        let (at, took, api) = (self.history.began.elapsed(), began.elapsed(), api % self.apis.len());
        self.history.lock().errors.push(ServerError { at, took, api, status, what });
    }

    /// Asks all APIs in turn until one answers with something else than an error of the server.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        for api in 0.. {
            let fill = |request: RequestBuilder| match body {
                Some(body) => request.json(body),
                None => request,
            };
            match self.once(api, &method, path, fill).await {
                Some((status, body)) if status < 500 && status != 429 => return (status, body),
                _ => sleep(PAUSE).await,
            }
        }
        unreachable!("the loop has no end")
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Asks once, over one API: for what must not be asked twice.
    pub async fn post_form(&self, api: usize, path: &str, form: impl Fn() -> Form) -> Option<(u16, Value)> {
        self.once(api, &Method::POST, path, |request| request.multipart(form())).await
    }

    /// Has a run accepted, however often it takes; answers its id.
    pub async fn run(&self, thread: &str, run: &str, kind: Kind, wish: Wish) -> Option<Uuid> {
        self.history.asks(run, kind);
        let body = json!({
            "threadId": thread, "runId": run,
            "messages": [{"id": format!("{run}-message"), "role": "user", "content": wish.of(run)}],
        });
        let (status, answer) = self.post("/api/v1/agent/runs", &body).await;
        let id = answer["taskId"].as_str().and_then(|id| id.parse().ok());
        match id.filter(|_| status == 200) {
            Some(id) => self.history.answered(run, Offer::Accepted(id)),
            None => {
                self.history.answered(run, Offer::Refused(status));
                self.history.wrong(format!("{run} was refused: {status} {answer}"));
            }
        }
        id
    }

    /// Follows a thread from its beginning to its end, over all APIs in turn, and leaves each connection after at most `patience`
    /// frames.
    pub async fn read(&self, thread: &str, patience: usize, stop: &CancellationToken) {
        let mut read = Read::default();
        for api in 0.. {
            match stop.run_until_cancelled(self.connect(thread, api, patience, &mut read)).await {
                None => break,
                Some(Err(e)) => self.history.wrong(format!("a reader of {thread}: {e:#}")),
                Some(Ok(false)) => {
                    read.ended = true;
                    break;
                }
                Some(Ok(true)) => sleep(PAUSE).await,
            }
        }
        self.history.lock().reads.entry(thread.to_owned()).or_default().push(read);
    }

    /// One connection; `false`: the thread is at its end. An error is a broken promise: lost connections are not.
    async fn connect(&self, thread: &str, api: usize, patience: usize, read: &mut Read) -> Result<bool> {
        let began = Instant::now();
        let path = format!("/api/v1/agent/runs/{thread}/events");
        let last = read.frames.last().map_or(0, |frame| frame.id);
        let Ok(answer) = self.http.get(self.url(api, &path)).header("last-event-id", last).send().await else {
            self.fails(api, began, None, format!("GET {path}"));
            return Ok(true);
        };
        let status = answer.status().as_u16();
        match status {
            200 => {}
            204 => return Ok(false),
            500..=599 => {
                self.fails(api, began, Some(status), format!("GET {path}"));
                return Ok(true);
            }
            _ => anyhow::bail!("after {last}: {status}"),
        }
        let (mut body, mut buffer, mut taken) = (answer.bytes_stream(), Vec::new(), 0);
        while let Some(Ok(bytes)) = body.next().await {
            buffer.extend_from_slice(&bytes);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<_> = buffer.drain(..end + 2).collect();
                taken += usize::from(take(std::str::from_utf8(&frame)?, read)?);
                if taken >= patience {
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }
}

/// Reads one frame; `false`: it is no event.
fn take(frame: &str, read: &mut Read) -> Result<bool> {
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let Some(id) = field("id") else { return Ok(false) };
    let id: i64 = id.parse()?;
    let last = read.frames.last().map_or(0, |frame| frame.id);
    ensure!(id == last + 1, "{id} came after {last}");
    let kind = field("event").context("a frame without a type")?.to_owned();
    let mut body: Value = serde_json::from_str(field("data").context("a frame without data")?)?;
    let run_id = body["taskId"].as_str().context("a frame without a taskId")?.parse()?;
    ensure!(body["id"] == id && body["type"] == kind, "the frame {id} {kind} says {body}");
    read.frames.push(Frame { id, kind, run_id, data: body["data"].take() });
    Ok(true)
}
