//! `runmill run`: accepts a run on a running server and shows its events until it has ended. The run does not need us: a
//! connection that drops is made again and goes on after the last event that was shown.
mod client;
mod follow;
mod screen;
mod sse;

use std::{cell::Cell, net::SocketAddr, pin::pin};

use runmill_shared::{Error, ErrorKind, Result, domain::new_id};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::{client::Client, follow::Follow, screen::Screen};
use crate::{doctor, process::INTERRUPTED, settings::Settings};

#[derive(clap::Args)]
pub struct Args {
    /// What to say; without it an existing thread is followed
    #[arg(required_unless_present = "thread")]
    message: Option<String>,
    /// Where the server is [default: http:// and the platform address of the settings]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A token of POST /api/v1/auth/login, or an API key
    #[arg(long, env = "RUNMILL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The conversation to go on with [default: a new one]
    #[arg(long)]
    thread: Option<String>,
    #[arg(long)]
    agent: Option<String>,
    /// provider:name
    #[arg(long)]
    model: Option<String>,
    /// Show the events after this id
    #[arg(long, value_name = "ID", requires = "thread")]
    resume_from: Option<u64>,
    /// One event a line, as JSON
    #[arg(long)]
    json: bool,
    /// Ctrl-C cancels the run instead of leaving it to go on
    #[arg(long)]
    cancel_on_interrupt: bool,
}

pub async fn run(settings: &Settings, args: Args) -> Result<u8> {
    let server = match &args.server {
        Some(url) => url.clone(),
        None => format!("http://{}", doctor::reachable(settings.sources().get::<SocketAddr>("listen.platform")?)),
    };
    let client = Client::new(&server, args.token.as_deref()).map_err(|e| usage(format!("{server} is no server's URL: {e}")))?;
    let thread = args.thread.clone().unwrap_or_else(|| new_id().to_string());
    let accepted = match &args.message {
        None => None,
        Some(message) => match client.start(&input(&args, &thread, message)).await {
            Ok(accepted) => Some(accepted),
            Err(trouble) => return Ok(trouble.report()),
        },
    };
    let cursor = Cell::new(args.resume_from);
    let follow = Follow { client: &client, thread: &thread, run: accepted.as_ref(), cursor: &cursor };
    watch(&args, follow, Screen::new(args.json)).await
}

/// Follows until the end, or until ctrl-c.
async fn watch(args: &Args, follow: Follow<'_>, screen: Screen) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut following = pin!(follow.to_the_end(screen));
    let mut cancelling = false;
    loop {
        tokio::select! {
            code = &mut following => return Ok(code),
            _ = interrupt.recv() => {}
        }
        let Some(run) = follow.run.filter(|_| args.cancel_on_interrupt && !cancelling) else {
            eprintln!("\ndetached; the run goes on. To see the rest:\n  {}", resume(args, follow.thread, follow.cursor.get()));
            return Ok(INTERRUPTED);
        };
        cancelling = true;
        eprintln!("\ncancelling");
        if let Err(trouble) = follow.client.cancel(run).await {
            return Ok(trouble.report());
        }
    }
}

fn input(args: &Args, thread: &str, message: &str) -> serde_json::Value {
    let mut props = serde_json::Map::new();
    for (name, value) in [("agentId", &args.agent), ("model", &args.model)] {
        props.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
    }
    json!({
        "threadId": thread,
        "runId": new_id().to_string(),
        "messages": [{ "id": new_id().to_string(), "role": "user", "content": message }],
        "forwardedProps": props,
    })
}

fn resume(args: &Args, thread: &str, after: Option<u64>) -> String {
    let server = args.server.as_ref().map(|url| format!(" --server {url}")).unwrap_or_default();
    let plain = thread.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    let thread = if plain { thread.to_owned() } else { format!("'{}'", thread.replace('\'', r"'\''")) };
    let from = after.map(|id| format!(" --resume-from {id}")).unwrap_or_default();
    format!("runmill run{server} --thread {thread}{from}")
}

fn usage(message: String) -> Error {
    Error::new(ErrorKind::Invalid, "USAGE", message)
}
