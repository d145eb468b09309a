use poem::{Body, Response, http::StatusCode};
use serde_json::{Map, Value, json};

use super::{Answering, Reply, Request, reply::Step};

/// The answer to one request, streamed or whole.
pub(super) async fn answer(reply: Reply, request: &Request, mut answering: Answering) -> Response {
    if let Some(silence) = reply.silence {
        tokio::time::sleep(silence).await;
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut head = Response::builder().status(status);
    if let Some(seconds) = &reply.retry_after {
        head = head.header("retry-after", seconds);
    }
    if let Some(refusal) = reply.refusal {
        answering.finish();
        return head.content_type("application/json").body(refusal.to_string());
    }
    if !request.streams() {
        let whole = whole(&reply, request).await;
        answering.finish();
        return match whole {
            Ok(body) => head.content_type("application/json").body(body.to_string()),
            Err(body) => Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(body.to_string()),
        };
    }
    let head = head.content_type("text/event-stream").header("cache-control", "no-cache");
    head.body(Body::from_bytes_stream(stream(reply, request.clone(), answering)))
}

fn usage(reply: &Reply) -> Value {
    let (input, output) = reply.usage;
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

type Bytes = Result<String, std::io::Error>;

fn stream(reply: Reply, request: Request, answering: Answering) -> impl futures::Stream<Item = Bytes> {
    let steps = reply.steps.clone().into_iter();
    let start = (steps, answering, false);
    futures::stream::unfold(start, move |(mut steps, mut answering, began)| {
        let (reply, request) = (reply.clone(), request.clone());
        async move {
            // hyper writes what it has when a body is pending: so each chunk goes out on its own, and before a cut.
            if began {
                tokio::task::yield_now().await;
            }
            loop {
                let Some(step) = steps.next() else {
                    answering.finish();
                    return None;
                };
                match step {
                    Step::Hold(gate) => gate.opened().await,
                    Step::Cut => {
                        answering.finish();
                        return Some((Err(std::io::Error::other("cut")), (steps, answering, true)));
                    }
                    Step::Usage if !request.wants_usage() => {}
                    step => {
                        if let Some(delay) = reply.delay {
                            tokio::time::sleep(delay).await;
                        }
                        return Some((Ok(frame(step, &reply, &request)), (steps, answering, true)));
                    }
                }
            }
        }
    })
}

fn frame(step: Step, reply: &Reply, request: &Request) -> String {
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0, "model": request.model(),
            "choices": choices, "usage": usage,
        })
    };
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    let data = match step {
        Step::Delta(delta) => chunk(choice(delta, Value::Null), Value::Null).to_string(),
        Step::Finish(reason) => chunk(choice(json!({}), json!(reason)), Value::Null).to_string(),
        Step::Usage => chunk(json!([]), usage(reply)).to_string(),
        Step::Frame(value) => value.to_string(),
        Step::Done | Step::Hold(_) | Step::Cut => "[DONE]".to_owned(),
    };
    format!("data: {data}\n\n")
}

/// The same script as one `chat.completion`; a step that only a stream can take makes it fail, with that step's error if it has one.
async fn whole(reply: &Reply, request: &Request) -> Result<Value, Value> {
    let mut message = Map::from_iter([("role".to_owned(), json!("assistant")), ("content".to_owned(), Value::Null)]);
    let mut finish = None;
    for step in &reply.steps {
        // It takes as long as its stream would.
        if let (Some(delay), false) = (reply.delay, matches!(step, Step::Hold(_) | Step::Cut)) {
            tokio::time::sleep(delay).await;
        }
        match step {
            Step::Delta(delta) => merge(&mut message, delta),
            Step::Finish(reason) => finish = Some(*reason),
            Step::Hold(gate) => gate.opened().await,
            Step::Frame(error) => return Err(error.clone()),
            Step::Cut => return Err(json!({"error": {"message": "scripted cut", "type": "server_error"}})),
            Step::Usage | Step::Done => {}
        }
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    Ok(json!({
        "id": "chatcmpl-scripted", "object": "chat.completion", "created": 0, "model": request.model(),
        "choices": [choice], "usage": usage(reply),
    }))
}

/// Strings grow; the fragments of a call find it by `index`, or continue the last.
fn merge(message: &mut Map<String, Value>, delta: &Value) {
    for (key, value) in delta.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => {
                let grown = message.get(key).and_then(Value::as_str).unwrap_or_default().to_owned() + text;
                message.insert(key.clone(), Value::String(grown));
            }
            Value::Array(fragments) => {
                let calls = message.entry(key.clone()).or_insert_with(|| json!([]));
                fragments.iter().for_each(|fragment| merge_call(calls, fragment));
            }
            _ => {}
        }
    }
}

fn merge_call(calls: &mut Value, fragment: &Value) {
    let Some(calls) = calls.as_array_mut() else { return };
    if fragment.get("id").is_some() {
        calls.push(fragment.clone());
        return;
    }
    let at = fragment["index"].as_u64().and_then(|i| usize::try_from(i).ok()).unwrap_or(calls.len().saturating_sub(1));
    if let Some(arguments) = calls.get_mut(at).map(|call| &mut call["function"]["arguments"]) {
        let grown = arguments.as_str().unwrap_or_default().to_owned();
        *arguments = json!(grown + fragment["function"]["arguments"].as_str().unwrap_or_default());
    }
}
