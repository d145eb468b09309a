//! `transcribe_audio`: the words of a recording among the thread's files, by what this worker transcribes with.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runmill_shared::{config::Config, services::files};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Tool, ToolContext, ToolError,
    files::{Named, failed, name_schema, place},
    parse,
};
use crate::asr::Asr;

struct TranscribeAudio {
    asr: Asr,
    max_bytes: u64,
    timeout: Duration,
}

/// None where nothing transcribes: a listed tool works.
pub fn tool(config: &Config, asr: &Asr) -> Option<Arc<dyn Tool>> {
    let t = &config.transcribe;
    // The longest recording that is taken, at the pace of its being spoken.
    let tool = || TranscribeAudio { asr: asr.clone(), max_bytes: t.max_bytes, timeout: t.max_duration.max(config.tools.timeout) };
    (!matches!(asr, Asr::None)).then(|| Arc::new(tool()) as Arc<dyn Tool>)
}

#[async_trait]
impl Tool for TranscribeAudio {
    fn name(&self) -> &str {
        "transcribe_audio"
    }

    fn category(&self) -> &str {
        "audio"
    }

    fn description(&self) -> &str {
        "Transcribes a WAV file of the conversation: its text, its language, and the segments with their times in seconds."
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object", "properties": {"name": name_schema()}, "required": ["name"], "additionalProperties": false,
        })
    }

    fn output(&self) -> Value {
        let segment = json!({
            "type": "object", "required": ["start", "end", "text"],
            "properties": {"start": {"type": "number"}, "end": {"type": "number"}, "text": {"type": "string"}},
        });
        json!({
            "type": "object", "required": ["text", "language", "duration", "segments"],
            "properties": {
                "text": {"type": "string"}, "language": {"type": "string"},
                "duration": {"type": "number", "description": "in seconds"},
                "segments": {"type": "array", "items": segment}, "truncated": {"type": "boolean"},
            },
        })
    }

    fn idempotent(&self, _arguments: &Value) -> bool {
        true
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.timeout)
    }

    async fn call(&self, cx: &ToolContext, arguments: Value) -> Result<Value, ToolError> {
        let Named { name } = parse(arguments)?;
        let (_, wav) = files::read(&cx.app, place(cx), &name, self.max_bytes).await.map_err(failed)?;
        let cancel = cx.cancel.child_token();
        let _stop_with_us = cancel.clone().drop_guard();
        let (tell, mut told) = mpsc::channel(8);
        let unheard = async { while told.recv().await.is_some() {} };
        let (transcript, ()) = tokio::join!(self.asr.transcribe(wav, &cancel, tell), unheard);
        serde_json::to_value(transcript.map_err(failed)?).map_err(|e| failed(e.into()))
    }
}
