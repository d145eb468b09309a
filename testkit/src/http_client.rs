//! What tests of HTTP share: answers read whole, event streams frame by frame, and nothing waited for without an end.
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;

/// How long a test waits for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// # Panics
/// When what it waits for does not come.
pub async fn soon<F: Future>(what: &str, work: F) -> F::Output {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Status and body, which is JSON or nothing; text that is no JSON comes as a string.
///
/// # Panics
/// When no answer comes.
pub async fn read(request: RequestBuilder) -> (u16, Value) {
    content(sent(request).await).await
}

async fn sent(request: RequestBuilder) -> Response {
    soon("the answer", request.send()).await.unwrap_or_else(|e| panic!("no answer: {e:?}"))
}

/// As `read`, of an answer whose head is there.
///
/// # Panics
/// When its body does not come.
pub async fn content(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = soon("the body", response.text()).await.unwrap_or_else(|e| panic!("no body: {e:?}"));
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    (status, body)
}

/// An event stream, frame by frame.
pub struct Sse {
    pub response: Response,
    buffer: String,
}

impl Sse {
    /// # Panics
    /// When the answer is not 200.
    pub async fn open(request: RequestBuilder) -> Self {
        let response = sent(request).await;
        if response.status() != 200 {
            panic!("no stream: {:?}", content(response).await);
        }
        Self { response, buffer: String::new() }
    }

    /// The next frame without its empty line, or `None` at the end.
    ///
    /// # Panics
    /// When none comes, or the stream ends within one.
    pub async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.find("\n\n") {
                let frame = self.buffer[..at].to_owned();
                self.buffer.drain(..at + 2);
                return Some(frame);
            }
            match soon("a frame", self.response.chunk()).await.unwrap_or_else(|e| panic!("the stream broke: {e:?}")) {
                Some(chunk) => self.buffer.push_str(&String::from_utf8_lossy(&chunk)),
                None => {
                    assert_eq!(self.buffer, "", "the stream ends within a frame");
                    return None;
                }
            }
        }
    }

    /// The data of the next frame.
    ///
    /// # Panics
    /// When the stream has ended, or the frame has no JSON in its data.
    pub async fn data(&mut self) -> Value {
        let Some(frame) = self.frame().await else { panic!("the stream has ended") };
        let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("no data in {frame:?}"));
        serde_json::from_str(data).unwrap_or_else(|e| panic!("no JSON in {data:?}: {e}"))
    }

    /// `7 text.delta` for each of the next frames.
    pub async fn take(&mut self, n: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..n {
            let data = self.data().await;
            all.push(format!("{} {}", data["id"], data["type"].as_str().unwrap_or_default()));
        }
        all
    }

    /// `id event` of all frames that are left, without comments.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) = self.frame().await {
            if frame.starts_with(':') {
                continue;
            }
            let field = |name: &str| frame.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
            all.push(format!("{} {}", field("id: "), field("event: ")));
        }
        all
    }
}
