//! The model behind all runs of the laboratory: what it answers follows from the conversation alone, so that a run that is taken over
//! goes on as it began. Only whether a run that is to fail does so still, its client decides.
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use runmill_testkit::model_server::{ModelServer, Reply, Request};
use serde_json::json;

/// Between two words of an answer.
const PACE: Duration = Duration::from_millis(15);

/// Names of the runs that were to fail, and may succeed from now on.
#[derive(Clone, Default)]
pub struct Forgiven(Arc<Mutex<HashSet<String>>>);

impl Forgiven {
    pub fn add(&self, run: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run.to_owned());
    }

    fn has(&self, run: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(run)
    }
}

pub struct Model {
    pub server: ModelServer,
    pub forgiven: Forgiven,
}

impl Model {
    /// `tools` is the URL that its tool calls go to.
    pub async fn start(tools: String) -> Result<Self> {
        let forgiven = Forgiven::default();
        let known = forgiven.clone();
        Ok(Self { server: ModelServer::with(move |request| answer(request, &tools, &known)).await?, forgiven })
    }
}

/// What a client wants a run to do: first the questions to a person, then the tool calls, then an answer of so many words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    pub asks: usize,
    pub calls: usize,
    pub words: usize,
    /// There is no answer until the run is forgiven.
    pub fails: bool,
}

impl Wish {
    pub fn of(&self, run: &str) -> String {
        let fails = if self.fails { run } else { "" };
        format!("asks={} calls={} words={} fails={fails}", self.asks, self.calls, self.words)
    }
}

fn answer(request: &Request, tools: &str, forgiven: &Forgiven) -> Reply {
    let user = request.user();
    // The wish of a run that was cancelled before its answer may stand before this one's, in one message: the last one counts.
    let told = |name: &str| user.split_whitespace().rev().find_map(|word| word.strip_prefix(name));
    let number = |name: &str| told(name).and_then(|n| n.parse::<usize>().ok());
    let (asks, calls, words) = (number("asks=").unwrap_or(0), number("calls=").unwrap_or(0), number("words=").unwrap_or(12));
    let done = request.tool_results().len();
    if done < asks {
        return Reply::tool_calls([("ask_human", json!({"question": "May it go on?"}))]);
    }
    if told("fails=").is_some_and(|run| !run.is_empty() && !forgiven.has(run)) && done >= asks + calls {
        return Reply::status(400);
    }
    if done < asks + calls {
        return Reply::tool_calls([("http_request", json!({"method": "POST", "url": tools, "body": "{}"}))]);
    }
    let words: Vec<_> = (0..words).map(|n| format!("word{n}")).collect();
    Reply::text(&words.join(" ")).delay_per_token(PACE)
}
