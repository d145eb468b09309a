//! Random logs for the tests.
use std::collections::BTreeMap;

use serde_json::{Value, json};

pub fn started(id: &str) -> Value {
    json!({ "messageId": id, "role": "assistant" })
}

pub fn delta(id: &str, text: &str) -> Value {
    json!({ "messageId": id, "delta": text })
}

pub fn finished(id: &str, content: &str) -> Value {
    json!({ "messageId": id, "role": "assistant", "content": content })
}

pub fn call(id: &str, name: &str) -> Value {
    json!({ "toolCallId": id, "name": name })
}

/// xorshift64*: the same logs everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

/// Writes logs as the engine does: attempts, model calls, tools, crashes, waits; and what every finished message says.
pub struct Writer {
    dice: Dice,
    pub log: Vec<(&'static str, &'static str, Value)>,
    pub contents: BTreeMap<String, String>,
    ids: usize,
}

impl Writer {
    fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}{}", self.ids)
    }

    pub fn thread(seed: u64) -> Self {
        let mut writer = Self { dice: Dice(seed), log: Vec::new(), contents: BTreeMap::new(), ids: 0 };
        writer.runs();
        writer
    }

    fn runs(&mut self) {
        for run in ["r1", "r2", "r3"] {
            self.log.push((run, "run.queued", json!({})));
            if self.dice.roll(6) > 0 {
                self.attempts(run);
            }
            let end = match self.dice.roll(3) {
                0 => ("run.finished", json!({ "result": self.dice.roll(2), "usage": { "inputTokens": 1, "outputTokens": 2 } })),
                1 => ("run.failed", json!({ "error": { "code": "x", "message": "y" }, "willRetry": false })),
                _ => ("run.cancelled", json!({ "reason": "user" })),
            };
            self.log.push((run, end.0, end.1));
        }
    }

    fn attempts(&mut self, run: &'static str) {
        for attempt in 0..=self.dice.roll(3) {
            self.log.push((run, "run.started", json!({ "attempt": attempt })));
            for _ in 0..self.dice.roll(4) {
                self.model_call(run);
                self.aside(run);
            }
        }
    }

    fn aside(&mut self, run: &'static str) {
        let step = ["a", "b"][self.dice.roll(2)];
        let event = match self.dice.roll(8) {
            0 => (run, "step.started", json!({ "name": step })),
            1 => (run, "step.finished", json!({ "name": step })),
            2 => (run, "run.waiting", json!({ "reason": "timer" })),
            3 => (run, "progress", json!({ "done": 1 })),
            4 => (run, "state.snapshot", json!({ "snapshot": null })),
            5 => ("r9", "run.queued", json!({})),
            6 => ("r9", "run.cancelled", json!({ "reason": "user" })),
            _ => (run, "run.failed", json!({ "error": {}, "willRetry": true })),
        };
        self.log.push(event);
    }

    fn model_call(&mut self, run: &'static str) {
        let (id, mut content, mut tools) = (self.id("m"), String::new(), Vec::new());
        self.log.push((run, "message.started", started(&id)));
        for _ in 0..self.dice.roll(6) {
            let text = ["", "é", "ab c\n"][self.dice.roll(3)];
            match self.dice.roll(6) {
                0 => self.log.push((run, "reasoning.delta", delta(&id, text))),
                1 => {
                    let tool = self.id("c");
                    self.log.push((run, "tool.started", call(&tool, "look")));
                    tools.push(tool);
                }
                2 if !tools.is_empty() => {
                    let tool = &tools[self.dice.roll(tools.len())];
                    self.log.push((run, "tool.delta", json!({ "toolCallId": tool, "delta": text })));
                }
                _ => {
                    self.log.push((run, "text.delta", delta(&id, text)));
                    content.push_str(text);
                }
            }
        }
        match self.dice.roll(5) {
            0 => {
                return self.log.push((
                    run,
                    "message.finished",
                    json!({ "messageId": id, "role": "assistant", "discarded": true }),
                ));
            }
            // A crash: nothing more of it.
            1 => return,
            // The tail that no delta had.
            2 => content.push_str("tail"),
            _ => {}
        }
        self.log.push((run, "message.finished", finished(&id, &content)));
        if !content.is_empty() {
            self.contents.insert(id, content);
        }
        for tool in tools {
            if self.dice.roll(4) == 0 {
                self.log.push((run, "tool.started", call(&tool, "look")));
            }
            if self.dice.roll(4) > 0 {
                self.log.push((run, "tool.finished", json!({ "toolCallId": tool, "result": "ok", "error": null })));
            }
        }
    }
}
