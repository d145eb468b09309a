//! What durability costs an agent: model and tool calls against a model that answers at once, and many runs at once against one
//! that streams for two seconds. The baseline does the same calls in a plain asyncio loop, and remembers nothing.
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use runmill_testkit::model_server::{ModelServer, Reply, Request};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet, time::sleep};

use crate::{
    http::{Connection, Events},
    load::quantile,
    process::{memory, share},
    system::{Services, System, events, start_run},
    table::{self, ms, percent, ratio},
};

/// The baseline, in Python.
const LOOP: &str = include_str!("../python/asyncio_loop.py");
/// Where `make bench` puts a Python that has httpx.
const PYTHON: &str = "target/bench-venv/bin/python";

/// Runs of each shape, one by one.
const RUNS: usize = 60;
/// Calls of a long run.
const CALLS: usize = 8;
/// Runs at once.
const CROWD: usize = 500;
const WORDS: usize = 20;
/// Before each chunk of the slow model's answer: the words, a finish reason, usage and the end.
const PAUSE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// What a run is made of; its name is the user's message.
const SHAPES: [&str; 3] = ["answer", "steps", "parallel"];

fn respond(request: &Request) -> Reply {
    let call = |_| ("calculator", json!({ "expression": "6*7" }));
    let done = request.tool_results().len();
    match request.user().as_str() {
        "steps" if done < CALLS => Reply::tool_calls([call(0)]),
        "parallel" if done == 0 => Reply::tool_calls((0..CALLS).map(call)),
        "slow" => Reply::text(&"word ".repeat(WORDS)).delay_per_token(PAUSE),
        _ => Reply::text("42"),
    }
}

pub async fn run(services: &Services) -> Result<()> {
    let model = ModelServer::with(respond).await?;
    let python = Path::new(PYTHON).exists();
    if !python {
        println!("\nagents: no {PYTHON} with httpx, so the baseline is missing; `make bench` sets it up");
    }
    overhead(services, &model, python).await?;
    crowd(services, &model, python).await
}

fn settings(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("OPENAI_BASE_URL", url),
        ("OPENAI_API_KEY", "sk-bench"),
        ("RUNMILL_MODEL", "openai:bench"),
        ("RUNMILL_LANES__RUNS", "500"),
    ]
}

/// Seconds of a run of each shape, the median.
type Shapes = [f64; 3];

async fn overhead(services: &Services, model: &ModelServer, python: bool) -> Result<()> {
    let url = model.base_url();
    let mut rows = Vec::new();
    let base = if python { Some(asyncio_shapes(&url).await?) } else { None };
    if let Some(base) = base {
        rows.push(row("asyncio and httpx, nothing kept", base, base));
    }
    let embedded = shapes(&System::embedded(&settings(&url)).await?).await?;
    rows.push(row("embedded", embedded, base.unwrap_or(embedded)));
    let distributed = shapes(&System::distributed(services, 1, &settings(&url)).await?).await?;
    rows.push(row("api and worker on Postgres and Redis", distributed, base.unwrap_or(distributed)));
    let title = format!(
        "agents: {RUNS} runs one by one, a model that answers at once; the median of one answer, and from runs of {CALLS} calls what each \
         further call adds"
    );
    let header = ["", "one answer", "model call and tool call", "of asyncio", "tool call in parallel"];
    table::print(&title, &header, &rows);
    Ok(())
}

fn row(name: &str, [answer, steps, parallel]: Shapes, base: Shapes) -> Vec<String> {
    let calls = CALLS as f64;
    let pair = |[answer, steps, _]: Shapes| (steps - answer) / calls;
    // A second model call, and then the tools.
    let tool = ((parallel - answer) - pair([answer, steps, parallel])) / (calls - 1.0);
    let own = pair([answer, steps, parallel]);
    vec![name.to_owned(), ms(answer), ms(own), ratio(own, pair(base)), ms(tool.max(0.0))]
}

async fn shapes(system: &System) -> Result<Shapes> {
    let mut medians = [0.0; 3];
    for (shape, median) in SHAPES.iter().zip(&mut medians) {
        let mut seconds = Vec::new();
        for n in 0..RUNS {
            seconds.push(one(system.address, shape, n).await?);
        }
        seconds.sort_by(f64::total_cmp);
        *median = quantile(&seconds, 0.5);
    }
    system.none_failed().await?;
    Ok(medians)
}

/// From the request to the run's end as its reader sees it.
async fn one(address: SocketAddr, shape: &str, n: usize) -> Result<f64> {
    let thread = format!("{shape}-{n}");
    let (mut connection, reader) = (Connection::open(address).await?, Connection::open(address).await?);
    let start = Instant::now();
    connection.send(&start_run(&thread, &thread, shape, "{}")).await?;
    let mut stream: Events = reader.follow(&events(&thread)).await?.context("a stream")?;
    while let Some(frame) = stream.next().await? {
        if frame.kind == "run.finished" {
            return Ok(start.elapsed().as_secs_f64());
        }
    }
    anyhow::bail!("{thread} did not finish")
}

async fn crowd(services: &Services, model: &ModelServer, python: bool) -> Result<()> {
    let url = model.base_url();
    let ideal = PAUSE.as_secs_f64() * (WORDS + 3) as f64;
    let mut rows = Vec::new();
    if python {
        let told = asyncio(&url, &["crowd", &CROWD.to_string()]).await?;
        let (seconds, peak) = (number(&told, "seconds")?, number(&told, "peak_bytes")?);
        rows.push(crowd_row("asyncio and httpx, nothing kept", seconds, ideal, peak, number(&told, "cpu")?));
    }
    for (name, system) in [
        ("embedded", System::embedded(&settings(&url)).await?),
        ("api and 1 worker on Postgres and Redis", System::distributed(services, 1, &settings(&url)).await?),
    ] {
        let before = system.cpu()?;
        let seconds = all_at_once(&system).await?;
        let peak = system.processes.iter().filter_map(|p| p.pid()).map(|pid| memory(pid).map(|m| m.peak));
        let peak = peak.sum::<Result<u64>>()? as f64;
        rows.push(crowd_row(name, seconds, ideal, peak, system.cpu()? - before));
    }
    let title = format!("agents: {CROWD} runs at once on one worker, a model that streams {WORDS} words in {ideal:.1} s");
    table::print(&title, &["", "until the last has ended", "of ideal", "memory at its peak", "of all processors"], &rows);
    Ok(())
}

fn crowd_row(name: &str, seconds: f64, ideal: f64, peak: f64, cpu: f64) -> Vec<String> {
    let megabytes = format!("{:.0} MB", peak / 1e6);
    vec![name.to_owned(), format!("{seconds:.2} s"), ratio(seconds, ideal), megabytes, percent(share(cpu, seconds))]
}

async fn all_at_once(system: &System) -> Result<f64> {
    static CROWDS: AtomicUsize = AtomicUsize::new(0);
    let crowd = CROWDS.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CROWD {
        let (address, name) = (system.address, format!("crowd-{crowd}-{n}"));
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            connection.send(&start_run(&name, &name, "slow", "{}")).await?;
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let mut connection = Connection::open(system.address).await?;
    for state in ["queued", "running"] {
        while system.has(&mut connection, state).await? {
            ensure!(start.elapsed() < LIMIT, "runs were still {state} after {LIMIT:?}");
            sleep(LOOK).await;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    system.none_failed().await?;
    Ok(seconds)
}

async fn asyncio_shapes(url: &str) -> Result<Shapes> {
    let mut medians = [0.0; 3];
    for (shape, median) in SHAPES.iter().zip(&mut medians) {
        *median = number(&asyncio(url, &["shape", shape, &RUNS.to_string()]).await?, "median")?;
    }
    Ok(medians)
}

/// Runs the baseline; what it measured is one line of JSON.
async fn asyncio(url: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(PYTHON);
    command.args(["-c", LOOP, url]).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.context("the baseline took too long")??;
    ensure!(output.status.success(), "the baseline failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the baseline's figures")
}

fn number(told: &Value, name: &str) -> Result<f64> {
    told[name].as_f64().with_context(|| format!("the baseline told no {name}"))
}
