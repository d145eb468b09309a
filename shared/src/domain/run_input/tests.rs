use serde_json::{Value, json};

use super::*;
use crate::domain::message::{MessagePart, MessageRole, PartKind, Source};

const LIMITS: InputLimits = InputLimits { max_messages: 20 };

fn parse(body: &Value) -> Result<RunInput> {
    RunInput::parse(body, &LIMITS)
}

/// A message of every role, parts of every kind, every option.
fn full() -> Value {
    json!({
        "threadId": "t1", "runId": "r1", "protocolVersion": "1.0", "parentRunId": "r0", "unknown": { "x": 1 },
        "state": { "n": 1 },
        "messages": [
            { "id": "m1", "role": "system", "content": "Be brief." },
            { "id": "m2", "role": "developer", "content": "Use tools." },
            { "id": "m3", "role": "user", "name": "Ann", "content": [
                { "type": "text", "text": "See" },
                { "type": "image", "source": { "type": "url", "value": "https://example.com/a.png" } },
                { "type": "audio", "source": { "type": "data", "value": "AAAA", "mimeType": "audio/wav" } },
                { "type": "document", "source": { "bucket": "b", "path": "u/t/1-a.pdf" } },
                { "type": "binary", "mimeType": "application/zip", "data": "UEs=", "filename": "a.zip" },
                { "type": "binary", "mimeType": "image/png", "url": "data:image/gif;base64,R0lG" },
            ] },
            { "id": "m4", "role": "assistant", "content": null, "toolCalls": [
                { "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{}" } },
            ] },
            { "id": "m5", "role": "tool", "toolCallId": "c1", "content": "seen", "error": "half" },
            { "id": "m6", "role": "reasoning", "content": "Hm." },
            { "id": "m7", "role": "activity", "activityType": "PLAN", "content": { "steps": [] } },
            { "id": "m8", "role": "user", "content": "And?" },
        ],
        "tools": [{ "name": "get.x-1_y", "description": "d", "parameters": { "type": "object" } }, { "name": "b", "description": "" }],
        "context": [{ "description": "place", "value": "Bern" }],
        "resume": [{ "interruptId": "i1", "status": "resolved", "payload": 1 }],
        "forwardedProps": {
            "agentId": "a1", "model": "m", "priority": "high", "runAt": "2026-03-16T10:00:00+01:00", "multitask": "interrupt", "own": true,
        },
    })
}

#[test]
fn everything_that_the_protocol_allows_is_read() {
    let input = parse(&full()).unwrap();
    assert_eq!((input.thread_id.as_str(), input.run_id.as_str()), ("t1", "r1"));
    assert_eq!(input.parent_run_id.as_deref(), Some("r0"));
    assert_eq!(input.state, Some(json!({ "n": 1 })));
    assert_eq!(input.messages.iter().map(|m| m.role).collect::<Vec<_>>(), {
        use MessageRole as R;
        [R::System, R::Developer, R::User, R::Assistant, R::Tool, R::Reasoning, R::Activity, R::User]
    });
    let media = |kind, mime: Option<&str>, source| MessagePart::Media { kind, mime_type: mime.map(Into::into), source };
    let data = |base64: &str| Source::Data { base64: base64.into() };
    assert_eq!(
        input.messages[2].body.parts,
        [
            MessagePart::Text { text: "See".into() },
            media(PartKind::Image, None, Source::Url { url: "https://example.com/a.png".into() }),
            media(PartKind::Audio, Some("audio/wav"), data("AAAA")),
            media(PartKind::Document, None, Source::Attachment { bucket: "b".into(), path: "u/t/1-a.pdf".into() }),
            media(PartKind::Binary, Some("application/zip"), data("UEs=")),
            media(PartKind::Image, Some("image/gif"), data("R0lG")),
        ]
    );
    assert!(input.messages[3].body.parts.is_empty());
    assert_eq!(input.messages[3].body.tool_calls[0].name, "look");
    let tool = &input.messages[4].body;
    assert_eq!((tool.tool_call_id.as_deref(), tool.error.as_deref()), (Some("c1"), Some("half")));
    assert_eq!(input.messages[6].body.ui_schema.as_ref().unwrap()["activityType"], "PLAN");
    assert_eq!(input.tools[1].parameters, json!({ "type": "object" }));
    assert_eq!(input.context[0].value, "Bern");
    assert_eq!(input.forwarded_props["own"], true);
    assert_eq!(
        input.options,
        RunOptions {
            agent_version: 0,
            agent_id: Some("a1".into()),
            model: Some("m".into()),
            priority: Priority::High,
            run_at: Some(Timestamp(1_773_651_600_000_000)),
            multitask: Multitask::Interrupt,
            goal_id: None,
        }
    );
}

#[test]
fn the_smallest_body_is_enough_and_nulls_are_absent_fields() {
    let least = parse(&json!({ "threadId": "t", "runId": "r", "messages": [] })).unwrap();
    let nulls = parse(&json!({
        "threadId": "t", "runId": "r", "messages": [], "state": null, "tools": null, "context": null, "forwardedProps": null,
        "parentRunId": null, "resume": null, "protocolVersion": null,
    }));
    assert_eq!(nulls.unwrap(), least);
    assert_eq!((&least.forwarded_props, &least.options), (&Value::Null, &RunOptions::default()));
}

#[test]
fn it_is_stored_and_read_back_as_it_was() {
    let input = parse(&full()).unwrap();
    let stored = serde_json::to_string(&input).unwrap();
    assert_eq!(serde_json::from_str::<RunInput>(&stored).unwrap(), input);
}

/// Puts `value` at `path` of a good body and expects exactly `bad` to be named, in this order.
fn refused(path: &str, value: Value, bad: &[&str]) {
    let mut body = full();
    *body.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
    let error = parse(&body).expect_err(&format!("{path} = {value}"));
    assert_eq!(error.kind, crate::error::ErrorKind::Invalid);
    assert_eq!(error.fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), bad, "{path} = {value}: {error}");
}

#[test]
fn bad_envelopes_name_the_field() {
    refused("", json!([]), &["body"]);
    refused("", json!({}), &["threadId", "runId", "messages"]);
    refused("", json!({ "threadId": "", "runId": 7, "messages": {} }), &["threadId", "runId", "messages"]);
    refused("/threadId", json!("x".repeat(129)), &["threadId"]);
    refused("/runId", json!("a\u{0}b"), &["runId"]);
    refused("/messages", json!(null), &["messages"]);
    refused("/messages", json!(vec![json!(0); 21]), &["messages"]);
    refused("/messages", json!(["x", null]), &["messages.0", "messages.1"]);
    refused("/parentRunId", json!(""), &["parentRunId"]);
    refused("/protocolVersion", json!(1.0), &["protocolVersion"]);
    refused("/tools", json!("x"), &["tools"]);
    refused("/tools", json!(vec![json!({ "name": "n", "description": "" }); 129]), &["tools"]);
    refused("/tools/0", json!({}), &["tools.0.name", "tools.0.description"]);
    refused("/tools/0/name", json!("b"), &["tools.1.name"]);
    for name in ["", "a b", "ä", &"n".repeat(65)] {
        refused("/tools/0/name", json!(name), &["tools.0.name"]);
    }
    refused("/tools/0/parameters", json!("string"), &["tools.0.parameters"]);
    refused("/tools/0/description", json!("d".repeat(10_001)), &["tools.0.description"]);
    refused("/context/0", json!({ "description": 1, "value": {} }), &["context.0.description", "context.0.value"]);
    refused("/context", json!(vec![json!({ "description": "", "value": "" }); 101]), &["context"]);
    refused("/resume/0", json!({ "status": "maybe" }), &["resume.0.interruptId", "resume.0.status"]);
    refused(
        "/forwardedProps",
        json!({ "agentId": 1, "model": "", "priority": "urgent", "runAt": "tomorrow", "multitask": [] }),
        &["agentId", "model", "priority", "runAt", "multitask"]
            .map(|f| format!("forwardedProps.{f}"))
            .each_ref()
            .map(String::as_str),
    );
}

#[test]
fn bad_messages_name_the_field() {
    refused("/messages/0", json!({}), &["messages.0.id", "messages.0.role"]);
    refused("/messages/0/id", json!("x".repeat(129)), &["messages.0.id"]);
    refused("/messages/0/role", json!("robot"), &["messages.0.role"]);
    refused("/messages/0/content", json!(null), &["messages.0.content"]);
    refused("/messages/0/content", json!([{ "type": "text", "text": "x" }]), &["messages.0.content"]);
    refused("/messages/7/content", json!(7), &["messages.7.content"]);
    refused("/messages/7/content", json!(vec![json!({ "type": "text", "text": "x" }); 101]), &["messages.7.content"]);
    refused("/messages/3/toolCalls", json!({}), &["messages.3.toolCalls"]);
    refused(
        "/messages/3/toolCalls",
        json!([{ "type": "x" }, { "id": "c", "function": { "arguments": {} } }, 1]),
        &[
            "messages.3.toolCalls.0.id",
            "messages.3.toolCalls.0.type",
            "messages.3.toolCalls.0.function",
            "messages.3.toolCalls.1.function.name",
            "messages.3.toolCalls.1.function.arguments",
            "messages.3.toolCalls.2",
        ],
    );
    refused("/messages/4", json!({ "id": "m", "role": "tool" }), &["messages.4.content", "messages.4.toolCallId"]);
    refused("/messages/4/error", json!({}), &["messages.4.error"]);
    refused("/messages/6", json!({ "id": "m", "role": "activity" }), &["messages.6.activityType", "messages.6.content"]);
    refused("/messages/6/content", json!("x"), &["messages.6.content"]);
}

#[test]
fn bad_parts_name_the_field() {
    let part = |value: Value, bad: &[&str]| {
        let bad: Vec<_> = bad.iter().map(|b| format!("messages.2.content.0{b}")).collect();
        refused("/messages/2/content/0", value, &bad.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let source = |value: Value, bad: &[&str]| part(json!({ "type": "image", "source": value }), bad);
    part(json!("text"), &[""]);
    part(json!({}), &[".type"]);
    part(json!({ "type": "image_url", "image_url": { "url": "https://example.com" } }), &[".type"]);
    part(json!({ "type": "text" }), &[".text"]);
    part(json!({ "type": "video" }), &[".source"]);
    source(json!("x"), &[".source"]);
    source(json!({}), &[".source.type"]);
    source(json!({ "type": "file", "value": "file-1" }), &[".source.type"]);
    source(json!({ "type": "data", "value": "AAAA" }), &[".source.mimeType"]);
    source(json!({ "type": "data", "value": "AAA", "mimeType": "image" }), &[".source.mimeType", ".source.value"]);
    source(json!({ "type": "url", "value": "file:///etc/passwd" }), &[".source.value"]);
    source(json!({ "type": "url", "value": "https://a b" }), &[".source.value"]);
    source(json!({ "type": "url", "value": "data:;base64,AAAA" }), &[".source.mimeType"]);
    source(json!({ "bucket": "b" }), &[".source.path"]);
    source(json!({ "type": "attachment", "bucket": "", "path": "a\nb" }), &[".source.bucket", ".source.path"]);
    part(json!({ "type": "binary" }), &[".mimeType", ".data"]);
    part(json!({ "type": "binary", "mimeType": "image/png", "id": "file-1" }), &[".data"]);
    part(json!({ "type": "binary", "mimeType": "image/png", "data": "A-A=" }), &[".data"]);
}

#[test]
fn nul_is_taken_out_of_texts_everywhere() {
    let mut body = full();
    body["state"] = json!({ "a\u{0}b": ["x\u{0}"] });
    body["messages"][0]["content"] = json!("Be\u{0} brief.");
    body["tools"][0]["description"] = json!("\u{0}");
    body["context"][0]["value"] = json!("B\u{0}ern");
    body["forwardedProps"]["own"] = json!("\u{0}1");
    body["messages"][3]["toolCalls"][0]["function"]["arguments"] = json!("{\u{0}}");
    let input = parse(&body).unwrap();
    assert_eq!(input.state, Some(json!({ "ab": ["x"] })));
    assert_eq!(input.messages[0].body.plain(), "Be brief.");
    assert!(!serde_json::to_string(&input).unwrap().contains("\\u0000"));
}

#[test]
fn what_was_discarded_and_what_comes_twice_is_left_out() {
    let body = json!({ "threadId": "t", "runId": "r", "messages": [
        { "id": "a", "role": "assistant", "content": "half", "metadata": { "runmill": { "discarded": true } } },
        { "id": "b", "role": "user", "content": "first" },
        { "id": "b", "role": "user", "content": "second" },
    ] });
    let messages = parse(&body).unwrap().messages;
    assert_eq!(messages.iter().map(|m| m.body.plain()).collect::<Vec<_>>(), ["first"]);
}

#[test]
fn the_hash_ignores_the_run_id_and_the_order_of_keys_and_nothing_else() {
    let hash = |text: &str| body_hash(&serde_json::from_str(text).unwrap());
    let base = hash(r#"{"runId":"1","threadId":"t","state":{"a":[1,{"x":1,"y":2}],"b":"é\n"}}"#);
    assert_eq!(base, hash(r#"{"state":{"b":"é\n","a":[1,{"y":2,"x":1}]},"threadId":"t","runId":"2"}"#));
    assert_ne!(base, hash(r#"{"runId":"1","threadId":"t","state":{"a":[{"x":1,"y":2},1],"b":"é\n"}}"#));
    assert_ne!(base, hash(r#"{"threadId":"t","state":{"a":[1,{"x":1,"y":2}],"b":"é\n","runId":"1"}}"#));
    assert_eq!(hash("{\"runId\": 1}"), hash("{}"));
    assert_ne!(hash("{\"a\":[]}"), hash("{\"a\":{}}"));
    // printf '{"a":[],"b":{"c":"d"}}' | sha256sum
    assert_eq!(hash(r#"{"b":{"c":"d"},"a":[]}"#), "bd8b0042bc6d201f9f96b865d69dee61235d682a92f66a3e237d095059ce7099");
}

/// xorshift64*: the same sequence everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }

    fn junk(&mut self) -> Value {
        let all = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(""),
            json!("\u{0}\u{1f600}\u{7}"),
            json!("x".repeat(200)),
            json!("data:;base64,"),
            json!("data"),
            json!([]),
            json!({}),
            json!([[{}], null]),
            json!({ "type": "binary", "id": 1 }),
            json!({ "bucket": 1 }),
        ];
        all[self.roll(all.len())].clone()
    }

    /// Replaces, removes or doubles something somewhere below.
    fn mutate(&mut self, value: &mut Value) {
        let deeper = self.roll(5) > 0;
        match value {
            Value::Array(items) if deeper && !items.is_empty() => {
                let i = self.roll(items.len());
                match self.roll(6) {
                    0 => drop(items.remove(i)),
                    1 => items.push(items[i].clone()),
                    _ => self.mutate(&mut items[i]),
                }
            }
            Value::Object(fields) if deeper && !fields.is_empty() => {
                let key = fields.keys().nth(self.roll(fields.len())).unwrap().clone();
                match self.roll(8) {
                    0 => drop(fields.remove(&key)),
                    1 => drop(fields.insert(format!("{key}\u{0}"), json!(1))),
                    _ => self.mutate(&mut fields[&key]),
                }
            }
            other => *other = self.junk(),
        }
    }
}

#[test]
fn no_body_panics_and_what_is_accepted_keeps_the_rules() {
    let mut dice = Dice(0x5EED);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let mut body = full();
        for _ in 0..=dice.roll(3) {
            dice.mutate(&mut body);
        }
        assert_eq!(body_hash(&body).len(), 64);
        match parse(&body) {
            Ok(input) => {
                accepted += 1;
                let stored = serde_json::to_string(&input).unwrap();
                assert!(!stored.contains("\\u0000"), "{body}");
                assert_eq!(serde_json::from_str::<RunInput>(&stored).unwrap(), input);
                assert!(input.messages.iter().all(|m| (1..=128).contains(&m.id.chars().count())), "{body}");
            }
            Err(e) => {
                refused += 1;
                assert!(!e.fields.is_empty() && e.fields.iter().all(|f| !f.field.is_empty()), "{body}");
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused: the test has lost its teeth");
}
