//! `/history`: a thread's messages, a day at a time.
use std::collections::HashMap;

use chrono::NaiveDate;
use chrono_tz::Tz;
use poem::web::Data;
use poem_openapi::{Object, OpenApi, param::Query, payload::Json};
use runmill_shared::{
    App, Error, Result,
    domain::message::{Message, MessageToolCall},
    services::history::{self, Day},
};
use serde_json::Value;

use super::Reply;
use crate::http::{address::BaseUrl, auth::Auth};

#[derive(Object)]
struct FunctionCall {
    name: String,
    /// JSON, as the model wrote it
    arguments: String,
}

#[derive(Object)]
struct ToolCallBody {
    id: String,
    /// function
    #[oai(rename = "type")]
    kind: String,
    function: FunctionCall,
}

impl From<MessageToolCall> for ToolCallBody {
    fn from(call: MessageToolCall) -> Self {
        Self { id: call.id, kind: "function".into(), function: FunctionCall { name: call.name, arguments: call.arguments } }
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct HistoryMessage {
    id: String,
    /// its place in the thread
    seq: i64,
    role: String,
    content: String,
    /// of the first picture, recording or document in it: signed for 15 minutes when it is an attachment
    url: Option<String>,
    #[oai(skip_serializing_if_is_none)]
    ui_schema: Option<Value>,
    #[oai(default, skip_serializing_if_is_empty)]
    tool_calls: Vec<ToolCallBody>,
    #[oai(skip_serializing_if_is_none)]
    tool_call_id: Option<String>,
    /// ISO 8601, UTC
    timestamp: String,
}

impl HistoryMessage {
    fn new(message: Message, url: Option<String>) -> Self {
        Self {
            content: message.body.plain(),
            id: message.id,
            seq: message.seq,
            role: message.role.as_str().to_owned(),
            url,
            ui_schema: message.body.ui_schema,
            tool_calls: message.body.tool_calls.into_iter().map(Into::into).collect(),
            tool_call_id: message.body.tool_call_id,
            timestamp: message.at.rfc3339(),
        }
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct HistoryBody {
    /// history_day
    scope: String,
    thread_id: Option<String>,
    /// YYYY-MM-DD
    day: Option<String>,
    /// whether there are messages from before that day
    has_more: bool,
    messages: Vec<HistoryMessage>,
}

impl HistoryBody {
    fn new(day: Day, mut urls: HashMap<String, String>) -> Self {
        let message = |m: Message| {
            let url = urls.remove(&m.id);
            HistoryMessage::new(m, url)
        };
        Self {
            scope: "history_day".into(),
            thread_id: day.thread,
            day: day.day.map(|d| d.to_string()),
            has_more: day.has_more,
            messages: day.messages.into_iter().map(message).collect(),
        }
    }
}

fn read_date(text: &str) -> Result<NaiveDate> {
    let shaped =
        text.len() == 10 && text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| shaped);
    date.ok_or_else(|| Error::malformed("before: must be a date, as 2026-03-15"))
}

fn read_tz(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| Error::malformed("tz: must be an IANA time zone, as Europe/Zurich"))
}

pub struct HistoryApi;

#[OpenApi]
impl HistoryApi {
    /// The newest day of a thread that has messages, or the newest before `before`.
    #[oai(path = "/history", method = "get", operation_id = "getHistory")]
    async fn history(
        &self,
        app: Data<&App>,
        base: BaseUrl,
        caller: Auth,
        /// the caller's latest thread when it is left out
        #[oai(name = "threadId")]
        thread: Query<Option<String>>,
        /// YYYY-MM-DD
        before: Query<Option<String>>,
        /// an IANA time zone, in which days begin and end; UTC by default
        tz: Query<Option<String>>,
    ) -> Reply<Json<HistoryBody>> {
        let before = before.0.as_deref().map(read_date).transpose()?;
        let tz = tz.0.as_deref().map_or(Ok(Tz::UTC), read_tz)?;
        let day = history::day(&app, &caller.0, thread.0.as_deref(), before, tz).await?;
        let urls = history::media_urls(&app, &caller.0, &day, &base.0).await?;
        Ok(Json(HistoryBody::new(day, urls)))
    }
}
