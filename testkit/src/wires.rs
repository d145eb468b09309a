//! Answers as other model providers stream them, for `http_server`: written from the providers' public protocols.
use serde_json::{Value, json};

use crate::http_server::Response;

/// A stream that breaks off in the middle: its chunks are never closed.
pub fn cut(whole: Response) -> Response {
    let mut body = format!("{:x}\r\n", whole.body.len()).into_bytes();
    body.extend_from_slice(&whole.body);
    body.extend_from_slice(b"\r\n");
    Response { body, ..whole }.with("transfer-encoding", "chunked")
}

/// A stream that says no more.
pub fn silent(whole: Response) -> Response {
    Response { hold: true, ..cut(whole) }
}

/// Anthropic's Messages: named server-sent events.
pub mod anthropic {
    use super::*;

    pub fn stream(events: &[Value]) -> Response {
        let frame = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
        Response::new(200, events.iter().map(frame).collect::<String>()).with("content-type", "text/event-stream")
    }

    /// Text word by word, with 5 tokens read, 20 from the cache, 3 into the cache, and one a word written.
    pub fn text(text: &str) -> Vec<Value> {
        let words: Vec<_> = text.split_inclusive(' ').collect();
        let mut events = vec![start(), json!({"type": "ping"})];
        events.push(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
        for word in &words {
            let delta = json!({"type": "text_delta", "text": word});
            events.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": 0}));
        events.extend(end("end_turn", words.len()));
        events
    }

    /// `(name, arguments)`; their fragments come one call after the other, as Anthropic sends them.
    pub fn tool_calls(calls: &[(&str, Value)]) -> Vec<Value> {
        let mut events = vec![start()];
        for (i, (name, arguments)) in calls.iter().enumerate() {
            let block = json!({"type": "tool_use", "id": format!("toolu_{i}"), "name": name, "input": {}});
            events.push(json!({"type": "content_block_start", "index": i, "content_block": block}));
            for piece in super::pieces(&arguments.to_string()) {
                let delta = json!({"type": "input_json_delta", "partial_json": piece});
                events.push(json!({"type": "content_block_delta", "index": i, "delta": delta}));
            }
            events.push(json!({"type": "content_block_stop", "index": i}));
        }
        events.extend(end("tool_use", 9));
        events
    }

    fn start() -> Value {
        let usage = json!({
            "input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 1,
        });
        json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-scripted", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        }})
    }

    fn end(reason: &str, output: usize) -> [Value; 2] {
        let delta = json!({"stop_reason": reason, "stop_sequence": null});
        [json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}), json!({"type": "message_stop"})]
    }

    /// `529` and the like, and in the middle of a stream.
    pub fn error(kind: &str, message: &str) -> Value {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    }
}

/// Gemini's `streamGenerateContent?alt=sse`.
pub mod gemini {
    use super::*;

    pub fn stream(chunks: &[Value]) -> Response {
        let frame = |chunk: &Value| format!("data: {chunk}\r\n\r\n");
        Response::new(200, chunks.iter().map(frame).collect::<String>()).with("content-type", "text/event-stream")
    }

    /// Text word by word, with 28 tokens read, 20 of them from the cache, and one a word written, and 4 thought.
    pub fn text(text: &str) -> Vec<Value> {
        let words: Vec<_> = text.split_inclusive(' ').collect();
        let mut chunks: Vec<_> = words.iter().map(|word| chunk(json!([{"text": word}]))).collect();
        finish(&mut chunks, "STOP", words.len());
        chunks
    }

    /// All in one chunk, whole, as Gemini sends them.
    pub fn tool_calls(calls: &[(&str, Value)]) -> Vec<Value> {
        let part = |(name, args): &(&str, Value)| json!({"functionCall": {"name": name, "args": args}});
        let mut chunks = vec![chunk(calls.iter().map(part).collect())];
        finish(&mut chunks, "STOP", 9);
        chunks
    }

    fn chunk(parts: Value) -> Value {
        json!({
            "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
            "modelVersion": "gemini-scripted", "responseId": "r1",
        })
    }

    fn finish(chunks: &mut [Value], reason: &str, output: usize) {
        if let Some(last) = chunks.last_mut() {
            last["candidates"][0]["finishReason"] = json!(reason);
            last["usageMetadata"] = json!({
                "promptTokenCount": 28, "cachedContentTokenCount": 20, "candidatesTokenCount": output, "thoughtsTokenCount": 4,
                "totalTokenCount": 32 + output,
            });
        }
    }

    /// A body of a refusal, and of a chunk.
    pub fn error(code: u16, status: &str, message: &str) -> Value {
        json!({"error": {"code": code, "message": message, "status": status}})
    }
}

/// Ollama's `/api/chat`: one JSON record a line.
pub mod ollama {
    use super::*;

    pub fn stream(records: &[Value]) -> Response {
        let body: String = records.iter().map(|record| format!("{record}\n")).collect();
        Response::new(200, body).with("content-type", "application/x-ndjson")
    }

    /// Text word by word, with 28 tokens read and one a word written.
    pub fn text(text: &str) -> Vec<Value> {
        let words: Vec<_> = text.split_inclusive(' ').collect();
        let mut records: Vec<_> = words.iter().map(|word| record(json!({"role": "assistant", "content": word}))).collect();
        records.push(done(words.len()));
        records
    }

    /// A record a call, whole, as Ollama sends them.
    pub fn tool_calls(calls: &[(&str, Value)]) -> Vec<Value> {
        let call = |(name, arguments): &(&str, Value)| {
            let calls = json!([{"function": {"name": name, "arguments": arguments}}]);
            record(json!({"role": "assistant", "content": "", "tool_calls": calls}))
        };
        calls.iter().map(call).chain([done(9)]).collect()
    }

    fn record(message: Value) -> Value {
        json!({"model": "qwen-scripted", "created_at": "2026-07-01T00:00:00Z", "message": message, "done": false})
    }

    fn done(output: usize) -> Value {
        json!({
            "model": "qwen-scripted", "created_at": "2026-07-01T00:00:00Z", "message": {"role": "assistant", "content": ""},
            "done": true, "done_reason": "stop", "total_duration": 1, "prompt_eval_count": 28, "eval_count": output,
        })
    }
}

/// Fragments of a few characters.
fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    characters.chunks(5).map(|piece| piece.iter().collect()).collect()
}
