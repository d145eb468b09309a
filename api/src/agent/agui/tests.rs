use std::collections::BTreeMap;

use super::{
    generator::{Writer, call, delta, finished, started},
    verifier::Verifier,
    *,
};

const MILLIS: i64 = 1_773_655_200_000;

fn run_id(run: &str) -> Uuid {
    Uuid::from_u128(run.bytes().fold(1, |n, b| n * 256 + u128::from(b)))
}

/// A thread's log from (run, kind, data); numbered from 1.
fn log(events: Vec<(&str, &str, Value)>) -> Vec<Event> {
    let numbered = (1..).zip(events);
    let event = |(seq, (run, kind, data)): (i64, (&str, &str, Value))| Event {
        seq,
        run_id: run_id(run),
        run: run.into(),
        kind: kind.into(),
        data,
        at: Timestamp(MILLIS * 1000),
    };
    numbered.map(event).collect()
}

/// The events of a piece of a stream, and the ids of its frames.
fn read(stream: &[u8]) -> (Vec<Value>, Vec<Option<i64>>) {
    let text = std::str::from_utf8(stream).unwrap();
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
    let frames = text.split_terminator("\n\n").map(|frame| {
        let mut data = None;
        let mut id = None;
        for line in frame.split('\n') {
            match line.split_once(": ").unwrap() {
                ("data", json) => assert!(data.replace(serde_json::from_str(json).unwrap()).is_none()),
                ("id", n) => assert!(id.replace(n.parse().unwrap()).is_none()),
                (field, _) => panic!("{field} in {frame}"),
            }
        }
        (data.unwrap(), id)
    });
    frames.unzip()
}

/// Encodes and checks the ids: the last frame of each event has its own, the others have none.
fn encode(encoder: &mut AguiEncoder, events: &[Event]) -> Vec<Value> {
    let mut all = Vec::new();
    for event in events {
        let (frames, ids) = read(&encoder.encode(event).unwrap());
        if let Some((last, others)) = ids.split_last() {
            assert_eq!(*last, Some(event.seq));
            assert!(others.iter().all(Option::is_none));
        }
        all.extend(frames);
    }
    all
}

fn accept(frames: &[Value]) {
    let mut verifier = Verifier::default();
    for (i, frame) in frames.iter().enumerate() {
        verifier.take(frame).unwrap_or_else(|why| panic!("frame {i}: {why}\n{frames:#?}"));
    }
}

/// One line a frame: the type and what tells it apart.
fn brief(frames: &[Value]) -> Vec<String> {
    let fields = ["runId", "messageId", "toolCallId", "stepName", "name", "code", "delta", "content"];
    let line = |frame: &Value| {
        let mut words = vec![frame["type"].as_str().unwrap().to_owned()];
        words.extend(fields.iter().filter_map(|f| frame[f].as_str().map(Into::into)));
        words.join(" ")
    };
    frames.iter().map(line).collect()
}

fn transcript(events: &[Event]) -> Vec<String> {
    let frames = encode(&mut AguiEncoder::new("t1"), events);
    accept(&frames);
    brief(&frames)
}

/// A run that thinks, answers, calls a tool, waits, and answers.
fn rich() -> Vec<Event> {
    log(vec![
        ("r1", "run.queued", json!({})),
        ("r1", "run.started", json!({ "attempt": 1, "agentId": null, "model": "m" })),
        ("r1", "step.started", json!({ "name": "plan" })),
        ("r1", "message.started", started("m1")),
        ("r1", "reasoning.delta", delta("m1", "Hm")),
        ("r1", "text.delta", delta("m1", "Let me")),
        ("r1", "text.delta", delta("m1", " look.")),
        ("r1", "tool.started", call("c1", "look")),
        ("r1", "tool.delta", json!({ "toolCallId": "c1", "delta": "{}" })),
        ("r1", "message.finished", finished("m1", "Let me look.")),
        ("r2", "run.queued", json!({})),
        ("r1", "run.waiting", json!({ "reason": "timer" })),
        ("r1", "run.started", json!({ "attempt": 1 })),
        ("r1", "tool.finished", json!({ "toolCallId": "c1", "name": "look", "result": { "n": 1 }, "durationMs": 5 })),
        ("r1", "step.finished", json!({ "name": "plan" })),
        ("r1", "state.snapshot", json!({ "snapshot": { "a": 1 } })),
        ("r1", "state.delta", json!({ "delta": [{ "op": "remove", "path": "/a" }] })),
        ("r1", "message.started", started("m2")),
        ("r1", "text.delta", delta("m2", "One.")),
        ("r1", "message.finished", finished("m2", "One.")),
        ("r1", "run.finished", json!({ "result": { "text": "One." }, "usage": { "inputTokens": 3, "outputTokens": 4 } })),
    ])
}

#[test]
fn a_run_is_told_in_the_clients_order() {
    assert_eq!(
        transcript(&rich()),
        [
            "RUN_STARTED r1",
            "STEP_STARTED plan",
            "REASONING_START m1-reasoning",
            "REASONING_MESSAGE_START m1-reasoning",
            "REASONING_MESSAGE_CONTENT m1-reasoning Hm",
            "REASONING_MESSAGE_END m1-reasoning",
            "REASONING_END m1-reasoning",
            "TEXT_MESSAGE_START m1",
            "TEXT_MESSAGE_CONTENT m1 Let me",
            "TEXT_MESSAGE_CONTENT m1  look.",
            "TOOL_CALL_START c1",
            "TOOL_CALL_ARGS c1 {}",
            "TOOL_CALL_END c1",
            "TEXT_MESSAGE_END m1",
            "CUSTOM run.waiting",
            "CUSTOM run.started",
            "TOOL_CALL_RESULT c1-result c1 {\"n\":1}",
            "STEP_FINISHED plan",
            "STATE_SNAPSHOT",
            "STATE_DELTA",
            "TEXT_MESSAGE_START m2",
            "TEXT_MESSAGE_CONTENT m2 One.",
            "TEXT_MESSAGE_END m2",
            "RUN_FINISHED r1",
        ]
    );
}

#[test]
fn frames_are_exact() {
    let mut encoder = AguiEncoder::new("t1");
    let mut bytes = Vec::new();
    for event in rich().iter().filter(|e| [2, 4, 6, 8, 21].contains(&e.seq)) {
        bytes.extend_from_slice(&encoder.encode(event).unwrap());
    }
    let expected = r#"data: {"type":"RUN_STARTED","threadId":"t1","runId":"r1","protocolVersion":"1.0","timestamp":1773655200000}
id: 2

data: {"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant","timestamp":1773655200000}

data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"Let me","timestamp":1773655200000}
id: 6

data: {"type":"TOOL_CALL_START","toolCallId":"c1","toolCallName":"look","parentMessageId":"m1","timestamp":1773655200000}
id: 8

data: {"type":"TEXT_MESSAGE_END","messageId":"m1","timestamp":1773655200000}

data: {"type":"TOOL_CALL_END","toolCallId":"c1","timestamp":1773655200000}

data: {"type":"RUN_FINISHED","threadId":"t1","runId":"r1","result":{"text":"One."},"usage":[{"model":"m","inputTokens":3,"outputTokens":4}],"timestamp":1773655200000}
id: 21

"#;
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
}

#[test]
fn a_call_for_the_client_ends_the_run_pending() {
    let events = log(vec![
        ("r1", "run.started", json!({})),
        ("r1", "message.started", started("m1")),
        ("r1", "tool.started", call("c1", "ask")),
        ("r1", "message.finished", finished("m1", "")),
        ("r1", "run.finished", json!({ "result": null, "pendingToolCallIds": ["c1"] })),
    ]);
    let frames = encode(&mut AguiEncoder::new("t1"), &events);
    accept(&frames);
    assert_eq!(brief(&frames), ["RUN_STARTED r1", "TOOL_CALL_START c1", "TOOL_CALL_END c1", "RUN_FINISHED r1"]);
    assert_eq!(frames[3]["outcome"], json!({ "type": "success", "pendingToolCallIds": ["c1"] }));
}

#[test]
fn a_discarded_try_is_closed_and_marked_and_its_calls_are_not_pending() {
    let events = log(vec![
        ("r1", "run.started", json!({ "attempt": 1 })),
        ("r1", "message.started", started("m1")),
        ("r1", "text.delta", delta("m1", "Hel")),
        ("r1", "tool.started", call("c1", "ask")),
        ("r1", "run.failed", json!({ "error": { "code": "x", "message": "y", "retryable": true }, "willRetry": true })),
        ("r1", "run.started", json!({ "attempt": 2 })),
        ("r1", "message.finished", json!({ "messageId": "m1", "role": "assistant", "discarded": true })),
        ("r1", "message.started", started("m2")),
        ("r1", "message.finished", json!({ "messageId": "m2", "role": "assistant", "content": "Hi", "uiSchema": { "v": 2 } })),
        ("r1", "run.failed", json!({ "error": { "code": "model", "message": "gone", "retryable": false }, "willRetry": false })),
    ]);
    let frames = encode(&mut AguiEncoder::new("t1"), &events);
    accept(&frames);
    assert_eq!(
        brief(&frames),
        [
            "RUN_STARTED r1",
            "TEXT_MESSAGE_START m1",
            "TEXT_MESSAGE_CONTENT m1 Hel",
            "TOOL_CALL_START c1",
            "CUSTOM run.failed",
            "CUSTOM run.started",
            "TOOL_CALL_END c1",
            "TOOL_CALL_RESULT c1-result c1 discarded: the answer that made this call was interrupted",
            "TEXT_MESSAGE_END m1",
            "TEXT_MESSAGE_START m2",
            "TEXT_MESSAGE_CONTENT m2 Hi",
            "TEXT_MESSAGE_END m2",
            "RUN_ERROR model",
        ]
    );
    assert_eq!(frames[7]["metadata"], frames[8]["metadata"]);
    assert_eq!(frames[8]["metadata"], json!({ "runmill": { "discarded": true } }));
    assert_eq!(frames[11]["metadata"], json!({ "runmill": { "uiSchema": { "v": 2 } } }));
}

#[test]
fn runs_that_end_in_the_queue_are_told_as_well() {
    let events = log(vec![
        ("r1", "run.queued", json!({})),
        ("r1", "run.cancelled", json!({ "reason": "user" })),
        ("r2", "run.started", json!({})),
        ("r3", "run.queued", json!({})),
        ("r3", "run.cancelled", json!({ "reason": "user" })),
        ("r2", "run.finished", json!({ "result": 1 })),
        ("r2", "messages.dropped", json!({ "messageIds": ["m"] })),
        ("r4", "run.started", json!({})),
        ("r4", "run.finished", json!({ "result": 1 })),
    ]);
    assert_eq!(
        transcript(&events),
        [
            "RUN_STARTED r1",
            "RUN_FINISHED r1",
            "RUN_STARTED r2",
            "CUSTOM run.cancelled",
            "RUN_FINISHED r2",
            "RUN_STARTED r4",
            "CUSTOM messages.dropped",
            "RUN_FINISHED r4",
        ]
    );
    let one = encode(&mut AguiEncoder::new("t1").only(run_id("r3")), &events);
    assert_eq!(brief(&one), ["RUN_STARTED r3", "RUN_FINISHED r3"]);
    assert_eq!(one[1]["outcome"], json!({ "type": "cancelled" }));
}

#[test]
fn after_a_gap_texts_come_whole_and_a_run_without_an_end_gets_one() {
    let events = rich();
    let mut encoder = AguiEncoder::new("t1");
    let at = Timestamp(MILLIS * 1000);
    assert!(encoder.gap(1, 6, at).unwrap().is_empty(), "nothing may come before RUN_STARTED");
    let mut frames = encode(&mut encoder, &events[6..10]);
    assert_eq!(
        brief(&frames),
        [
            "RUN_STARTED r1",
            "CUSTOM stream.gap",
            "TOOL_CALL_START c1",
            "TOOL_CALL_ARGS c1 {}",
            "TEXT_MESSAGE_START m1",
            "TEXT_MESSAGE_CONTENT m1 Let me look.",
            "TEXT_MESSAGE_END m1"
        ]
    );
    frames.extend(encode(
        &mut encoder,
        &log(vec![("r1", "message.started", started("m9")), ("r1", "text.delta", delta("m9", "A"))]),
    ));
    let (gap, ids) = read(&encoder.gap(11, 40, at).unwrap());
    assert_eq!((brief(&gap).last().unwrap().as_str(), ids.last()), ("CUSTOM stream.gap", Some(&Some(40))));
    frames.extend(gap);
    let rest = log(vec![("r1", "text.delta", delta("m9", "C")), ("r1", "message.finished", finished("m9", "ABC"))]);
    let told = encode(&mut encoder, &rest);
    assert_eq!(brief(&told), ["TEXT_MESSAGE_START m9", "TEXT_MESSAGE_CONTENT m9 BC", "TEXT_MESSAGE_END m9"]);
    frames.extend(told);
    frames.extend(read(&encoder.gap(43, 50, at).unwrap()).0);
    frames.extend(encode(&mut encoder, &log(vec![("r2", "run.started", json!({}))])));
    assert_eq!(brief(&frames[frames.len() - 2..]), ["RUN_ERROR gap", "RUN_STARTED r2"]);
    accept(&frames);
}

#[test]
fn a_resumed_stream_opens_again_what_was_open() {
    let events = rich();
    let mut encoder = AguiEncoder::new("t1");
    encoder.skip(&events[..3]).unwrap();
    encoder.skip(&events[3..8]).unwrap();
    let frames = encode(&mut encoder, &events[8..]);
    accept(&frames);
    assert_eq!(
        brief(&frames)[..7],
        [
            "RUN_STARTED r1",
            "STEP_STARTED plan",
            "TEXT_MESSAGE_START m1",
            "TOOL_CALL_START c1",
            "TOOL_CALL_ARGS c1 {}",
            "TOOL_CALL_END c1",
            "TEXT_MESSAGE_END m1"
        ]
    );
    let mut ended = AguiEncoder::new("t1");
    ended.skip(&events).unwrap();
    assert!(ended.encode(&events[0]).unwrap().is_empty());
}

/// What the client has: its messages' texts, appended to as the stock client does, over all streams.
fn apply(texts: &mut BTreeMap<String, String>, frames: &[Value]) {
    for frame in frames.iter().filter(|f| f["type"] == "TEXT_MESSAGE_CONTENT") {
        texts.entry(frame["messageId"].as_str().unwrap().into()).or_default().push_str(frame["delta"].as_str().unwrap());
    }
}

#[test]
fn every_log_is_accepted_from_every_point_and_no_text_is_lost_or_doubled() {
    let mut kinds = BTreeMap::<String, usize>::new();
    for seed in 1..=60 {
        let writer = Writer::thread(seed);
        let events = log(writer.log);
        let whole = encode(&mut AguiEncoder::new("t1"), &events);
        accept(&whole);
        for frame in &whole {
            *kinds.entry(frame["type"].as_str().unwrap().into()).or_default() += 1;
        }
        for cut in 0..=events.len() {
            let before = encode(&mut AguiEncoder::new("t1"), &events[..cut]);
            let mut resumed = AguiEncoder::new("t1");
            resumed.skip(&events[..cut]).unwrap();
            let after = encode(&mut resumed, &events[cut..]);
            accept(&before);
            accept(&after);
            let mut texts = BTreeMap::new();
            apply(&mut texts, &before);
            apply(&mut texts, &after);
            texts.retain(|id, _| writer.contents.contains_key(id));
            assert_eq!(texts, writer.contents, "seed {seed}, cut {cut}");
        }
    }
    assert_eq!(kinds.len(), 19, "the logs no longer reach every kind of frame: {kinds:?}");
}
