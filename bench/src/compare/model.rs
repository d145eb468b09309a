//! The fake model of all peers, and what it remembers of each run: that is the judge of what was lost and what was paid twice.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use runmill_testkit::model_server::{ModelServer, Reply, Request};
use serde_json::json;

/// The last call of a slow run: so many words, each after the pause, as are the finish reason, the usage and the end.
const WORDS: usize = 17;
const PAUSE: Duration = Duration::from_millis(100);

/// What a run is made of. The user's message is the shape and the run's own name.
#[derive(Clone, Copy)]
pub enum Shape {
    /// One call of five words, at once.
    Quick,
    /// One call of two seconds.
    Slow,
    /// A call that asks for a tool, and then one of two seconds.
    Steps,
}

impl Shape {
    pub fn message(self, run: &str) -> String {
        let shape = match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
            Self::Steps => "steps",
        };
        format!("{shape} {run}")
    }
}

/// One call of one run: its name, and how many results of tools it had before.
type Call = (String, usize);

#[derive(Clone, Default)]
struct Calls {
    begun: usize,
    finished: usize,
}

#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<HashMap<Call, Calls>>>);

impl Tally {
    fn change(&self, call: &Call, change: impl FnOnce(&mut Calls)) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(calls.entry(call.clone()).or_default());
    }

    /// How many runs whose name begins so have been asked for their call after the tool.
    pub fn at_last_call(&self, prefix: &str) -> usize {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.keys().filter(|(run, step)| *step == 1 && run.starts_with(prefix)).count()
    }

    /// How many runs whose name begins so had a call answered to its end more than once.
    pub fn doubled(&self, prefix: &str) -> usize {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = calls.iter().filter(|((run, _), calls)| calls.finished > 1 && run.starts_with(prefix));
        twice.map(|((run, _), _)| run).collect::<std::collections::HashSet<_>>().len()
    }

    /// Calls that were begun and answered to their end by runs whose name begins so.
    pub fn calls(&self, prefix: &str) -> (usize, usize) {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = calls.iter().filter(|((run, _), _)| run.starts_with(prefix));
        of.fold((0, 0), |(begun, finished), (_, calls)| (begun + calls.begun, finished + calls.finished))
    }

    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The server, and what it is going to know.
pub async fn start() -> Result<(ModelServer, Tally)> {
    let tally = Tally::default();
    let judge = tally.clone();
    let server = ModelServer::with(move |request| respond(request, &judge)).await?;
    server.keep_no_requests();
    Ok((server, tally))
}

fn respond(request: &Request, tally: &Tally) -> Reply {
    let message = request.user();
    let (shape, run) = message.split_once(' ').unwrap_or_default();
    let call = (run.to_owned(), request.tool_results().len());
    tally.change(&call, |calls| calls.begun += 1);
    let reply = match (shape, call.1) {
        ("steps", 0) => Reply::tool_calls([("calculator", json!({ "expression": "6*7" }))]),
        ("steps" | "slow", _) => Reply::text(&"word ".repeat(WORDS)).delay_per_token(PAUSE),
        _ => Reply::text("The answer is forty two."),
    };
    let tally = tally.clone();
    reply.then(move || tally.change(&call, |calls| calls.finished += 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(tally: &Tally, run: &str, step: usize, finished: bool) {
        tally.change(&(run.to_owned(), step), |calls| {
            calls.begun += 1;
            calls.finished += usize::from(finished);
        });
    }

    #[test]
    fn a_call_that_is_answered_twice_is_doubled_and_one_that_was_broken_off_is_not() {
        let tally = Tally::default();
        for (run, step, finished) in [
            ("kill-1", 0, true),
            ("kill-1", 1, false),
            ("kill-1", 1, true),
            ("kill-2", 0, true),
            ("kill-2", 0, true),
            ("other", 0, true),
        ] {
            ask(&tally, run, step, finished);
        }
        assert_eq!(tally.doubled("kill-"), 1);
        assert_eq!(tally.doubled("kill-1"), 0);
        assert_eq!(tally.calls("kill-"), (5, 4));
        assert_eq!(tally.at_last_call("kill-"), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_read_to_its_end_is_told_as_finished() {
        let (server, tally) = start().await.unwrap();
        let client = reqwest::Client::new();
        let body = json!({ "stream": true, "messages": [{ "role": "user", "content": Shape::Quick.message("one") }] });
        let answer = client.post(format!("{}/chat/completions", server.base_url())).json(&body).send().await.unwrap();
        assert!(answer.text().await.unwrap().ends_with("[DONE]\n\n"));
        server.until(|counts| counts.finished == 1).await.unwrap();
        assert_eq!(tally.calls("one"), (1, 1));
    }
}
