//! The stock apalis-redis as its README has it: a poem front that pushes, a worker that polls. A run is calls of the model until it asks
//! for no more tools.
use anyhow::{Context, Result};
use apalis::prelude::{BackendExt, BoxDynError, ParallelizeExt, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_redis::{Config, RedisStorage};
use poem::{
    EndpointExt, Route, Server, get, handler,
    http::StatusCode,
    listener::TcpListener,
    post,
    web::{Data, Json},
};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// As its own tests have them; its default of 10 is slower.
const BATCH: usize = 100;
const POLL: Duration = Duration::from_millis(100);
const CONCURRENCY: usize = 500;
pub const QUEUE: &str = "runs";

#[derive(clap::Args, Clone)]
pub struct Args {
    #[arg(env = "REDIS_URL")]
    redis: String,
    #[arg(env = "OPENAI_BASE_URL")]
    model: String,
    #[arg(env = "LISTEN")]
    listen: SocketAddr,
}

type Storage = RedisStorage<String>;

async fn storage(args: &Args) -> Result<Storage> {
    let connection = apalis_redis::connect(args.redis.as_str()).await?;
    Ok(RedisStorage::new(connection).with_config(Config::default().queue(QUEUE).batch_size(BATCH)))
}

#[derive(Deserialize)]
struct Input {
    id: String,
    message: String,
}

#[handler]
async fn start(storage: Data<&Storage>, input: Json<Input>) -> poem::Result<Json<Value>> {
    let pushed = storage.0.clone().push(input.message.clone()).await;
    pushed.map_err(|e| poem::Error::from_string(format!("{e:?}"), StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(Json(json!({ "id": input.id })))
}

#[handler]
fn health() -> &'static str {
    "ok"
}

pub async fn front(args: Args) -> Result<()> {
    let routes = Route::new().at("/runs", post(start)).at("/health", get(health)).data(storage(&args).await?);
    Ok(Server::new(TcpListener::bind(args.listen)).run(routes).await?)
}

pub async fn worker(args: Args) -> Result<()> {
    // A name of its own: one that was seen within the last five minutes is refused.
    let name = format!("worker-{}", std::process::id());
    let (client, url) = (Client::new(), format!("{}/chat/completions", args.model));
    let task = move |message: String| {
        let (client, url) = (client.clone(), url.clone());
        async move { run(&client, &url, &message).await.map_err(BoxDynError::from) }
    };
    let storage = storage(&args).await?.poll_with_interval(POLL);
    let worker = WorkerBuilder::new(name).backend(storage).concurrency(CONCURRENCY).parallelize(crate::dispatch::spawn);
    Ok(worker.build(task).run().await?)
}

async fn run(client: &Client, url: &str, message: &str) -> Result<String> {
    let mut messages = vec![json!({ "role": "user", "content": message })];
    loop {
        let (text, calls) = ask(client, url, &messages).await?;
        if calls.is_empty() {
            return Ok(text);
        }
        let results = calls.iter().map(|call| json!({ "role": "tool", "tool_call_id": call["id"], "content": "42" }));
        let results: Vec<_> = results.collect();
        messages.push(json!({ "role": "assistant", "content": text, "tool_calls": calls }));
        messages.extend(results);
    }
}

/// One streamed answer: its text, and the calls of tools that it asks for.
async fn ask(client: &Client, url: &str, messages: &[Value]) -> Result<(String, Vec<Value>)> {
    let request = client.post(url).json(&json!({ "model": "bench", "stream": true, "messages": messages }));
    let mut response = request.send().await?.error_for_status()?;
    let (mut rest, mut text, mut calls) = (String::new(), String::new(), Vec::<Value>::new());
    while let Some(chunk) = response.chunk().await? {
        rest.push_str(std::str::from_utf8(&chunk)?);
        while let Some((frame, after)) = rest.split_once("\n\n") {
            let data = frame.strip_prefix("data: ").context("a frame without data")?;
            if data != "[DONE]" {
                let delta = serde_json::from_str::<Value>(data)?["choices"][0]["delta"].take();
                text.push_str(delta["content"].as_str().unwrap_or_default());
                gather(&mut calls, &delta);
            }
            rest = after.to_owned();
        }
    }
    Ok((text, calls))
}

fn gather(calls: &mut Vec<Value>, delta: &Value) {
    for part in delta["tool_calls"].as_array().into_iter().flatten() {
        let at = part["index"].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
        let arguments = part["function"]["arguments"].as_str().unwrap_or_default();
        if let Some(call) = calls.get_mut(at) {
            let grown = call["function"]["arguments"].as_str().unwrap_or_default().to_owned() + arguments;
            call["function"]["arguments"] = json!(grown);
        } else {
            let function = json!({ "name": part["function"]["name"], "arguments": arguments });
            calls.push(json!({ "id": part["id"], "type": "function", "function": function }));
        }
    }
}
