//! seed FOLDER: writes the first inputs of every target, so that mutations begin at something that is read to its end. It links nothing
//! of ours: it is built without what libFuzzer wants.
use std::{env, fs, path::Path};

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let folder = env::args().nth(1).unwrap_or_else(|| "corpus".to_owned());
    let seeds: [(&str, Vec<Vec<u8>>); 9] = [
        ("run_agent_input", run_agent_input()),
        ("multipart", multipart()),
        ("wav", wav()),
        ("cron", cron()),
        ("tool_arguments", tool_arguments()),
        ("model_stream", model_stream()),
        ("webhook_body", webhook_body()),
        ("expressions", expressions()),
        ("plugin_document", plugin_document()),
    ];
    for (target, inputs) in seeds {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn run_agent_input() -> Vec<Vec<u8>> {
    let message = |message: Value| text(&json!({ "threadId": "t", "runId": "r", "messages": [message] }));
    let mut all: Vec<_> = [
        json!({ "id": "1", "role": "user", "content": "hi" }),
        json!({ "id": "1", "role": "user", "content": [{ "type": "text", "text": "see" },
            { "type": "image", "source": { "type": "url", "value": "https://example.com/a.png" } },
            { "type": "image", "source": { "type": "data", "value": "AAAA", "mimeType": "image/png" } },
            { "type": "document", "source": { "bucket": "attachments", "path": "a/b.pdf" } },
            { "type": "binary", "mimeType": "image/png", "data": "AAAA" }] }),
        json!({ "id": "1", "role": "assistant", "content": null,
            "toolCalls": [{ "id": "c", "type": "function", "function": { "name": "now", "arguments": "{}" } }] }),
        json!({ "id": "1", "role": "tool", "toolCallId": "c", "content": "ok", "error": "failed" }),
        json!({ "id": "1", "role": "activity", "activityType": "PLAN", "content": { "a": 1 } }),
        json!({ "id": "1", "role": "reasoning", "content": "hm" }),
    ]
    .into_iter()
    .map(message)
    .collect();
    all.push(text(&json!({ "threadId": "t", "runId": "r", "messages": [], "state": { "a": [1.5, null] }, "parentRunId": "p",
        "tools": [{ "name": "mine", "description": "d", "parameters": { "type": "object" } }],
        "context": [{ "description": "d", "value": "v" }], "protocolVersion": "1.0",
        "resume": [{ "interruptId": "i", "status": "resolved", "payload": {} }],
        "forwardedProps": { "agentId": "demo", "model": "openai:x", "priority": "high", "runAt": "2026-03-16T10:00:00Z",
            "multitask": "enqueue" } })));
    all
}

fn multipart() -> Vec<Vec<u8>> {
    let form = |parts: &str| format!("multipart/form-data; boundary=x\n{parts}--x--\r\n").into_bytes();
    let field = |name: &str, more: &str, body: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{body}\r\n")
    };
    let file = "; filename=\"a.wav\"\r\nContent-Type: audio/wav; charset=x";
    vec![
        form(""),
        form(&field("threadId", "", "t1")),
        form(&(field("threadId", "", "t1") + &field("file", file, "RIFF\r\n--y\r\n"))),
        form(&field("file", file, &"a".repeat(300))),
        form(&field("file", "; filename*=UTF-8''%e2%82%ac.txt", "a")),
        b"multipart/form-data; boundary=\"a b\"\n--a b\r\n\r\n\r\n--a b--".to_vec(),
    ]
}

/// Each encoding that is read: tag, channels, rate, bits, the size of a block, what else its format says, samples.
fn wav() -> Vec<Vec<u8>> {
    let adpcm: &[u8] = &[
        32, 0, 244, 1, 7, 0, 0, 1, 0, 0, 0, 2, 0, 255, 0, 0, 0, 0, 192, 0, 64, 0, 240, 0, 0, 0, 204, 1, 48, 255, 136, 1, 24, 255,
    ];
    let extensible: &[u8] = &[22, 0, 16, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113];
    [
        file(1, 1, 16_000, 16, 2, &[], 200),
        file(1, 2, 44_100, 16, 4, &[], 400),
        file(1, 1, 8_000, 8, 1, &[], 100),
        file(1, 1, 48_000, 24, 3, &[], 300),
        file(3, 1, 22_050, 32, 4, &[], 400),
        file(3, 1, 11_025, 64, 8, &[], 400),
        file(6, 1, 8_000, 8, 1, &[0, 0], 100),
        file(7, 1, 8_000, 8, 1, &[0, 0], 100),
        file(2, 1, 8_000, 4, 22, adpcm, 66),
        file(17, 1, 8_000, 4, 20, &[2, 0, 33, 0], 60),
        file(0xfffe, 2, 16_000, 16, 4, extensible, 80),
    ]
    .to_vec()
}

fn file(tag: u16, channels: u16, rate: u32, bits: u16, block: u16, more: &[u8], samples: usize) -> Vec<u8> {
    let mut all = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
    all.extend((16 + more.len() as u32).to_le_bytes());
    all.extend(tag.to_le_bytes());
    all.extend(channels.to_le_bytes());
    all.extend(rate.to_le_bytes());
    all.extend((rate * u32::from(block)).to_le_bytes());
    all.extend(block.to_le_bytes());
    all.extend(bits.to_le_bytes());
    all.extend(more);
    all.extend(b"data");
    all.extend((samples as u32).to_le_bytes());
    all.extend((0..samples).map(|i| (i * 37 % 256) as u8));
    all
}

fn cron() -> Vec<Vec<u8>> {
    let patterns = [
        "*/15 * * * *",
        "0 8 * * mon-fri",
        "30 2 * * *",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "@hourly",
        "@daily",
        "0 12 L * *",
        "0 12 * * FRI#2",
        "15 30 9 1,15 */2 MON-FRI",
        "* * * * * *",
        "0 0 LW * *",
        "0 0 15W 6 *",
        "59 23 31 12 7",
        "0 0 * * 5L",
        "0,30 1-3/2 * JAN-MAR ?",
    ];
    // Around a change of the clocks in 2026, in a few zones.
    let instant = 1_772_900_000_000_000_i64.to_le_bytes();
    let inputs = patterns.iter().enumerate().map(|(n, pattern)| [&instant[..], &[(n * 17) as u8], pattern.as_bytes()].concat());
    inputs.collect()
}

fn tool_arguments() -> Vec<Vec<u8>> {
    let call = |tool: &str, arguments: Value| text(&json!({ "tool": tool, "arguments": arguments }));
    vec![
        call("calculator", json!({ "expression": "2*(3+4)^2/sqrt(2)-max(1,2)%3" })),
        call("statistics", json!({ "numbers": [1, 2.5, -3] })),
        call("unit_convert", json!({ "value": 1, "from": "km", "to": "mi" })),
        call("date_add", json!({ "date": "2026-03-16T10:00:00Z", "days": 3, "months": -1 })),
        call("date_diff", json!({ "from": "2026-03-16", "to": "2027-01-01" })),
        call("parse_date", json!({ "text": "March 16, 2026 10:00" })),
        call("cron_next", json!({ "cron": "*/5 * * * *", "count": 3 })),
        call("timezone_convert", json!({ "datetime": "2026-03-16T10:00:00Z", "to": "Europe/Vienna" })),
        call("regex_match", json!({ "pattern": "(?P<a>\\w+)", "text": "a bc" })),
        call("regex_replace", json!({ "pattern": "a(b)", "text": "ab", "replacement": "$1" })),
        call("template_render", json!({ "template": "{% for x in xs %}{{ x|upper }}{% endfor %}", "values": { "xs": ["a"] } })),
        call("text_split", json!({ "text": "a b c d", "by": "words", "size": 2 })),
        call("text_diff", json!({ "a": "a\nb", "b": "a\nc" })),
        call("html_to_text", json!({ "html": "<p>a <b>b</b><table><tr><td>1</table>" })),
        call("markdown_to_html", json!({ "markdown": "# a\n- b\n\n|a|\n|-|\n|1|" })),
        call("slugify", json!({ "text": "Grüße, Welt" })),
        call("csv_to_json", json!({ "csv": "a,b\n1,\"x\"\n" })),
        call("json_to_csv", json!({ "rows": [{ "a": 1, "b": "x" }] })),
        call("json_query", json!({ "data": { "a": [1, 2] }, "query": "$.a[?@ > 1]" })),
        call("json_merge", json!({ "base": { "a": 1 }, "patch": { "b": null } })),
        call("json_diff", json!({ "a": { "a": 1 }, "b": { "a": 2 } })),
        call("json_validate", json!({ "data": 1, "schema": { "type": "integer", "minimum": 0 } })),
        call(
            "table_aggregate",
            json!({ "rows": [{ "a": 1, "b": "x" }], "group_by": ["b"], "aggregations": [{ "column": "a", "op": "sum" }] }),
        ),
        call("xml_to_json", json!({ "xml": "<a x=\"1\"><b>c</b><!-- d --></a>" })),
        call("yaml_to_json", json!({ "yaml": "a: &x [1, 2]\nb: *x\nc: |\n  d\n" })),
        call("base64_decode", json!({ "text": "aGk=" })),
        call("jwt_decode", json!({ "token": "eyJhbGciOiJub25lIn0.eyJhIjoxfQ." })),
        call("url_encode", json!({ "text": "a b&c" })),
        call("hash", json!({ "text": "a", "algorithm": "sha256" })),
        (0..=255).collect(),
    ]
}

fn model_stream() -> Vec<Vec<u8>> {
    let stream = |provider: u8, events: &[(&str, Value)], end: &str| {
        let frame = |(kind, data): &(&str, Value)| {
            if kind.is_empty() { format!("data: {data}\n\n") } else { format!("event: {kind}\ndata: {data}\n\n") }
        };
        let mut all = vec![provider];
        all.extend((events.iter().map(frame).collect::<String>() + end).into_bytes());
        all
    };
    let chunk = |delta: Value, finish: Value| {
        (
            "",
            json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }),
        )
    };
    let call = |index: Value, id: Value, name: Value, arguments: &str| {
        json!({ "tool_calls": [{ "index": index, "id": id,
        "type": "function", "function": { "name": name, "arguments": arguments } }] })
    };
    let words = [
        chunk(json!({ "role": "assistant", "content": "Hel" }), Value::Null),
        chunk(json!({ "content": "lo" }), json!("stop")),
        ("", json!({ "id": "c", "choices": [], "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 } })),
    ];
    let calls = [
        chunk(call(json!(0), json!("a"), json!("now"), ""), Value::Null),
        chunk(call(json!(0), Value::Null, Value::Null, "{\"a\":"), Value::Null),
        chunk(call(json!(0), Value::Null, Value::Null, "1}"), Value::Null),
        chunk(json!({}), json!("tool_calls")),
    ];
    let unnumbered = [
        chunk(call(Value::Null, json!("a"), json!("now"), "{}"), Value::Null),
        chunk(call(Value::Null, json!("b"), json!("now"), "{}"), json!("tool_calls")),
    ];
    let messages = [
        (
            "message_start",
            json!({ "type": "message_start", "message": { "id": "m", "type": "message", "role": "assistant", "content": [],
            "model": "m", "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 } } }),
        ),
        (
            "content_block_start",
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        ),
        (
            "content_block_delta",
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "Hi" } }),
        ),
        ("content_block_stop", json!({ "type": "content_block_stop", "index": 0 })),
        (
            "content_block_start",
            json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "id": "t", "name": "now", "input": {} } }),
        ),
        (
            "content_block_delta",
            json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"a\":1}" } }),
        ),
        ("content_block_stop", json!({ "type": "content_block_stop", "index": 1 })),
        (
            "message_delta",
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null }, "usage": { "output_tokens": 2 } }),
        ),
        ("message_stop", json!({ "type": "message_stop" })),
    ];
    let parts = |parts: Value, finish: Value| {
        (
            "",
            json!({ "candidates": [{ "index": 0, "content": { "role": "model", "parts": parts }, "finishReason": finish }],
        "usageMetadata": { "promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3 }, "modelVersion": "m" }),
        )
    };
    let gemini = [
        parts(json!([{ "text": "Hi" }]), Value::Null),
        parts(json!([{ "functionCall": { "name": "now", "args": { "a": 1 } } }]), json!("STOP")),
    ];
    let ollama = [("", json!({ "model": "m", "message": { "role": "assistant", "content": "Hi" }, "done": false }))];
    let mut all = Vec::new();
    for provider in [0, 3, 4] {
        all.push(stream(provider, &words, "data: [DONE]\n\n"));
        all.push(stream(provider, &calls, "data: [DONE]\n\n"));
        all.push(stream(provider, &unnumbered, ": ping\n\ndata: [DONE]\n\n"));
    }
    all.push(stream(0, &[("", json!({ "error": { "message": "no", "code": 500 } }))], ""));
    all.push(stream(1, &messages, ""));
    all.push(stream(1, &[("error", json!({ "type": "error", "error": { "type": "overloaded_error", "message": "no" } }))], ""));
    all.push(stream(2, &gemini, ""));
    all.push(stream(4, &ollama, ""));
    all
}

fn webhook_body() -> Vec<Vec<u8>> {
    let lines = |config: Value, arguments: Value, secret: &str, body: Value| {
        format!("{config}\n{arguments}\n{secret}\n{body}").into_bytes()
    };
    let body = json!({ "type": "run.finished", "timestamp": "2026-03-16T10:00:00Z", "data": { "id": "n" } });
    vec![
        lines(
            json!({ "method": "GET", "url": "https://api.example.com/a/{{ id }}?x=1", "query": { "q": "{{ q }}" } }),
            json!({ "id": "a/b", "q": "c d" }),
            "secret",
            body.clone(),
        ),
        lines(
            json!({ "method": "POST", "url": "{{ base }}/x", "headers": { "x-a": "{{ a }}" }, "body": { "b": "{{ b }}", "c": [1, "{{ c.d }}"] },
                "response_path": "a.0", "timeout_ms": 1000 }),
            json!({ "base": "https://example.com", "a": "v", "b": { "x": 1 }, "c": { "d": "e" } }),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            body.clone(),
        ),
        lines(
            json!({ "method": "POST", "url": "https://example.com/", "body": "{\"a\": {{ a }}}", "auth": { "type": "bearer", "secret": "S" } }),
            json!({ "a": "\"quoted\"\n" }),
            "whsec_!",
            body,
        ),
    ]
}

fn expressions() -> Vec<Vec<u8>> {
    let conditions = [
        "output == 'yes'",
        "output.score > 3 && x < 2",
        "output.items.exists(i, i.a == 1)",
        "size(output) > 0 ? true : false",
        "output.contains('a') || output.matches('^a+$')",
        "{'a': 1}['a'] in [1, 2]",
        "has(output.a)",
        "timestamp('2026-03-16T10:00:00Z') < timestamp(output)",
        "{{ a }}",
        "x{{ a.b[0] }}y{{ c | upper }}",
        "{\"a\": \"{{ b }}\", \"c\": {{ d }}}",
    ];
    let data = json!({ "score": 4, "items": [{ "a": 1 }], "a": { "b": ["c"] }, "b": "\"", "d": null });
    conditions.iter().map(|condition| format!("{condition}\n{data}").into_bytes()).collect()
}

fn plugin_document() -> Vec<Vec<u8>> {
    let schema = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" }, "tag": { "$ref": "#/components/schemas/Tag" } } });
    let document = json!({
        "openapi": "3.0.0", "info": { "title": "p", "version": "1" }, "servers": [{ "url": "https://api.example.com/v1" }],
        "paths": { "/pets/{id}": {
            "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "integer" } }],
            "get": { "operationId": "getPet", "summary": "One", "parameters": [{ "name": "q", "in": "query", "schema": { "type": "string", "nullable": true, "enum": ["a", null] } },
                { "$ref": "#/components/parameters/Page" }] },
            "post": { "operationId": "makePet", "description": "Makes", "requestBody": { "content": { "application/json": { "schema": schema } } } },
            "put": { "requestBody": { "content": { "application/x-www-form-urlencoded": { "schema": schema } } } },
        } },
        "components": { "schemas": { "Tag": { "type": "object", "properties": { "next": { "$ref": "#/components/schemas/Tag" } } } },
            "parameters": { "Page": { "name": "page", "in": "query", "schema": { "type": "integer", "minimum": 0, "exclusiveMinimum": true } } } },
    });
    let yaml = "openapi: 3.1.0\npaths:\n  /a:\n    get: &get\n      operationId: a\n      parameters:\n        - {name: h, in: header, schema: {type: [string, 'null']}}\n    delete: *get\n";
    vec![text(&document), yaml.as_bytes().to_vec()]
}
