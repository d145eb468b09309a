//! The model behind all runs of a scenario. A run says who it is in the first word of its message, and a task's by its title, so that
//! the calls of each can be counted.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use runmill_testkit::model_server::{ModelServer, Reply};

/// One model call, as the script sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// How many answers of this run came before.
    pub iteration: usize,
    /// How many times this very call was made before.
    pub again: usize,
}

type Counts = Arc<Mutex<HashMap<(String, usize), usize>>>;

pub struct Model {
    pub server: ModelServer,
    counts: Counts,
}

impl Model {
    pub async fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let counts = Counts::default();
        let seen = counts.clone();
        let respond = move |request: &runmill_testkit::model_server::Request| {
            let run = name(&request.user());
            let iteration = request.tool_results().len();
            let mut seen = seen.lock().unwrap();
            let calls = seen.entry((run, iteration)).or_default();
            let call = Call { iteration, again: *calls };
            *calls += 1;
            script(&call)
        };
        Self { server: ModelServer::with(respond).await.unwrap(), counts }
    }

    /// How often the call of that iteration was made.
    pub fn calls(&self, run: &str, iteration: usize) -> usize {
        self.counts.lock().unwrap().get(&(run.to_owned(), iteration)).copied().unwrap_or(0)
    }

    /// Waits until so many calls came, those of all runs together.
    pub async fn called(&self, times: usize) {
        self.server.until(|counts| counts.received >= times).await.unwrap();
    }
}

fn name(message: &str) -> String {
    let task = message.lines().find_map(|line| line.strip_prefix("# Your task: "));
    task.or(message.split_whitespace().next()).unwrap_or_default().to_owned()
}

/// An answer of `n` words.
pub fn words(n: usize) -> Reply {
    let words: Vec<_> = (0..n).map(|i| format!("w{i}")).collect();
    Reply::text(&words.join(" "))
}
