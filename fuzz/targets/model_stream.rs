//! What a provider streams, each wire in its turn: a byte for the provider, and the body that its server answers with.
#![no_main]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use futures::StreamExt;
use libfuzzer_sys::fuzz_target;
use runmill_fuzz::{app, runtime};
use runmill_shared::{
    config::Secret,
    domain::{
        chat::{ChatMessage, ModelResponse},
        model::{Provider, Target},
    },
};
use runmill_worker::models::{ChatModel, ChatRequest, ModelEvent, model};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PROVIDERS: [Provider; 5] = [Provider::Openai, Provider::Anthropic, Provider::Gemini, Provider::Deepseek, Provider::Ollama];

/// The body of the next answers.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn models() -> &'static [Arc<dyn ChatModel>] {
    static MODELS: OnceLock<Vec<Arc<dyn ChatModel>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let address = runtime().block_on(serve());
        let target = |provider| Target {
            provider,
            name: "m".to_owned(),
            base_url: Some(format!("http://{address}")),
            key: Secret::default(),
            guarded: false,
            temperature: None,
            max_tokens: None,
            prices: None,
        };
        PROVIDERS.into_iter().map(|provider| model(&app().config, &target(provider)).unwrap()).collect()
    })
}

async fn serve() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
    address
}

/// Answers each request of a connection that is kept alive.
async fn connection(mut stream: TcpStream) -> Option<()> {
    let (mut got, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let head = loop {
            if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let count = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            got.extend_from_slice(&buffer[..count]);
        };
        let length = String::from_utf8_lossy(&got[..head]).to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        while got.len() < head + length.unwrap_or(0) {
            let count = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            got.extend_from_slice(&buffer[..count]);
        }
        got.clear();
        let body = ANSWER.lock().unwrap().clone();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((provider, body)) = data.split_first() else { return };
    let models = models();
    body.clone_into(&mut ANSWER.lock().unwrap());
    let model = &models[usize::from(*provider) % models.len()];
    runtime().block_on(async {
        let request = ChatRequest { messages: vec![ChatMessage::user("hi")], ..ChatRequest::default() };
        let mut stream = model.stream(&request).await.unwrap();
        let (mut text, mut calls, mut ended) = (String::new(), BTreeMap::<String, String>::new(), false);
        while let Some(event) = stream.next().await {
            assert!(!ended, "{}: something after the end", model.name());
            match event {
                Ok(ModelEvent::TextDelta(delta)) => text.push_str(&delta),
                Ok(ModelEvent::ReasoningDelta(_)) => {}
                Ok(ModelEvent::ToolCallStarted { id, .. }) => {
                    assert!(calls.insert(id.clone(), String::new()).is_none(), "{}: {id} began twice", model.name());
                }
                Ok(ModelEvent::ToolCallDelta { id, delta }) => {
                    calls.get_mut(&id).unwrap_or_else(|| panic!("{}: {id} has not begun", model.name())).push_str(&delta);
                }
                Ok(ModelEvent::Done(answer)) => {
                    ended = true;
                    whole(&answer, &text, &calls);
                }
                Err(_) => ended = true,
            }
        }
        assert!(ended, "{}: neither an answer nor an error", model.name());
    });
});

/// The deltas are the answer.
fn whole(answer: &ModelResponse, text: &str, calls: &BTreeMap<String, String>) {
    assert_eq!(answer.message_text, text);
    for call in &answer.tool_calls {
        assert!(calls.contains_key(&call.id), "a call that never began: {call:?} among {calls:?}");
    }
}
