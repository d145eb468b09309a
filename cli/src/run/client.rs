//! The Agent API as a client sees it.
use std::{error::Error, time::Duration};

use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use crate::USAGE;

/// The server does not answer, or not now.
pub const UNREACHABLE: u8 = 4;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
const TRIES: u32 = 3;

pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    pub task_id: String,
}

#[derive(Debug)]
pub enum Trouble {
    /// nothing came back; whether it is worth another try is up to the caller
    Unreachable {
        reason: String,
        connected: bool,
    },
    Refused {
        status: StatusCode,
        detail: String,
        retry_after: Option<Duration>,
    },
}

impl Trouble {
    fn of(error: &reqwest::Error) -> Self {
        let mut reason: &dyn Error = error;
        while let Some(cause) = reason.source() {
            reason = cause;
        }
        Self::Unreachable { reason: reason.to_string(), connected: !error.is_connect() }
    }

    /// A server that will be there again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Says it, and answers the exit code.
    pub fn report(&self) -> u8 {
        match self {
            Self::Unreachable { reason, .. } => eprintln!("runmill: cannot reach the server: {reason}"),
            Self::Refused { status, detail, .. } => eprintln!("runmill: the server refused it ({status}): {detail}"),
        }
        if self.is_passing() { UNREACHABLE } else { USAGE }
    }
}

impl Client {
    pub fn new(server: &str, token: Option<&str>) -> Result<Self, String> {
        let url = reqwest::Url::parse(server).map_err(|e| e.to_string())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("it begins with http:// or https://".to_owned());
        }
        let http = reqwest::Client::builder().connect_timeout(CONNECT).build().map_err(|e| e.to_string())?;
        let base = format!("{}/api/v1/agent", server.trim_end_matches('/'));
        Ok(Self { http, base, token: token.map(str::to_owned) })
    }

    /// Safe to send twice: the runId in `input` makes the second answer the first one's.
    pub async fn start(&self, input: &Value) -> Result<Accepted, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.http.post(format!("{}/runs", self.base)).json(input);
            match self.send(request.timeout(ANSWER)).await {
                Err(Trouble::Unreachable { connected: true, .. }) if tries < TRIES => {}
                answer => return read(answer?).await,
            }
        }
    }

    pub async fn cancel(&self, run: &Accepted) -> Result<(), Trouble> {
        let request = self.http.post(format!("{}/runs/{}/cancel", self.base, run.task_id));
        self.send(request.timeout(ANSWER)).await.map(|_| ())
    }

    /// The events after `after`; none when the thread ends there and nothing is active.
    pub async fn events(&self, thread: &str, after: Option<u64>) -> Result<Option<Response>, Trouble> {
        let mut request = self.http.get(format!("{}/runs/{}/events", self.base, escaped(thread)));
        request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let answer = self.send(request).await?;
        Ok((answer.status() != StatusCode::NO_CONTENT).then_some(answer))
    }

    /// The status of this run, or of the thread's latest.
    pub async fn status(&self, thread: &str, run: Option<&Accepted>) -> Result<String, Trouble> {
        let request = match run {
            Some(run) => self.http.get(format!("{}/runs/{}", self.base, run.task_id)),
            None => self.http.get(format!("{}/runs", self.base)).query(&[("threadId", thread), ("limit", "1")]),
        };
        let page: Value = read(self.send(request.timeout(ANSWER)).await?).await?;
        let found = if run.is_some() { &page } else { &page["runs"][0] };
        Ok(found["status"].as_str().unwrap_or("unknown").to_owned())
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Response, Trouble> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|e| Trouble::of(&e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let body = answer.text().await.unwrap_or_default();
        let detail = serde_json::from_str::<Value>(&body).ok().and_then(|b| b["detail"].as_str().map(str::to_owned));
        let detail = detail.unwrap_or_else(|| body.chars().take(200).collect());
        Err(Trouble::Refused { status, detail, retry_after: seconds.map(Duration::from_secs) })
    }
}

async fn read<T: serde::de::DeserializeOwned>(answer: Response) -> Result<T, Trouble> {
    answer.json().await.map_err(|e| Trouble::of(&e))
}

/// A thread's name as one segment of a path.
fn escaped(thread: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    thread.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
