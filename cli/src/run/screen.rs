//! What a person sees: the answer on standard output, everything else on standard error.
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::ProgressBar;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl Outcome {
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Cancelled => 3,
        }
    }

    pub fn of_status(status: &str) -> Option<Self> {
        match status {
            "succeeded" => Some(Self::Succeeded),
            "failed" => Some(Self::Failed),
            "cancelled" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

pub struct Screen {
    json: bool,
    spinner: Option<ProgressBar>,
    /// the message whose text is being written
    message: Option<String>,
    mid_line: bool,
    last: Option<Outcome>,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let spinner = (!json && io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        Self { json, spinner, message: None, mid_line: false, last: None }
    }

    /// Of the last run that was seen to end.
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.last
    }

    /// Shows one event; the outcome when it ends its run. Errors are those of standard output.
    pub fn show(&mut self, event: &Value, raw: &str) -> io::Result<Option<Outcome>> {
        let (kind, data) = (event["type"].as_str().unwrap_or_default(), &event["data"]);
        let outcome = match kind {
            "run.finished" => Some(Outcome::Succeeded),
            "run.failed" if data["willRetry"] != true => Some(Outcome::Failed),
            "run.cancelled" => Some(Outcome::Cancelled),
            _ => None,
        };
        self.last = outcome.or(self.last);
        if self.json {
            writeln!(io::stdout(), "{raw}")?;
            return Ok(outcome);
        }
        match kind {
            "text.delta" => self.text(data)?,
            "message.finished" => self.message_finished(data)?,
            _ => {
                if let Some(line) = note(kind, data) {
                    self.line(&line)?;
                }
                if let Some(activity) = activity(kind, data) {
                    self.waiting_for(&activity);
                }
            }
        }
        if outcome.is_some() {
            self.end_line()?;
            self.clear();
        }
        Ok(outcome)
    }

    fn text(&mut self, data: &Value) -> io::Result<()> {
        let delta = data["delta"].as_str().unwrap_or_default();
        self.clear();
        let id = data["messageId"].as_str();
        if self.message.as_deref() != id {
            self.end_line()?;
            self.message = id.map(str::to_owned);
        }
        self.mid_line = if delta.is_empty() { self.mid_line } else { !delta.ends_with('\n') };
        let mut out = io::stdout().lock();
        out.write_all(delta.as_bytes())?;
        out.flush()
    }

    /// An answer that was not streamed is written now; one that is thrown away is said to be.
    fn message_finished(&mut self, data: &Value) -> io::Result<()> {
        if data["discarded"] == true {
            return self.line("this answer was cut off when its worker died; it is tried again");
        }
        if self.message.as_deref() != data["messageId"].as_str()
            && data["role"] == "assistant"
            && let Some(content) = data["content"].as_str().filter(|text| !text.is_empty())
        {
            self.clear();
            self.end_line()?;
            writeln!(io::stdout(), "{content}")?;
        }
        self.end_line()
    }

    fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.mid_line) {
            writeln!(io::stdout())?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.end_line()?;
        self.clear();
        eprintln!("{text}");
        Ok(())
    }

    /// On a terminal, what we are waiting for.
    pub fn waiting_for(&mut self, what: &str) {
        if let Some(spinner) = self.spinner.as_ref().filter(|_| !self.mid_line) {
            spinner.reset();
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner.set_message(what.to_owned());
        }
    }

    pub fn clear(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// A line that stays, for what somebody may look for later.
fn note(kind: &str, data: &Value) -> Option<String> {
    let text = |name: &str| data[name].as_str().unwrap_or("?").to_owned();
    let error = |value: &Value| value["message"].as_str().or(value.as_str()).unwrap_or("no reason given").to_owned();
    Some(match kind {
        "tool.started" => format!("→ {}", text("name")),
        "tool.finished" if data["error"].is_null() => {
            format!("✓ {} ({} ms)", data["name"].as_str().unwrap_or("tool"), data["durationMs"].as_u64().unwrap_or(0))
        }
        "tool.finished" => format!("✗ {}: {}", data["name"].as_str().unwrap_or("tool"), error(&data["error"])),
        "approval.requested" => format!("approval {} is asked for: {}", text("approvalId"), text("reason")),
        "approval.resolved" => format!("approval {}: {}", text("approvalId"), text("decision")),
        "run.finished" => {
            let pending = data["pendingToolCallIds"].as_array().filter(|ids| !ids.is_empty())?;
            format!("the answer waits for the results of {} tool calls of yours", pending.len())
        }
        "run.failed" if data["willRetry"] == true => format!("this attempt failed, another follows: {}", error(&data["error"])),
        "run.failed" => format!("failed: {}", error(&data["error"])),
        "run.cancelled" => format!("cancelled: {}", data["reason"].as_str().unwrap_or("no reason given")),
        "stream.gap" => format!("the events {} to {} are past retention", data["from"], data["to"]),
        _ => return None,
    })
}

/// What goes on now, for a line that the next one overwrites.
fn activity(kind: &str, data: &Value) -> Option<String> {
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    Some(match kind {
        "run.queued" => "queued".to_owned(),
        "run.started" => format!("{} is thinking", data["model"].as_str().unwrap_or("the model")),
        "run.waiting" => format!("waiting for {}", text("reason")),
        "tool.started" | "step.started" => text("name"),
        "tool.finished" | "reasoning.delta" => "thinking".to_owned(),
        "progress" => data["message"].as_str().map_or_else(|| data.to_string(), str::to_owned),
        _ => return None,
    })
}
