//! One run on an AG-UI stream: what of it is open, and what each of its events opens, says and closes.
use runmill_shared::{
    Result,
    domain::event::{Event, kind},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::wire::{AguiEvent, Frames, Outcome, TokenUsage};

const PROTOCOL_VERSION: &str = "1.0";
const STATE_DELTA: &str = "state.delta";

pub struct OpenRun {
    pub id: Uuid,
    /// Events are missing, maybe its last.
    pub out_of_sight: bool,
    name: String,
    model: Option<String>,
    /// The message of the latest model call: its tool calls hang on it.
    latest: Option<String>,
    messages: Vec<Message>,
    tools: Vec<Tool>,
    steps: Vec<String>,
}

/// A message that has started and not finished. AG-UI's is opened by the first text, for a model call may make none.
struct Message {
    id: String,
    /// Its AG-UI name, in the id space of all messages.
    reasoning_id: String,
    role: Option<&'static str>,
    /// How many bytes of its text the client has had.
    told: usize,
    text_open: bool,
    reasoning_open: bool,
    /// Fragments are missing: what is left is told when it finishes.
    torn: bool,
}

struct Tool {
    id: String,
    name: String,
    parent: Option<String>,
    state: ToolState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ToolState {
    /// Its arguments are being streamed.
    Open,
    Called,
    Answered,
}

impl OpenRun {
    pub fn new(event: &Event) -> Self {
        Self {
            id: event.run_id,
            out_of_sight: false,
            name: event.run.clone(),
            model: event.data["model"].as_str().map(Into::into),
            latest: None,
            messages: Vec::new(),
            tools: Vec::new(),
            steps: Vec::new(),
        }
    }

    pub fn started<'a>(&'a self, thread: &'a str) -> AguiEvent<'a> {
        AguiEvent::RunStarted { thread_id: thread, run_id: &self.name, protocol_version: PROTOCOL_VERSION }
    }

    pub fn tell(&mut self, event: &Event, thread: &str, out: &mut Frames) -> Result<()> {
        self.out_of_sight = false;
        if event.is_terminal() {
            return self.end(event, thread, out);
        }
        let data = &event.data;
        match event.kind.as_str() {
            kind::MESSAGE_STARTED => {
                self.start_message(data);
                Ok(())
            }
            kind::TEXT_DELTA => self.message(data).map_or(Ok(()), |m| m.text(text(data, "delta"), out)),
            kind::REASONING_DELTA => self.message(data).map_or(Ok(()), |m| m.reason(text(data, "delta"), out)),
            kind::MESSAGE_FINISHED => self.finish_message(data, out),
            kind::TOOL_STARTED => self.start_tool(data, out),
            kind::TOOL_DELTA => self.tool(data).map_or(Ok(()), |t| t.arguments(text(data, "delta"), out)),
            kind::TOOL_FINISHED => self.tool(data).map_or(Ok(()), |t| t.answer(data, out)),
            kind::STEP_STARTED => self.start_step(text(data, "name"), out),
            kind::STEP_FINISHED => self.finish_step(text(data, "name"), out),
            kind::STATE_SNAPSHOT => out.push(&AguiEvent::StateSnapshot { snapshot: &data["snapshot"] }),
            STATE_DELTA if data["delta"].is_array() => out.push(&AguiEvent::StateDelta { delta: &data["delta"] }),
            // `run.started` again, after a wait or a crash, too.
            name => out.push(&AguiEvent::Custom { name, value: data }),
        }
    }

    /// Closes what may have ended in a gap.
    pub fn lose_sight(&mut self, out: &mut Frames) -> Result<()> {
        self.close_all(out)?;
        self.messages.iter_mut().for_each(|m| m.torn = true);
        self.latest = None;
        self.out_of_sight = true;
        Ok(())
    }

    /// Opens on a new stream what an earlier one opened.
    pub fn open_again(&self, out: &mut Frames) -> Result<()> {
        for step in &self.steps {
            out.push(&AguiEvent::StepStarted { step_name: step })?;
        }
        for message in &self.messages {
            if message.reasoning_open {
                message.open_reasoning(out)?;
            }
            if let (true, Some(role)) = (message.text_open, message.role) {
                out.push(&AguiEvent::TextMessageStart { message_id: &message.id, role })?;
            }
        }
        for tool in self.tools.iter().filter(|t| t.state == ToolState::Open) {
            out.push(&tool.start())?;
        }
        Ok(())
    }

    fn message(&mut self, data: &Value) -> Option<&mut Message> {
        let id = data["messageId"].as_str()?;
        self.messages.iter_mut().find(|m| m.id == id)
    }

    fn tool(&mut self, data: &Value) -> Option<&mut Tool> {
        let id = data["toolCallId"].as_str()?;
        self.tools.iter_mut().find(|t| t.id == id)
    }

    fn start_message(&mut self, data: &Value) {
        let message = Message::new(data);
        self.latest = Some(message.id.clone());
        if self.message(data).is_none() {
            self.messages.push(message);
        }
    }

    fn finish_message(&mut self, data: &Value, out: &mut Frames) -> Result<()> {
        let mut message = match self.messages.iter().position(|m| Some(m.id.as_str()) == data["messageId"].as_str()) {
            Some(i) => self.messages.remove(i),
            None => Message::new(data),
        };
        message.end_reasoning(out)?;
        let discarded = data["discarded"] == json!(true);
        let mut called = false;
        for tool in self.tools.iter_mut().filter(|t| t.parent.as_deref() == Some(&message.id)) {
            called = true;
            tool.end(out)?;
            if discarded {
                tool.discard(out)?;
            }
        }
        if discarded {
            self.tools.retain(|t| t.parent.as_deref() != Some(&message.id));
        }
        message.finish(data, discarded, called, out)
    }

    fn start_tool(&mut self, data: &Value, out: &mut Frames) -> Result<()> {
        // A call whose worker died is told once, however often it is made.
        if self.tool(data).is_some() {
            return Ok(());
        }
        let parent = data["messageId"].as_str().map(Into::into).or_else(|| self.latest.clone());
        if let Some(message) = self.messages.iter_mut().find(|m| Some(&m.id) == parent.as_ref()) {
            message.end_reasoning(out)?;
        }
        let (id, name) = (text(data, "toolCallId").to_owned(), text(data, "name").to_owned());
        let tool = Tool { id, name, parent, state: ToolState::Open };
        out.push(&tool.start())?;
        self.tools.push(tool);
        Ok(())
    }

    fn start_step(&mut self, name: &str, out: &mut Frames) -> Result<()> {
        if self.steps.iter().any(|s| s == name) {
            return Ok(());
        }
        self.steps.push(name.to_owned());
        out.push(&AguiEvent::StepStarted { step_name: name })
    }

    fn finish_step(&mut self, name: &str, out: &mut Frames) -> Result<()> {
        let Some(i) = self.steps.iter().position(|s| s == name) else { return Ok(()) };
        self.steps.remove(i);
        out.push(&AguiEvent::StepFinished { step_name: name })
    }

    fn close_all(&mut self, out: &mut Frames) -> Result<()> {
        for message in &mut self.messages {
            message.end_reasoning(out)?;
            message.end_text(None, out)?;
        }
        for tool in &mut self.tools {
            tool.end(out)?;
        }
        while let Some(step) = self.steps.pop() {
            out.push(&AguiEvent::StepFinished { step_name: &step })?;
        }
        Ok(())
    }

    fn end(&mut self, event: &Event, thread: &str, out: &mut Frames) -> Result<()> {
        self.close_all(out)?;
        let data = &event.data;
        let (thread_id, run_id) = (thread, self.name.as_str());
        match event.kind.as_str() {
            kind::RUN_FAILED => out.push(&AguiEvent::RunError {
                message: data["error"]["message"].as_str().unwrap_or("the run failed"),
                code: data["error"]["code"].as_str().unwrap_or("failed"),
            }),
            kind::RUN_CANCELLED => out.push(&AguiEvent::RunFinished {
                thread_id,
                run_id,
                result: None,
                outcome: Some(Outcome::Cancelled),
                usage: None,
                metadata: Some(&json!({ "runmill": data })),
            }),
            _ => out.push(&AguiEvent::RunFinished {
                thread_id,
                run_id,
                result: Some(&data["result"]).filter(|r| !r.is_null()),
                outcome: pending(data),
                usage: self.usage(data),
                metadata: None,
            }),
        }
    }

    fn usage(&self, data: &Value) -> Option<[TokenUsage<'_>; 1]> {
        let (input_tokens, output_tokens) = (data["usage"]["inputTokens"].as_u64()?, data["usage"]["outputTokens"].as_u64()?);
        Some([TokenUsage { model: self.model.as_deref(), input_tokens, output_tokens }])
    }
}

fn pending(data: &Value) -> Option<Outcome<'_>> {
    let ids = &data["pendingToolCallIds"];
    ids.as_array().filter(|ids| !ids.is_empty()).map(|_| Outcome::Success { pending_tool_call_ids: ids })
}

impl Message {
    fn new(data: &Value) -> Self {
        let id = text(data, "messageId").to_owned();
        // Results of tools are not streamed as text: TOOL_CALL_RESULT has them.
        let role = ["assistant", "user", "system", "developer"].into_iter().find(|role| data["role"] == json!(role));
        let reasoning_id = format!("{id}-reasoning");
        Self { id, reasoning_id, role, told: 0, text_open: false, reasoning_open: false, torn: false }
    }

    fn text(&mut self, delta: &str, out: &mut Frames) -> Result<()> {
        let (false, false, Some(role)) = (self.torn, delta.is_empty(), self.role) else { return Ok(()) };
        self.end_reasoning(out)?;
        if !self.text_open {
            self.text_open = true;
            out.push(&AguiEvent::TextMessageStart { message_id: &self.id, role })?;
        }
        self.told += delta.len();
        out.push(&AguiEvent::TextMessageContent { message_id: &self.id, delta })
    }

    /// Says what the fragments have not, then closes. `called`: it made tool calls, so that the client has it in any case.
    fn finish(mut self, data: &Value, discarded: bool, called: bool, out: &mut Frames) -> Result<()> {
        let ui_schema = Some(&data["uiSchema"]).filter(|ui| !ui.is_null());
        let marks = match (discarded, ui_schema) {
            (true, _) => Some(json!({ "runmill": { "discarded": true } })),
            (false, Some(ui)) => Some(json!({ "runmill": { "uiSchema": ui } })),
            (false, None) => None,
        };
        if !discarded && let Some(rest) = text(data, "content").get(self.told..) {
            self.torn = false;
            self.text(rest, out)?;
        }
        let marked = marks.is_some() && (!discarded || called || self.told > 0);
        if let (true, false, Some(role)) = (marked, self.text_open, self.role) {
            self.text_open = true;
            out.push(&AguiEvent::TextMessageStart { message_id: &self.id, role })?;
        }
        self.end_text(marks.as_ref(), out)
    }

    fn end_text(&mut self, metadata: Option<&Value>, out: &mut Frames) -> Result<()> {
        if !std::mem::take(&mut self.text_open) {
            return Ok(());
        }
        out.push(&AguiEvent::TextMessageEnd { message_id: &self.id, metadata })
    }

    fn reason(&mut self, delta: &str, out: &mut Frames) -> Result<()> {
        if self.torn || delta.is_empty() {
            return Ok(());
        }
        if !self.reasoning_open {
            self.reasoning_open = true;
            self.open_reasoning(out)?;
        }
        out.push(&AguiEvent::ReasoningMessageContent { message_id: &self.reasoning_id, delta })
    }

    fn open_reasoning(&self, out: &mut Frames) -> Result<()> {
        out.push(&AguiEvent::ReasoningStart { message_id: &self.reasoning_id })?;
        out.push(&AguiEvent::ReasoningMessageStart { message_id: &self.reasoning_id, role: "reasoning" })
    }

    fn end_reasoning(&mut self, out: &mut Frames) -> Result<()> {
        if !std::mem::take(&mut self.reasoning_open) {
            return Ok(());
        }
        out.push(&AguiEvent::ReasoningMessageEnd { message_id: &self.reasoning_id })?;
        out.push(&AguiEvent::ReasoningEnd { message_id: &self.reasoning_id })
    }
}

impl Tool {
    fn start(&self) -> AguiEvent<'_> {
        AguiEvent::ToolCallStart { tool_call_id: &self.id, tool_call_name: &self.name, parent_message_id: self.parent.as_deref() }
    }

    fn arguments(&mut self, delta: &str, out: &mut Frames) -> Result<()> {
        if self.state != ToolState::Open || delta.is_empty() {
            return Ok(());
        }
        out.push(&AguiEvent::ToolCallArgs { tool_call_id: &self.id, delta })
    }

    fn end(&mut self, out: &mut Frames) -> Result<()> {
        if self.state != ToolState::Open {
            return Ok(());
        }
        self.state = ToolState::Called;
        out.push(&AguiEvent::ToolCallEnd { tool_call_id: &self.id })
    }

    fn answer(&mut self, data: &Value, out: &mut Frames) -> Result<()> {
        let content = match (&data["error"], &data["result"]) {
            (Value::Null, Value::String(result)) => result.clone(),
            (Value::Null, result) => result.to_string(),
            (error, _) => json!({ "error": error }).to_string(),
        };
        let id = data["messageId"].as_str().map_or_else(|| self.result_id(), Into::into);
        self.result(&id, &content, None, out)
    }

    /// Answers the call of a discarded message, lest the client takes it for one that waits for its own answer.
    fn discard(&mut self, out: &mut Frames) -> Result<()> {
        let marks = json!({ "runmill": { "discarded": true } });
        self.result(&self.result_id(), "discarded: the answer that made this call was interrupted", Some(&marks), out)
    }

    fn result(&mut self, id: &str, content: &str, metadata: Option<&Value>, out: &mut Frames) -> Result<()> {
        self.end(out)?;
        if self.state == ToolState::Answered {
            return Ok(());
        }
        self.state = ToolState::Answered;
        let tool_call_id = &self.id;
        out.push(&AguiEvent::ToolCallResult { message_id: id, tool_call_id, content, role: "tool", metadata })
    }

    fn result_id(&self) -> String {
        format!("{}-result", self.id)
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}
