//! The model behind all runs of the laboratory: what it answers follows from the conversation alone, so that a run that is taken over
//! goes on as it began.
use std::time::Duration;

use anyhow::Result;
use runmill_testkit::model_server::{ModelServer, Reply, Request};
use serde_json::json;

/// Between two words of an answer.
const PACE: Duration = Duration::from_millis(15);

pub struct Model {
    pub server: ModelServer,
}

impl Model {
    /// `tools` is the URL that its tool calls go to.
    pub async fn start(tools: String) -> Result<Self> {
        Ok(Self { server: ModelServer::with(move |request| answer(request, &tools)).await? })
    }
}

/// What a client says to have `calls` tool calls made before the answer, which has `words` words.
pub fn wish(run: &str, calls: usize, words: usize) -> String {
    format!("{run} calls={calls} words={words}")
}

fn answer(request: &Request, tools: &str) -> Reply {
    let user = request.user();
    // The wish of a run that was cancelled before its answer may stand before this one's, in one message: the last one counts.
    let number = |name: &str| user.split_whitespace().rev().find_map(|word| word.strip_prefix(name)?.parse::<usize>().ok());
    let (calls, words) = (number("calls=").unwrap_or(0), number("words=").unwrap_or(12));
    if request.tool_results().len() < calls {
        return Reply::tool_calls([("http_request", json!({"method": "POST", "url": tools, "body": "{}"}))]);
    }
    let words: Vec<_> = (0..words).map(|n| format!("word{n}")).collect();
    Reply::text(&words.join(" ")).delay_per_token(PACE)
}
